// The drawing: bands, wires and items as SVG; hover and keyboard.

class Graph {
  constructor(circuit, layout, heads, on) {
    Object.assign(this, { circuit, layout, heads, on });
    this.scene = draw("g");
    this.svg = draw("svg", { role: "group", "aria-label": "Circuit graph; arrow keys move" });
    this.svg.append(this.scene);
    this.scene.append(...this.drawBands(), ...this.drawHeads());
    this.wires = circuit.wires.map((wire) => this.drawWire(wire));
    this.items = circuit.items.map((item) => this.drawItem(item));
    // Strong edges on top of weak ones, and all of them paler where there are many.
    const strength = (wire) => (wire.type === "edge" || wire.route ? Math.abs(wire.weight) : -1);
    const order = [...circuit.wires].sort((a, b) => strength(a) - strength(b) || a.id - b.id);
    this.scene.append(...order.map((wire) => this.wires[wire.id]), ...this.items);
    const crowd = Math.log10(Math.max(1, circuit.wires.filter((wire) => !wire.further).length / 60));
    this.scene.style.setProperty("--edge", Math.max(0.5, 0.88 - 0.28 * crowd).toFixed(2));
    if (this.items.length) this.items[0].setAttribute("tabindex", "0");
    this.view = new View(this.svg, this.scene, layout);
    this.listen();
  }

  drawBands() {
    const { bands, width } = this.layout;
    return bands.flatMap((band, i) => {
      const folded = band.rows.length === 0;
      const height = band.bottom - band.top;
      const middle = (band.top + band.bottom) / 2;
      const label = draw("text", {
        class: folded ? "folded-label" : "band-label", x: 12, y: folded ? middle + 3.5 : band.top + 19,
      });
      label.textContent = folded ? `${band.label} · nothing kept` : band.label;
      const rows = band.rows.filter(([name]) => name);

      const box = draw("rect", { class: folded ? "band folded" : "band", x: 0, y: band.top, width, height, rx: 5 });
      if (i === 0) this.embeddingBox = box;
      return [
        box,
        label,
        ...(i === 0 && this.layout.note ? [this.drawNote(this.layout.note)] : []),
        ...rows.map(([name, y], i) => {
          const near = i === rows.length - 1 && y - band.top < 26;
          const text = draw("text", { class: "row-label", x: 12, y: near ? y + 14 : y + 3.5 });
          text.textContent = name;
          return text;
        }),
      ];
    });
  }

  // In the embedding's band: how many tokens are not drawn.
  drawNote({ text, x, y }) {
    this.note = draw("text", { class: "note", x, y });

    this.note.textContent = text;
    return this.note;
  }

  // Draw the further tokens, or take them out again; nothing else moves.
  drawFurther(drawn) {
    this.further = drawn;
    if (!this.layout.note) return;
    this.note.classList.toggle("off", drawn);
    const height = drawn ? this.layout.height_with_further : this.layout.height;
    this.embeddingBox.setAttribute("height", height - this.layout.bands[0].top);
    this.view.resize(height);
  }

  drawHeads() {
    return this.heads.flatMap((head) => {
      const inside = [...head.q, ...head.k, ...head.v].map((id) => this.circuit.items[id]);
      const left = Math.min(...inside.map((item) => item.x - item.width / 2)) - 6;
      const right = Math.max(...inside.map((item) => item.x + item.width / 2)) + 6;
      const y = inside[0].y;
      const label = draw("text", { class: "head-label", x: left + 5, y: y - 12.5 });
      label.textContent = head.name;

      return [
        draw("rect", { class: "head-box", x: left, y: y - 22, width: right - left, height: 37, rx: 5 }),
        label,
      ];
    });
  }

  drawWire(wire) {
    const a = this.circuit.items[wire.a];
    const b = this.circuit.items[wire.b];
    const path = wire.route ? through(wire.route) : wire.type === "pair" ? arc(a, b) : curve(a, b);
    const sign = wire.weight === null ? "" : wire.weight < 0 ? " negative" : " positive";
    const line = draw("path", { class: "link", d: path });
    if (wire.weight !== null) line.setAttribute("stroke-width", this.thickness(wire).toFixed(2));
    const group = draw("g", { class: `wire ${wire.type}${sign}`, "data-wire": wire.id });
    pale(group, wire.share);
    group.append(draw("path", { class: "hit", d: path }), line);
    return group;
  }

  // Edges, and embedding and unembedding entries, each against their own largest weight.
  thickness(wire) {
    this.most ??= {};
    this.most[wire.type] ??= largest(
      this.circuit.wires.filter((w) => w.type === wire.type).map((w) => w.weight));
    return 0.5 + (3.5 * Math.abs(wire.weight)) / (this.most[wire.type] || 1);
  }

