// The page's state (pinned item, prompt, token position, threshold) and how it changes the page.

function main() {
  const data = JSON.parse(byId("data").textContent);
  const circuit = readCircuit(data);
  const state = { pinned: null, prompt: 0, position: null };
  const weighted = circuit.wires.filter((wire) => wire.weight !== null);

  const graph = new Graph(circuit, data.layout, data.heads, {
    hoverItem(event, id) {
      light(id);
      tooltip.show(event, ...aboutItem(circuit, circuit.items[id], activationHere(id)));
    },
    hoverWire(event, id) {
      const wire = circuit.wires[id];
      graph.focus([wire.a, wire.b], [id]);
      tooltip.show(event, ...aboutWire(data, circuit, wire));
    },
    leave() {
      light(state.pinned);
      tooltip.hide();
    },
    pick(id) {
      pick(id === state.pinned ? null : id);
    },
  });
  const prompts = new Prompts(data, circuit, {
    choose: (p) => choose(p, null),
    hover(event, p, t) {
      const text = data.prompts[p].tokens[t];
      const lines = [make("b", { textContent: circuit.label(text) })];
      const node = pinnedNode();
      if (node !== null) {
        lines.push(`${data.nodes[node].name}: ${exact(data.activations[node][p][t])}`);
      }
      tooltip.show(event, ...lines);
    },
  });

  function pinnedNode() {
    return state.pinned !== null && circuit.items[state.pinned].type === "node" ? state.pinned : null;
  }

  function activationHere(id) {
    const isNode = circuit.items[id].type === "node";
    if (!isNode || state.position === null) return null;
    return data.activations[id][state.prompt][state.position];
  }

  function light(id) {
    if (id === null) return graph.focus(null);
    const { wires } = circuit.items[id];
    return graph.focus([id, ...wires.flatMap((wire) => [wire.a, wire.b])], wires.map((wire) => wire.id));
  }

  function pick(id) {
    if (id !== null && circuit.items[id].further && !byId("further").checked) {
      byId("further").checked = true;
      drawFurther();
    }
    state.pinned = id;
    graph.pin(id);
    light(id);
    drawDetails(circuit, id === null ? null : circuit.items[id], pick);
    prompts.colourBy(pinnedNode());
  }

  function choose(p, position) {
    Object.assign(state, { prompt: p, position });
    if (!data.prompts.length || data.level === "head") return;
    prompts.choose(p, position);
    const present = new Set(data.prompts[p].tokens);
    circuit.items.forEach((item, i) => {
      if (item.type === "input") graph.items[i].classList.toggle("absent", !present.has(item.text));
    });
    graph.fill(position === null ? null : data.activations.map((values) => {
      const most = largest(values.flat());
      return most ? colour(values[p][position] / most) : "";
    }));
  }

  function filter() {
    const further = byId("further").checked;
    const drawn = weighted.filter((wire) => further || !wire.further);
    const weights = drawn.map((wire) => Math.abs(wire.weight)).sort((a, b) => a - b);
    const rank = Math.round((byId("threshold").value / 1000) * (weights.length - 1));
    const least = byId("threshold").value === "0" ? 0 : weights[rank] ?? 0;
    const residual = byId("residual").checked;
    const keep = (wire) => (wire.weight === null
      ? wire.type !== "residual" || residual
      : Math.abs(wire.weight) >= least && (further || !wire.further));
    graph.filter(keep);
    byId("threshold-value").textContent = brief(least);
    const kept = drawn.filter(keep).length;
    const all = weighted.length + circuit.undrawn;
    byId("shown-count").textContent = `${grouped(kept)} of ${grouped(all)} shown`;
  }

  function drawFurther() {
    graph.drawFurther(byId("further").checked);
    filter();
  }

  function chooseToken(event) {
    const token = event.target.closest(".token");
    if (!token || (event.key && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    const t = Number(token.dataset.token);
    choose(state.prompt, t === state.position ? null : t);
    if (event.key) byId("strip").querySelectorAll(".token")[t].focus();
  }

  document.body.dataset.level = data.level;
  drawHeader(data, circuit);
  if (data.patching) byId("patching").append(...drawPatching(data));
  byId("further-control").hidden = !data.folded.length;
  byId("further-count").textContent = allTokens(data);
  byId("legend-at").hidden = !circuit.items.some((item) => item.activeAt?.length);
  byId("legend-before").hidden = !circuit.items.some((item) => item.activeBefore?.length);

  byId("legend-deciding").hidden = !circuit.items.some((item) => item.deciding);
  byId("legend-shares").hidden = !circuit.runs;
  byId("pane").append(graph.svg);
  byId("threshold").addEventListener("input", filter);
  byId("residual").addEventListener("change", filter);
  byId("further").addEventListener("change", drawFurther);
  byId("zoom-in").addEventListener("click", () => graph.view.zoom(1.25));
  byId("zoom-out").addEventListener("click", () => graph.view.zoom(0.8));
  byId("zoom-fit").addEventListener("click", () => graph.view.fit());
  byId("strip").addEventListener("click", chooseToken);
  byId("strip").addEventListener("keydown", chooseToken);
  addEventListener("keydown", (event) => { if (event.key === "Escape") { pick(null); tooltip.hide(); } });
  drawFurther();
  choose(0, null);
  pick(null);
}

function aboutItem(circuit, item, activation) {
  const lines = [make("b", { textContent: item.name }), item.description];
  if (item.type === "node") {
    if (namedBy(item)) lines.push(namedBy(item).join(" "));
    lines.push(`mean ${exact(item.node.mean)}`);
    const times = searchesWith(circuit, item.node.share);
    if (times) lines.push(`found again in ${times} searches`);
    if (activation !== null) lines.push(`activation at the marked token ${exact(activation)}`);
  }
  for (const side of ["in", "out"]) {
    const entries = strongest(circuit, item, side);
    for (const
 entry of entries.slice(0, 4)) {
      lines.push(make("span", {}, `${side === "in" ? "←" : "→"} ${entry.name}${read(entry)}  `, signed(entry.weight)));
    }
    if (entries.length > 4) lines.push(`    and ${entries.length - 4} more`);
  }
  return lines;
}

// The label of the control that draws the other tokens, as "draw all 245 tokens".

function allTokens(data) {
  const ids = data.folded.flatMap((fold) => fold.entries.map(([, id]) => id));
  const all = new Set([...ids, ...data.inputs.map((entry) => entry.token_id)]).size;
  const drawn = data.inputs.length + data.further.length;
  return `draw ${drawn < all ? `${grouped(drawn)} of ${grouped(all)} tokens` : `all ${counted(all, "token")}`}`;
}

function aboutWire(data, circuit, wire) {
  const [a, b] = [circuit.items[wire.a], circuit.items[wire.b]];
  if (wire.route) {
    const target = wire.input ? `${b.name}.${wire.input}` : b.name;
    return [make("b", { textContent: `${a.name} → ${target}` }), ...aboutPath(data, wire)];
  }
  const notes = {
    residual: "same residual channel: one node writes it, the other reads it",
    pair: "query and key of one channel: their product adds to the attention score",

  };
  const note = wire.weight === null ? notes[wire.type] : make("span", {}, "weight ", signed(wire.weight));
  const times = searchesWith(circuit, wire.share);

  return [make("b", { textContent: `${a.name} ${wire.type === "pair" ? "·" : "→"} ${b.name}` }), note,
    ...(times ? [`found again in ${times} searches`] : [])];
}

main();
