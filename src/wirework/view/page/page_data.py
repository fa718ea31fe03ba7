"""Page data: everything that the page shows, as one JSON value.

The format is `wirework-page`; docs/page.md lists its keys. Drawn items are numbered in one
sequence: nodes, embedded tokens (`inputs`), answers (`outputs`), tokens that are drawn on request
(`further`); `layout.points` has this order. A head-level circuit has `components` as its only
items.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.circuit_format import (
    CircuitFolder,
    Document,
    IoEdge,
    Node,
    read_circuit,
    split_site,
)
from wirework.node_names import head_name, node_name
from wirework.view.page.node_tokens import ActiveAt, active_tokens, answers_before, token_label
from wirework.view.page.page_inputs import inputs_of
from wirework.view.page.page_layout import SUBLAYERS, lay_out
from wirework.view.page.page_paths import components_of, lay_out_paths
from wirework.view.visible_text import label, shown

FORMAT = "wirework-page"
VERSION = 2
"""2: `layout.points` has the further tokens after the answers, and nothing for `folded`."""

PageData = dict[str, Any]


def load_page_data(circuit_dir: str | Path) -> PageData:
    """Read a circuit folder and return its page data, ready for `json.dumps`.

    Args:
        circuit_dir: a folder that `Circuit.save` wrote.

    Returns:
        Page data, version 2. The same folder gives the same value.

    Raises:
        InputError: the folder is missing, damaged, inconsistent or of a newer version.
    """
    return page_data(read_circuit(Path(circuit_dir)))


def page_data(circuit: CircuitFolder) -> PageData:
    """Convert a checked circuit to page data (see `load_page_data`)."""
    document = circuit.document
    texts = _Texts()
    for answer in document.task.answers:
        texts.at(answer)
    nodes = _nodes(circuit, texts)
    inputs = inputs_of(document)
    places = {number: i for i, (_, number) in enumerate(inputs.tokens)}
    components, paths = components_of(document)
    outputs, out_edges = ([], []) if components else _outputs(document)

    def tokens_json(tokens: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
        return [
            {"text": texts.at(text), "token_id": number, "deciding": number in inputs.deciding}
            for text, number in tokens
        ]

    drawn: PageData = {
        "nodes": nodes,
        "inputs": tokens_json(inputs.tokens),
        "further": tokens_json(inputs.further),
        "outputs": [{"text": texts.at(text), "token_id": number} for text, number in outputs],
        "components": components,
        "path_edges": paths,
        "edges": [[edge.source, edge.target, exact(edge.weight)] for edge in document.edges],
        "edge_shares": [edge.share for edge in document.edges],
        "in_edges": [[places[e.token_id], e.target, exact(e.weight)] for e in inputs.edges],
        "out_edges": out_edges,
        "residual_links": residual_links(nodes),
        "heads": heads(nodes),
        "prompts": _prompts(document, texts),
        "folded": [
            {"node": node, "entries": [_entry(edge, texts) for edge in entries]}
            for node, entries in inputs.folded.items()
        ],
        "texts": texts.entries,
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "level": document.level,
        "model": document.model.model_dump(),
        "task": document.task.model_dump(mode="json", include={"name", "answers", "n_pairs"}),
        "target_loss": document.target_loss,
        "loss_reduction": document.loss_reduction or "mean",
        "n_edges": document.n_edges_between_nodes,
        "share_runs": document.share_runs,
        "losses": document.losses.model_dump(),
        "paper_size": document.paper_size and asdict(document.paper_size),
        "calibration": document.calibration.model_dump(),
        "provenance": document.provenance.model_dump(),
        "patching": document.patching and document.patching.model_dump(),
        **drawn,
        "activations": _activations(document, circuit.activations),
        "layout": _lay_out(document, drawn),
    }


def _lay_out(document: Document, drawn: PageData) -> PageData:
    n_layer = document.model.n_layer
    if drawn["components"]:
        return lay_out_paths(n_layer, drawn["components"], drawn["path_edges"])
    return lay_out(n_layer, drawn)


def exact(value: float) -> float:
    """Return the shortest decimal with the same float32; values that are no float32 unchanged."""
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return float(str(single)) if float(single) == value else value


def residual_links(nodes: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Return [write, read] for each write and each later read of the same residual channel."""
    writes = [node for node in nodes if node["kind"] == "resid_delta"]
    reads = [node for node in nodes if node["kind"] == "act_in"]
    return [
        [write["id"], read["id"]]
        for write in writes
        for read in reads
        if read["index"] == write["index"] and _sublayer(read) > _sublayer(write)
    ]


