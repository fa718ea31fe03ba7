// The header's numbers, and beside the graph the selected node and the prompts coloured by it.

function drawHeader(data, circuit) {
  const [shown, others] = [data.task.answers.slice(0, 2), data.task.answers.length - 2];
  const answers = shown.map((text) => make("code", { textContent: visible(data, text) }));
  byId("title").append(
    make("code", { textContent: data.task.name }), " ",
    make("span", { className: "soft" }, "answers ",
      ...answers.flatMap((answer, i) => (i ? [" or ", answer] : [answer])),
      others > 0 ? ` and ${grouped(others)} more, two to a pair` : ""));
  const { model } = data;
  const groups = [
    ["Model", [
      ["run", model.path ?? "–"], ["layers", model.n_layer], ["width", model.d_model],
      ["nonzero", `${brief((100 * model.n_nonzero) / model.n_weights)}%`],
      ...(model.trained_on_tasks ? [["trained on tasks", "yes"]] : [])]],
    ...(data.patching ? pathGroups(data) : nodeGroups(data, circuit)),
  ];
  const rows = [make("tr"), make("tr"), make("tr")];
  for (const [title, cells] of groups) {
    rows[0].append(make("th", { textContent: title, colSpan: cells.length, className: "group first" }));
    cells.forEach(([label, value, extra], i) => {
      const first = i ? "" : "first ";
      rows[1].append(make("th", { scope: "col", textContent: label, className: first + (extra ?? "") }));
      rows[2].append(make("td", { textContent: value, className: first + (extra ?? "") }));
    });
  }
  byId("facts").append(...rows);
}

function nodeGroups(data, circuit) {
  const { losses, paper_size: bisected } = data;
  return [
    ["Circuit", [
      ["nodes", grouped(data.nodes.length)],
      ["edges", data.n_edges === null ? "not recorded" : grouped(data.n_edges), "key"],
      ["kept edges", grouped(data.edges.length)], ["io edges", grouped(circuit.ioEdges)]]],
    [`Task loss, nats, ${data.loss_reduction} over a pair (target ${brief(data.target_loss)})`, [
      ["model", brief(losses.model)], ["circuit", brief(losses.circuit), "key"],
      ["calibrated", brief(losses.circuit_calibrated)],
      ["without circuit", brief(losses.without_circuit)], ["chance", brief(losses.chance)]]],
    ...(bisected === null ? [] : [["Bisection alone (the paper's size)", [
      ["nodes", grouped(bisected.n_nodes)], ["edges", grouped(bisected.n_edges)],
      ["loss", brief(bisected.task_loss)], ["calibrated", brief(bisected.task_loss_calibrated)],
      ["held out", brief(bisected.held_out_loss)],
      ["calibrated", brief(bisected.held_out_loss_calibrated)]]]]),
  ];
}

// The label of a task's answer; the answers are always among the texts.
function visible(data, text) {
  return data.texts.find((entry) => entry.text === text).label;
}

function signed(weight) {
  return make("span", { textContent: exact(weight), className: weight < 0 ? "minus" : "plus" });
}

function drawDetails(circuit, item, pick) {
  if (item === null) {
    byId("details").replaceChildren(
      make("h2", { textContent: "Nothing selected" }),
      make("p", { className: "soft of-heads", textContent:
        "Click a head, an MLP or the embedding to see its path edges and their effects." }),
      make("p", { className: "soft of-nodes", textContent:
        "Click a node to see its weights here and every prompt coloured by its activation. " +
        "Click a token under the graph to colour the nodes by their activation there. " +
        "A yellow node is named by the one or two tokens that carry at least 80% of its " +
        "absolute activation in the prompts below and at which it is active throughout. A node with an arrow is named by an answer: " +
        "at the last token, at least 80% of its absolute activation is in prompts with that " +
        "right answer. Hover shows a node's own name." }));


    return;
  }
  const values = make("dl", { className: "values" });
  if (item.type === "node") {
    const numbers = [["mean", exact(item.node.mean)], ["score", exact(item.node.score)]];
    if (namedBy(item)) numbers.unshift(namedBy(item));
    if (circuit.runs) numbers.push(["found again", searchesWith(circuit, item.node.share) ?? "–"]);
    for (const [name, value] of numbers) {
      values.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
    }
  }
  const residual = item.wires.filter((wire) => wire.type === "residual");
  if (residual.length) {
    values.append(make("dt", { textContent: "same channel" }), make("dd", {},
      ...residual.flatMap((wire, i) => [i ? ", " : "",
        nameButton(circuit.items[wire.a === item.id ? wire.b : wire.a], pick)])));
  }
  byId("details").replaceChildren(
    make("h2", {}, make("code", { textContent: item.name })),
    make("div", { className: "soft", textContent: item.description }), values,
    make("div", { className: "wires" },
      drawWires(circuit, item, "in", pick), drawWires(circuit, item, "out", pick)));
}