  drawItem(item) {
    const inHead = item.type === "node" && item.node.head !== null;
    const round = inHead ? 3 : item.type === "node" && item.node.kind !== "post_act" ? 9 : 4;
    const text = draw("text", { x: item.x, y: item.y + 0.5 });
    text.textContent = item.label;
    const group = draw("g", {
      class: `item ${item.type}${item.deciding ? " deciding" : ""} ${item.tint ?? ""}`,

      "data-item": item.id, tabindex: -1, role: "button",

      "aria-label": `${item.name}, ${item.description}`,
    });
    pale(group, item.node?.share);
    if (item.component?.kind === "head") group.append(...drawHead(item));
    else group.append(draw("rect", {
      x: item.x - item.width / 2, y: item.y - 9, width: item.width, height: 18, rx: round,
    }), text);
    return group;
  }

  listen() {
    const itemOf = (event) => event.target.closest?.("[data-item]")?.dataset.item;
    const wireOf = (event) => event.target.closest?.("[data-wire]")?.dataset.wire;
    this.svg.addEventListener("pointermove", (event) => {
      if (this.view.drag) return;
      const item = itemOf(event);
      const wire = wireOf(event);
      if (item !== undefined) this.on.hoverItem(event, Number(item));
      else if (wire !== undefined) this.on.hoverWire(event, Number(wire));
      else this.on.leave();
    });
    this.svg.addEventListener("pointerleave", () => this.on.leave());
    this.svg.addEventListener("click", (event) => {
      if (!this.view.moved) this.on.pick(itemOf(event) === undefined ? null : Number(itemOf(event)));
    });
    this.svg.addEventListener("focusin", (event) => {
      const item = itemOf(event);
      if (item !== undefined && event.target.matches(":focus-visible")) {
        const box = event.target.getBoundingClientRect();
        this.on.hoverItem({ clientX: box.right, clientY: box.bottom }, Number(item));
      }
    });
    this.svg.addEventListener("keydown", (event) => this.key(event, itemOf(event)));
  }

  key(event, current) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const actions = {
      "+": () => this.view.zoom(1.25), "-": () => this.view.zoom(0.8), 0: () => this.view.fit(),
      Enter: () => this.on.pick(Number(current)), " ": () => this.on.pick(Number(current)),
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (steps[event.key]) this.step(this.circuit.items[current], ...steps[event.key]);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  }

  // Move the keyboard focus to the nearest item on that side, straight ahead before sideways.
  step(from, dx, dy) {
    const cost = (item) => {
      if (this.isOff(item)) return Infinity;
      const ahead = (item.x - from.x) * dx + (item.y - from.y) * dy;
      const aside = Math.abs(dx ? item.y - from.y : item.x - from.x);
      return ahead <= 0.5 || (dx && aside > 4) ? Infinity : ahead + aside * (dy ? 0.3 : 0);
    };
    const costs = this.circuit.items.map(cost);
    const best = costs.indexOf(Math.min(...costs));
    if (costs[best] === Infinity) return;
    this.items[from.id].setAttribute("tabindex", "-1");
    this.items[best].setAttribute("tabindex", "0");
    this.items[best].focus();
  }

  // Light up some items and wires and dim the rest; null: all as usual.
  focus(items, wires) {
    this.scene.classList.toggle("focus", items !== null);
    for (const element of this.lit ?? []) element.classList.remove("lit");
    this.lit = items === null ? [] : [...items.map((i) => this.items[i]), ...wires.map((i) => this.wires[i])];
    for (const element of this.lit) element.classList.add("lit");
  }

  filter(keep) {
    const busy = new Set();
    for (const wire of this.circuit.wires) {
      const kept = keep(wire);
      this.wires[wire.id].classList.toggle("off", !kept);
      if (kept) busy.add(wire.a).add(wire.b);
    }
    this.items.forEach((element, i) => {
      element.classList.toggle("idle", !busy.has(i));
      element.classList.toggle("off", this.isOff(this.circuit.items[i]));
    });
  }

  isOff(item) {
    return item.further === true && !this.further;
  }

  pin(item) {
    this.items.forEach((element, i) => element.classList.toggle("pinned", i === item));
  }

  // Fill nodes with colours; null gives the plain look back.
  fill(colours) {
    this.circuit.items.forEach((item, i) => {
      if (item.type === "node") this.items[i].firstChild.style.fill = colours ? colours[i] : "";
    });
  }
}

// What few searches found again is pale, never gone.
function pale(element, share) {
  if (typeof share === "number") element.style.setProperty("--share", (0.2 + 0.8 * share).toFixed(2));
}

function curve(a, b) {
  const [y1, y2] = [a.y - 9, b.y + 9];
  const bend = Math.max(18, Math.abs(y1 - y2) * 0.45);
  return `M${a.x} ${y1}C${a.x} ${y1 - bend} ${b.x} ${y2 + bend} ${b.x} ${y2}`;
}

function arc(a, b) {
  return `M${a.x} ${a.y - 9}Q${(a.x + b.x) / 2} ${a.y - 22} ${b.x} ${b.y - 9}`;
}