def heads(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the heads that have nodes: their q, k and v, and their pairs of q and k.

    An attention score is a sum over channels of q times k, so a pair is a q and a k of one channel.
    """
    inside = [node for node in nodes if node["head"] is not None]
    groups: dict[tuple[int, int], dict[str, list[int]]] = {}
    for node in inside:
        head = groups.setdefault((node["layer"], node["head"]), {"q": [], "k": [], "v": []})
        head[node["kind"]].append(node["id"])
    return [
        {
            "name": head_name(layer, head),
            "layer": layer,
            "head": head,
            **parts,
            "pairs": _pairs(nodes, parts["q"], parts["k"]),
        }
        for (layer, head), parts in sorted(groups.items())
    ]


def _pairs(nodes: Sequence[dict[str, Any]], q: list[int], k: list[int]) -> list[list[int]]:
    return [[a, b] for a in q for b in k if nodes[a]["index"] == nodes[b]["index"]]


def _sublayer(node: dict[str, Any]) -> int:
    return 2 * int(node["layer"]) + SUBLAYERS.index(node["sublayer"])


def _nodes(circuit: CircuitFolder, texts: "_Texts") -> list[dict[str, Any]]:
    """Return the nodes as JSON, named by tokens or an answer where these are clear."""
    prompts = circuit.document.examples.prompts
    right = [answers[0] for answers in circuit.document.examples.answers]
    at = active_tokens(prompts, circuit.activations)
    before = answers_before(prompts, right, circuit.activations)
    return [
        {
            **_node(circuit.document, i),
            "label": _label(circuit.document.nodes[i], at[i], before[i]),
            "active_at": [[texts.at(text), _share(share)] for text, share in at[i]],
            "active_before": [
                [texts.at(text), _share(share)] for text, share in before[i] if not at[i]
            ],
        }
        for i in range(len(circuit.document.nodes))
    ]


def _share(share: float) -> float:
    return float(f"{share:.4g}")


def _node(document: Document, position: int) -> dict[str, Any]:
    entry = document.nodes[position]
    layer, sublayer_and_kind = split_site(entry.site)
    sublayer, _, kind = sublayer_and_kind.partition(".")
    in_head = kind in ("q", "k", "v")
    d_head = document.model.d_head
    return {
        "id": position,
        "name": node_name(entry.site, entry.index),
        "site": entry.site,
        "index": entry.index,
        "layer": layer,
        "sublayer": sublayer,
        "kind": kind,
        "head": entry.index // d_head if in_head else None,
        "channel": entry.index % d_head if in_head else None,
        "mean": exact(entry.mean),
        "score": None if entry.score is None else exact(entry.score),
        "share": entry.share,
    }


def _label(node: Node, active_at: ActiveAt, active_before: ActiveAt) -> str:
    """Return the text of a node's box: its tokens or answer, else the end of its name.

    Args:
        node: the node.
        active_at: what `active_tokens` returned for it.
        active_before: what `answers_before` returned for it.
    """
    kind = node.site.rpartition(".")[2]
    prefix = kind if kind in ("q", "k", "v") else ""
    if active_at:
        return f"{prefix} {token_label(active_at)}".lstrip()
    if active_before:
        return f"{prefix} → {token_label(active_before)}".lstrip()
    return f"{prefix}.{node.index}".lstrip(".")


class _Texts:
    """Each token's text once: unchanged, for running text (`shown`), and for a box (`label`)."""

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []
        self._places: dict[str, int] = {}

    def at(self, text: str) -> int:
        """Return the position of a text among the entries, adding it if it is new."""
        if text not in self._places:
            self._places[text] = len(self.entries)
            self.entries.append({"text": text, "shown": shown(text), "label": label(text)})
        return self._places[text]


def _entry(edge: IoEdge, texts: _Texts) -> list[float]:
    """Return [text, token id, weight] for an embedding entry."""
    return [texts.at(edge.token or ""), edge.token_id, exact(edge.weight)]


def _outputs(
    document: Document,
) -> tuple[list[tuple[str, int | None]], list[list[float]]]:
    """Return the answers, the task's own first, and the edges [node, output, weight]."""
    edges = [edge for edge in document.io_edges if edge.answer is not None]
    numbers: dict[str, int | None] = dict.fromkeys(document.task.answers)
    numbers |= {edge.answer or "": edge.token_id for edge in edges}
    places = {text: i for i, text in enumerate(numbers)}
    out_edges = [[e.source or 0, places[e.answer or ""], exact(e.weight)] for e in edges]
    return list(numbers.items()), out_edges


def _prompts(document: Document, texts: _Texts) -> list[dict[str, Any]]:
    examples = document.examples
    return [
        {
            "tokens": [texts.at(token) for token in tokens],
            "answers": [texts.at(answer) for answer in answers],
            "logit_diff": exact(diff),
        }
        for tokens, answers, diff in zip(
            examples.prompts, examples.answers, examples.logit_diff, strict=True
        )
    ]


def _activations(document: Document, values: NDArray[Any]) -> list[list[list[float]]]:
    """Return activations by node, prompt and token, to 4 significant digits."""

    lengths = [len(prompt) for prompt in document.examples.prompts]
    return [
        [_rounded(values[p, :length, node].tolist()) for p, length in enumerate(lengths)]
        for node in range(len(document.nodes))
    ]


def _rounded(values: Iterable[float]) -> list[float]:
    """Round to 4 significant digits; whole numbers become ints, which are shorter in JSON."""
    rounded = (float(f"{value:.4g}") for value in values)
    return [int(value) if value.is_integer() else value for value in rounded]
