// The circuit as one list of items (nodes, embedded tokens, answers) and one list of wires.

const KINDS = {
  act_in: "residual read", q: "query", k: "key", v: "value",
  post_act: "MLP neuron", resid_delta: "residual write",
};

function readCircuit(data) {
  const shown = (text) => data.texts[text].shown;
  const label = (text) => data.texts[text].label;
  const firstIn = data.nodes.length;
  const firstOut = firstIn + data.inputs.length;
  const firstMore = firstOut + data.outputs.length;
  const items = [
    ...data.nodes.map((node) => ({
      type: "node", node, name: node.name,
      label: node.head === null ? String(node.index) : `${node.kind}${node.channel}`,
      what: describe(node),
    })),
    ...data.inputs.map((entry) => ({
      type: "input", text: entry.text, name: label(entry.text), label: label(entry.text),
      deciding: entry.deciding,
      what: `embedding of token ${entry.token_id}${entry.deciding
        ? "; the two prompts of a pair differ in it" : ""}`,
    })),
    ...data.outputs.map((entry) => ({
      type: "output", text: entry.text, name: label(entry.text), label: label(entry.text),
      what: entry.token_id === null ? "answer" : `answer, unembedding of token ${entry.token_id}`,
    })),
    ...data.folded.map((fold) => ({
      type: "more", label: `+${fold.entries.length}`,
      name: `${fold.entries.length} more tokens`, what: `read by ${data.nodes[fold.node].name}`,
      entries: fold.entries.map(([text, id, weight]) => (
        { text, weight, name: label(text), what: `embedding of token ${id}` })),
    })),
    ...readComponents(data),
  ];
  items.forEach((item, i) => {
    [item.x, item.y] = data.layout.points[i];
    item.width = data.layout.widths[i];
    item.id = i;
    item.wires = [];
  });
  data.folded.forEach((fold, i) => { items[fold.node].folded = items[firstMore + i].entries; });
  const wires = [
    ...data.residual_links.map(([a, b]) => ({ type: "residual", a, b, weight: null })),
    ...data.in_edges.map(([a, b, w]) => ({ type: "io-edge", a: firstIn + a, b, weight: w })),
    ...data.out_edges.map(([a, b, w]) => ({ type: "io-edge", a, b: firstOut + b, weight: w })),
    ...data.edges.map(([a, b, w], i) => (
      { type: "edge", a, b, weight: w, share: data.edge_shares[i] })),
    ...data.folded.map((fold, i) => ({
      type: "more", a: firstMore + i, b: fold.node, weight: null,
      most: Math.abs(fold.entries[0][2]), count: fold.entries.length })),
    ...data.heads.flatMap((head) => head.pairs.map(([a, b]) => (
      { type: "pair", a, b, weight: null }))),
    ...readPaths(data, firstMore + data.folded.length),
  ];
  wires.forEach((wire, i) => {
    wire.id = i;
    items[wire.a].wires.push(wire);
    items[wire.b].wires.push(wire);
  });
  const folded = data.folded.reduce((sum, fold) => sum + fold.entries.length, 0);
  const ioEdges = data.in_edges.length + data.out_edges.length + folded;
  return { items, wires, shown, label, folded, ioEdges, runs: data.share_runs };
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

// What an item reads or writes, folded tokens too, strongest first:
// {name, what, weight, item?, input?}, the input q, k or v of a head.
function strongest(circuit, item, side) {
  const [here, there] = side === "in" ? ["b", "a"] : ["a", "b"];
  const wired = item.wires
    .filter((wire) => (wire.weight !== null || wire.route) && wire[here] === item.id)
    .map((wire) => {
      const other = circuit.items[wire[there]];
      const { weight, input } = wire;
      return { item: other, name: other.name, what: other.what, weight, input };
    });
  const folded = (side === "in" ? item.folded : item.entries) ?? [];
  return [...wired, ...folded].sort((x, y) => Math.abs(y.weight) - Math.abs(x.weight));
}
