// The page's state (pinned item, prompt, token position, threshold) and what follows from it.

function main() {
  const data = JSON.parse(byId("data").textContent);
  const circuit = readCircuit(data);
  const state = { pinned: null, prompt: 0, position: null };
  const weighted = circuit.wires.filter((wire) => wire.weight !== null);
  const weights = weighted.map((wire) => Math.abs(wire.weight)).sort((a, b) => a - b);

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
      const texts = { input: [item.text], more: item.entries?.map((entry) => entry.text) }[item.type];
      if (texts) graph.items[i].classList.toggle("absent", !texts.some((text) => present.has(text)));
    });
    graph.fill(position === null ? null : data.activations.map((values) => {
      const most = largest(values.flat());
      return most ? colour(values[p][position] / most) : "";
    }));
  }

  function filter() {
    const rank = Math.round((byId("threshold").value / 1000) * (weights.length - 1));
    const least = byId("threshold").value === "0" ? 0 : weights[rank] ?? 0;
    const residual = byId("residual").checked;
    const keep = (wire) => (wire.weight === null
      ? (wire.type !== "residual" || residual) && !(wire.most < least)
      : Math.abs(wire.weight) >= least);
    graph.filter(keep);
    byId("threshold-value").textContent = brief(least);
    const kept = weighted.filter(keep).length;
    const all = weighted.length + circuit.folded;
    byId("shown-count").textContent = `${grouped(kept)} of ${grouped(all)} shown`;
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
  byId("legend-more").hidden = !circuit.folded;
  byId("legend-deciding").hidden = !circuit.items.some((item) => item.deciding);
  byId("legend-shares").hidden = !circuit.runs;
  byId("pane").append(graph.svg);
  byId("threshold").addEventListener("input", filter);
  byId("residual").addEventListener("change", filter);
  byId("zoom-in").addEventListener("click", () => graph.view.zoom(1.25));
  byId("zoom-out").addEventListener("click", () => graph.view.zoom(0.8));
  byId("zoom-fit").addEventListener("click", () => graph.view.fit());
  byId("strip").addEventListener("click", chooseToken);
  byId("strip").addEventListener("keydown", chooseToken);
  addEventListener("keydown", (event) => { if (event.key === "Escape") { pick(null); tooltip.hide(); } });
  filter();
  choose(0, null);
  pick(null);
}

function aboutItem(circuit, item, activation) {
  const lines = [make("b", { textContent: item.name }), item.what];
  if (item.type === "more") return [...lines, aboutEntries(item.entries)];
  if (item.type === "node") {
    lines.push(`mean ${exact(item.node.mean)}`);
    const times = found(circuit, item.node.share);
    if (times) lines.push(`found again in ${times} searches`);
    if (activation !== null) lines.push(`activation at the marked token ${exact(activation)}`);
  }
  for (const side of ["in", "out"]) {
    const entries = strongest(circuit, item, side);
    for (const entry of entries.slice(0, 4)) {
      lines.push(make("span", {}, `${side === "in" ? "←" : "→"} ${entry.name}${read(entry)}  `, signed(entry.weight)));
    }
    if (entries.length > 4) lines.push(`    and ${entries.length - 4} more`);
  }
  return lines;
}

// All tokens of a fold in running text, as they may be a hundred.
function aboutEntries(entries) {
  return make("span", {}, ...entries.flatMap((entry) => [
    make("code", { textContent: entry.name }), "\u00a0",
    make("span", { textContent: brief(entry.weight), className: entry.weight < 0 ? "minus" : "plus" }),
    "   "]));
}

function aboutWire(data, circuit, wire) {
  const [a, b] = [circuit.items[wire.a], circuit.items[wire.b]];
  if (wire.route) {
    const target = wire.input ? `${b.name}.${wire.input}` : b.name;
    return [make("b", { textContent: `${a.name} → ${target}` }), ...aboutPath(data, wire)];
  }
  const notes = {
    residual: "same residual channel: what one writes the other reads",
    pair: "query and key of one channel: their product adds to the attention score",
    more: `${wire.count} embedding entries, the largest ${brief(wire.most)} in size`,
  };
  const said = wire.weight === null ? notes[wire.type] : make("span", {}, "weight ", signed(wire.weight));
  const times = found(circuit, wire.share);
  return [make("b", { textContent: `${a.name} ${wire.type === "pair" ? "·" : "→"} ${b.name}` }), said,
    ...(times ? [`found again in ${times} searches`] : [])];
}

main();
