// The circuit as one list of items (nodes, embedded tokens, answers) and one list of wires.
// Items and wires with `further` set are drawn on request only.

const KINDS = {
  act_in: "residual read", q: "query", k: "key", v: "value",
  post_act: "MLP neuron", resid_delta: "residual write",
};

function readCircuit(data) {
  const shown = (text) => data.texts[text].shown;
  const label = (text) => data.texts[text].label;
  const firstIn = data.nodes.length;
  const firstOut = firstIn + data.inputs.length;
  const firstFurther = firstOut + data.outputs.length;
  const readInput = (entry) => ({
    type: "input", text: entry.text, name: label(entry.text), label: label(entry.text),
    deciding: entry.deciding, description: `embedding of token ${entry.token_id}${entry.deciding
      ? "; the two prompts of a pair differ in it" : ""}`,
  });
  const items = [
    ...data.nodes.map((node) => ({
      type: "node", node, name: node.name, label: node.label, description: describe(node),
      activeAt: node.active_at.map(([text, share]) => [label(text), share]),
      activeBefore: node.active_before.map(([text, share]) => [label(text), share]),
      tint: tintOf(data, node),
    })),
    ...data.inputs.map(readInput),
    ...data.outputs.map((entry, i) => ({
      type: "output", text: entry.text, name: label(entry.text), label: label(entry.text),
      tint: i > 1 ? "" : `answer-${i}`,

      description: entry.token_id === null ? "answer" : `answer, unembedding of token ${entry.token_id}`,
    })),
    ...data.further.map((entry) => ({ ...readInput(entry), further: true })),
    ...readComponents(data),
  ];
  items.forEach((item, i) => {
    [item.x, item.y] = data.layout.points[i];
    item.width = data.layout.widths[i];
    item.id = i;
    item.wires = [];
    item.undrawn = [];
  });
  const ofToken = new Map([
    ...data.inputs.map((entry, i) => [entry.token_id, firstIn + i]),
    ...data.further.map((entry, i) => [entry.token_id, firstFurther + i]),
  ]);
  const folded = data.folded.flatMap(({ node, entries }) => (
    entries.map(([text, id, weight]) => ({ a: ofToken.get(id), b: node, text, id, weight }))));
  for (const { a, b, text, id, weight } of folded) {
    const description = `embedding of token ${id}`;
    if (a === undefined) items[b].undrawn.push({ name: label(text), description, weight });
  }
  const wires = [
    ...data.residual_links.map(([a, b]) => ({ type: "residual", a, b, weight: null })),
    ...data.in_edges.map(([a, b, w]) => ({ type: "io-edge", a: firstIn + a, b, weight: w })),
    ...data.out_edges.map(([a, b, w]) => ({ type: "io-edge", a, b: firstOut + b, weight: w })),
    ...data.edges.map(([a, b, w], i) => (
      { type: "edge", a, b, weight: w, share: data.edge_shares[i] })),
    ...folded.filter(({ a }) => a !== undefined).map(({ a, b, weight }) => (
      { type: "io-edge", a, b, weight, further: true })),
    ...data.heads.flatMap((head) => head.pairs.map(([a, b]) => (
      { type: "pair", a, b, weight: null }))),
    ...readPaths(data, firstFurther + data.further.length),
  ];
  wires.forEach((wire, i) => {
    wire.id = i;
    items[wire.a].wires.push(wire);
    items[wire.b].wires.push(wire);
  });
  const ioEdges = data.in_edges.length + data.out_edges.length + folded.length;
  const undrawn = folded.filter(({ a }) => a === undefined).length;
  return { items, wires, shown, label, undrawn, ioEdges, runs: data.share_runs };
}

function describe(node) {
  const kind = KINDS[node.kind];
  if (node.head === null) {
    return node.kind === "post_act"
      ? `${kind} ${node.index} of layer ${node.layer}`
      : `${kind} of channel ${node.index} (${node.sublayer} of layer ${node.layer})`;
  }
  return `${kind}, channel ${node.channel} of head ${node.layer}.attn.${node.head}`;

}

// In how many of the repeated searches a node or an edge was found; null where there were none.
function searchesWith(circuit, share) {
  if (share === null || share === undefined) return null;
  return `${Math.round(share * circuit.runs)} of ${circuit.runs}`;
}

// A class for the colour of a node that is named by tokens or by one of the first two answers.
function tintOf(data, node) {
  if (node.active_at.length) return "at-token";
  if (!node.active_before.length) return "";
  const answer = data.outputs.findIndex((output) => output.text === node.active_before[0][0]);
  return answer === 0 || answer === 1 ? `answer-${answer}` : "at-token";
}

// What a node is named by, as [term, text]; null for a node that is named by its index.
function namedBy({ activeAt, activeBefore }) {
  const list = (entries) => entries.map(([name, share]) => (
    `${name} ${Math.round(100 * Math.abs(share))}%${share < 0 ? " (negative)" : ""}`)).join(", ");
  if (activeAt?.length) return ["active at", list(activeAt)];
  return activeBefore?.length ? ["active before", list(activeBefore)] : null;
}

// What an item reads or writes, drawn or not, strongest first:
// {name, description, weight, item?, input?}; input is q, k or v of a head.
function strongest(circuit, item, side) {
  const [here, there] = side === "in" ? ["b", "a"] : ["a", "b"];
  const wired = item.wires
    .filter((wire) => (wire.weight !== null || wire.route) && wire[here] === item.id)
    .map((wire) => {
      const other = circuit.items[wire[there]];
      const { weight, input } = wire;
      return { item: other, name: other.name, description: other.description, weight, input };
    });
  return [...wired, ...(side === "in" ? item.undrawn : [])].sort(
(x, y) => Math.abs(y.weight) - Math.abs(x.weight));
}
