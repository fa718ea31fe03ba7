// The circuit as one list of items (nodes, embedded tokens, answers) and one list of wires.

const KINDS = {
  act_in: "residual read", q: "query", k: "key", v: "value",
  post_act: "MLP neuron", resid_delta: "residual write",
};

function readCircuit(data) {
  const shown = (text) => data.texts[text].shown;
  const firstIn = data.nodes.length;
  const firstOut = firstIn + data.inputs.length;
  const items = [
    ...data.nodes.map((node) => ({
      type: "node", node, name: node.name,
      label: node.head === null ? String(node.index) : `${node.kind}${node.channel}`,
      what: describe(node),
    })),
    ...data.inputs.map((entry) => ({
      type: "input", text: entry.text, name: shown(entry.text), label: shown(entry.text),
      what: `embedding of token ${entry.token_id}`,
    })),
    ...data.outputs.map((entry) => ({
      type: "output", text: entry.text, name: shown(entry.text), label: shown(entry.text),
      what: entry.token_id === null ? "answer" : `answer, unembedding of token ${entry.token_id}`,
    })),
  ];
  items.forEach((item, i) => {
    [item.x, item.y] = data.layout.points[i];
    item.width = data.layout.widths[i];
    item.id = i;
    item.wires = [];
  });
  const wires = [
    ...data.residual_links.map(([a, b]) => ({ type: "residual", a, b, weight: null })),
    ...data.in_edges.map(([a, b, w]) => ({ type: "io-edge", a: firstIn + a, b, weight: w })),
    ...data.out_edges.map(([a, b, w]) => ({ type: "io-edge", a, b: firstOut + b, weight: w })),
    ...data.edges.map(([a, b, w], i) => (
      { type: "edge", a, b, weight: w, share: data.edge_shares[i] })),
    ...data.heads.flatMap((head) => head.pairs.map(([a, b]) => (
      { type: "pair", a, b, weight: null }))),
  ];
  wires.forEach((wire, i) => {
    wire.id = i;
    items[wire.a].wires.push(wire);
    items[wire.b].wires.push(wire);
  });
  return { items, wires, shown, runs: data.share_runs };
}

function describe(node) {
  const kind = KINDS[node.kind];
  if (node.head === null) {
    return node.kind === "post_act"
      ? `${kind} ${node.index} of layer ${node.layer}`
      : `${kind} of channel ${node.index} (${node.sublayer} of layer ${node.layer})`;
  }
  return `${kind}, head ${node.head} of layer ${node.layer}, channel ${node.channel} of the head`;
}

// How often repeated searches found a node or an edge again; null where none was measured.
function found(circuit, share) {
  if (share === null || share === undefined) return null;
  return `${Math.round(share * circuit.runs)} of ${circuit.runs}`;
}

// Wires into and out of an item, strongest first.
function strongest(item, side) {
  return item.wires
    .filter((wire) => wire.weight !== null && wire[side === "in" ? "b" : "a"] === item.id)
    .sort((x, y) => Math.abs(y.weight) - Math.abs(x.weight) || x.id - y.id);
}
