// Head-level circuits: components joined by path edges, and what the search measured of them.

const READS = { q: "queries", k: "keys", v: "values" };
const METRICS = {
  kl: "KL in nats", logit_difference: "minus the logit difference", task_loss: "task loss in nats",
};
const REMOVED = {
  corrupted: "its source's value on the pair's other prompt",
  new_names: "its source's value on the same prompt with three other names", zero: "nothing", mean: "its source's mean",
};

function readComponents(data) {
  const read = data.components.map(() => new Set());
  for (const [, target, input] of data.path_edges) read[target].add(input);
  return data.components.map((component, i) => ({
    type: "component", component, name: component.name, reads: read[i], ports: data.layout.ports,
    label: component.name,

    description: describeComponent(component),
  }));
}

function describeComponent({ kind, layer, head }) {
  return {
    embed: "embedding of tokens and positions", head: `attention head ${head} of layer ${layer}`,
    mlp: `MLP of layer ${layer}`, final_resid: "final residual, which the unembedding reads",
  }[kind];
}

function readPaths(data, first) {
  return data.path_edges.map(([a, b, input, effect], i) => (
    { type: "path", a: first + a, b: first + b, input, weight: effect, route: data.layout.routes[i] }));
}

// Which input of a head an entry of `strongest` is about.
function read({ input }) {
  return input ? ` (${input})` : "";
}

// A smooth line through the points of a route, upright at each.
function through([[x, y], ...rest]) {
  let path = `M${x} ${y}`;
  for (const [toX, toY] of rest) {
    const bend = (y - toY) * 0.45;
    path += `C${x} ${y - bend} ${toX} ${toY + bend} ${toX} ${toY}`;
    [x, y] = [toX, toY];
  }
  return path;
}

// A head is a box with its name and, where the edges arrive, q, k and v: pale if nothing does.
function drawHead(item) {
  const text = (name, x, y, extra) => {
    const drawn = draw("text", { class: extra, x, y });
    drawn.textContent = name;
    return drawn;
  };
  return [
    draw("rect", { x: item.x - item.width / 2 - 6, y: item.y - 22, width: item.width + 12, height: 37, rx: 5 }),
    text(item.label, item.x, item.y - 11, ""),
    ...Object.entries(item.ports).map(([input, aside]) => (
      text(input, item.x + aside, item.y + 6, item.reads.has(input) ? "port" : "port unread"))),
  ];
}

function aboutPath(data, wire) {
  const grown = data.provenance.finder === "acdc" ? "when tried without it" : "without it, by gradient";
  const lines = [make("span", {}, "effect ", signed(wire.weight)),
    `growth of ${METRICS[data.patching.metric]} ${grown}`];
  return wire.input ? [...lines, `read by the ${READS[wire.input]} of the head`] : lines;
}

function pathGroups(data) {
  const { losses, patching } = data;
  return [
    ["Circuit", [
      ["path edges", grouped(data.path_edges.length), "key"], ["of", grouped(patching.n_all)],
      ["tau", brief(patching.tau)]]],
    ["Task loss, nats", [
      ["model", brief(losses.model)], ["circuit", brief(losses.circuit), "key"],
      ["without circuit", brief(losses.without_circuit)], ["chance", brief(losses.chance)]]],
  ];
}

// What the path edges come to, beside the model's own.
function drawPatching(data) {
  const { patching, task } = data;
  const row = (...cells) => make("tr", {}, ...cells.map((text, i) => (
    make(i ? "td" : "th", { textContent: text }))));
  const facts = [
    ["found by", data.provenance.finder], ["tau", exact(patching.tau)],
    ["path edges", `${grouped(data.path_edges.length)} of ${grouped(patching.n_all)}`],
    ["metric", `${METRICS[patching.metric]}: ${brief(patching.value)}`],
    ["a removed edge brings", REMOVED[ablationOf(patching)]],
    ["judged on", `${counted(task.n_pairs, "pair")} of prompts${patching.both ? ", each way round" : ""}`],
  ];
  return [
    make("h3", { textContent: "Patched run: all other path edges removed" }),
    make("table", { className: "measures" }, row("", "circuit", "model"),
      row("KL from the model, nats", brief(patching.kl), "0"),
      row("logit difference", brief(patching.logit_difference), brief(patching.model_logit_difference)),
      row("accuracy", percent(patching.accuracy), percent(patching.model_accuracy))),
    make("dl", { className: "values" }, ...facts.flatMap(([name, value]) => (
      [make("dt", { textContent: name }), make("dd", { textContent: value })]))),
  ];
}

// A corrupted prompt is the pair's other one, also in files that do not name the corruption.
function ablationOf({ ablation, corruption }) {
  return ablation === "corrupted" && corruption === "new_names" ? corruption : ablation;
}

function percent(share) {
  return `${brief(100 * share)}%`;
}