function drawWires(circuit, item, side, pick) {
  const entries = strongest(circuit, item, side);
  const table = make("table", {}, ...entries.map((entry) => make("tr", {},
    make("td", {}, entry.item ? nameButton(entry.item, pick)
      : make("code", { textContent: entry.name, title: entry.description }), read(entry)),
    make("td", {}, signed(entry.weight)))));
  return make("div", {},
    make("h3", { textContent: `${side === "in" ? "Incoming" : "Outgoing"} (${entries.length})` }),
    make("div", { className: "scroll" }, table));
}

function nameButton(item, pick) {
  const button = make("button", { textContent: item.name, title: item.description, className: "name" });
  button.addEventListener("click", () => pick(item.id));
  return button;
}

class Prompts {
  constructor(data, circuit, on) {
    Object.assign(this, { data, circuit, on });
    this.tokens = data.prompts.map((prompt, p) => this.drawTokens(prompt, p));
    this.rows = data.prompts.map((prompt, p) => this.drawPrompt(prompt, p));
    const groups = new Map();
    data.prompts.forEach((prompt, p) => {
      const right = prompt.answers[0];
      groups.set(right, [...(groups.get(right) ?? []), this.rows[p]]);
    });
    this.scale = make("div");
    byId("prompts").append(this.scale, ...[...groups].flatMap(([right, rows]) => [
      make("h3", {}, "Right answer ", make("code", { textContent: circuit.label(right) }),
        make("span", { className: "soft", textContent: ` · ${counted(rows.length, "prompt")} · right − wrong logit` })),
      ...rows]));
    hoverTokens(byId("prompts"), on);
    hoverTokens(byId("strip"), on);
  }

  drawTokens(prompt, p) {
    return prompt.tokens.map((text, t) => {
      const token = make("span", { className: "token", textContent: breakable(this.circuit.shown(text)) });
      token.dataset.prompt = p;
      token.dataset.token = t;
      return token;
    });
  }

  drawPrompt(prompt, p) {
    const choose = make("button", { textContent: p + 1, title: "Show this prompt under the graph" });
    choose.disabled = this.data.level === "head";
    choose.addEventListener("click", () => this.on.choose(p));
    const wrong = prompt.logit_diff <= 0;
    return make("div", { className: "prompt" }, choose,
      make("div", { className: "tokens" }, ...this.tokens[p]),
      make("span", {
        className: wrong ? "diff wrong" : "diff",
        textContent: `${brief(prompt.logit_diff)}${wrong ? " ✗" : ""}`,
      }));
  }

  // Colour every token by one node's activation; null: no colours.
  colourBy(node) {
    const values = node === null ? null : this.data.activations[node];
    const most = values === null ? 0 : largest(values.flat());
    this.paint = (token) => {
      const value = values?.[token.dataset.prompt][token.dataset.token];
      token.style.backgroundColor = most && value ? colour(value / most) : "";
    };
    this.tokens.flat().forEach(this.paint);
    this.strip?.forEach(this.paint);
    this.scale.replaceChildren(...(node === null ? [] : drawScale(this.data.nodes[node].name, most)));
  }

  // Show one prompt under the graph; `position` is the token whose activations fill the nodes.
  choose(p, position) {
    const prompt = this.data.prompts[p];
    this.rows.forEach((row, i) => row.classList.toggle("chosen", i === p));
    this.strip = this.drawTokens(prompt, p);
    this.strip.forEach((token, t) => {
      token.classList.toggle("here", t === position);
      token.tabIndex = 0;
      token.setAttribute("role", "button");
    });
    if (this.paint) this.strip.forEach(this.paint);
    const bar = make("div", { className: "bar" }, ...this.arrows(p),
      make("b", { textContent: `Prompt ${p + 1} of ${this.data.prompts.length}` }),
      make("span", { className: "soft" }, "right answer ",
        make("code", { textContent: this.circuit.label(prompt.answers[0]) })),
      make("span", { className: "soft", textContent: position === null
        ? "Click a token to colour the nodes by their activation there."
        : "Nodes are coloured by their activation at the marked token, each on its own scale." }));
    byId("strip").replaceChildren(bar, make("div", { className: "tokens" }, ...this.strip));
  }

  arrows(p) {
    const count = this.data.prompts.length;
    return [[-1, "‹", "Previous prompt"], [1, "›", "Next prompt"]].map(([step, text, label]) => {
      const button = make("button", { textContent: text, title: label, ariaLabel: label });
      button.addEventListener("click", () => this.on.choose((p + step + count) % count));
      return button;
    });
  }
}

function breakable(text) {
  return text.replaceAll("⏎", "⏎\n");
}

function drawScale(name, most) {
  const ramp = make("div", { className: "ramp" });
  const stops = [-1, -0.5, 0, 0.5, 1].map((share) => colour(share));
  ramp.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  return [
    make("h3", {}, "Activation of ", make("code", { textContent: name }), " in the circuit"),
    make("div", { className: "scale" }, ramp,
      make("span", { textContent: brief(-most) }), make("span", { textContent: "0" }),
      make("span", { textContent: `+${brief(most)}` })),
  ];
}

function hoverTokens(box, on) {
  box.addEventListener("pointermove", (event) => {
    const token = event.target.closest(".token");
    if (token) on.hover(event, Number(token.dataset.prompt), Number(token.dataset.token));
    else tooltip.hide();
  });
  box.addEventListener("pointerleave", () => tooltip.hide());
}
