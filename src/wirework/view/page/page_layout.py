"""From the parts of page data to a layout: which item is in which row, and which are linked.

Items are numbered nodes first, then the embedded tokens (`inputs`), then the answers (`outputs`),
then the tokens that are drawn on request (`further`).
"""

from collections.abc import Sequence
from typing import Any

from wirework.errors import number_of
from wirework.view.layout import MARGIN, Band, Layout, Row, place, text_width

SUBLAYERS = ("attn", "mlp")
"""The parts of a layer in execution order."""

_SINGLE = ("act_in", "post_act", "resid_delta")
_NOTE_HEIGHT = 16.0
"""Of the line in the embedding's band that counts what is not drawn."""
_FURTHER_LINE, _FURTHER_GAP, _FURTHER_PAD = 25.0, 10.0, 18.0


def lay_out(n_layer: int, drawn: dict[str, Any]) -> dict[str, Any]:
    """Return the layout of page data's parts as JSON: points and widths of the items, bands.

    The tokens in `further` are below all else, so that drawing them moves nothing.

    Args:
        n_layer: layers of the model; those without nodes are shown as thin bands.
        drawn: `nodes`, `inputs`, `outputs`, `further`, `folded`, all edges and links, `heads` and
            `texts` of page data.
    """
    nodes, inputs, outputs = drawn["nodes"], drawn["inputs"], drawn["outputs"]
    labels = [node["label"] for node in nodes]
    labels += [drawn["texts"][entry["text"]]["label"] for entry in [*inputs, *outputs]]
    widths = [text_width(label) for label in labels]
    first_in, first_out = len(nodes), len(nodes) + len(inputs)
    tokens = Row("tokens", [[first_in + i] for i in range(len(inputs))])
    bands = [Band("embedding", [tokens])]
    bands += [_band(layer, sublayer, drawn) for layer in range(n_layer) for sublayer in SUBLAYERS]
    bands.append(Band("answers", [Row("", [[first_out + i] for i in range(len(outputs))])]))
    layout = as_json(place(bands, widths, _links(drawn)), widths)
    return _with_further(layout, drawn) if drawn["folded"] else layout


def _with_further(layout: dict[str, Any], drawn: dict[str, Any]) -> dict[str, Any]:
    """Return the layout with a line that counts what is not drawn, and below it `further`."""
    embedding = layout["bands"][0]
    bottom = round(embedding["bottom"] + _NOTE_HEIGHT, 1)
    labels = [drawn["texts"][entry["text"]]["label"] for entry in drawn["further"]]
    widths = [text_width(label) for label in labels]
    points, last = _lines(widths, layout["width"], bottom + _FURTHER_PAD / 2)
    layout["bands"][0] = {**embedding, "bottom": bottom}
    return {
        **layout,
        "height": bottom,
        "points": layout["points"] + points,
        "widths": layout["widths"] + [round(width, 1) for width in widths],
        "note": {"text": _note(drawn), "x": (MARGIN + layout["width"]) / 2, "y": bottom - 14.0},
        "height_with_further": round(last + _FURTHER_PAD, 1),
    }


def _lines(widths: Sequence[float], width: float, top: float) -> tuple[list[list[float]], float]:
    """Return the middles of items in lines of a width, and the y of the last line."""
    points: list[list[float]] = []
    x, y = MARGIN, top
    for item in widths:
        if x > MARGIN and x + item > width - _FURTHER_GAP:
            x, y = MARGIN, y + _FURTHER_LINE
        points.append([round(x + item / 2, 1), round(y, 1)])
        x += item + _FURTHER_GAP
    return points, y


def _note(drawn: dict[str, Any]) -> str:
    """Return in words what of the embedding is not drawn."""
    inputs = {entry["token_id"] for entry in drawn["inputs"]}
    entries = [entry for fold in drawn["folded"] for entry in fold["entries"]]
    n_tokens = len({token_id for _, token_id, _ in entries} - inputs)
    if n_tokens:
        return f"and {number_of(n_tokens, 'more token')}"
    return f"and {number_of(len(entries), 'more weight')} of these tokens"


def _band(layer: int, sublayer: str, drawn: dict[str, Any]) -> Band:
    """Gather a sublayer's rows: reads, then heads or neurons, then writes."""
    inside = [n for n in drawn["nodes"] if n["layer"] == layer and n["sublayer"] == sublayer]
    of_kind = {kind: [[n["id"]] for n in inside if n["kind"] == kind] for kind in _SINGLE}
    if sublayer == "attn":
        grouped = [h["q"] + h["k"] + h["v"] for h in drawn["heads"] if h["layer"] == layer]
        middle = Row("heads", grouped, boxed=True)
    else:
        middle = Row("neurons", of_kind["post_act"])
    rows = [Row("reads", of_kind["act_in"]), middle, Row("writes", of_kind["resid_delta"])]
    return Band(f"{layer}.{sublayer}", rows)


def _links(drawn: dict[str, Any]) -> list[tuple[int, int, float]]:
    """Return (item, item, weight) of all that is joined; large weights have large values."""
    first_in = len(drawn["nodes"])
    first_out = first_in + len(drawn["inputs"])
    edges = [(a, b, w) for a, b, w in drawn["edges"]]
    io_edges = [(first_in + a, b, w) for a, b, w in drawn["in_edges"]]
    io_edges += [(a, first_out + b, w) for a, b, w in drawn["out_edges"]]
    links = [(a, b, 0.5) for a, b in drawn["residual_links"]]
    for family in (edges, io_edges):
        largest = max((abs(w) for _, _, w in family), default=0.0) or 1.0
        links += [(a, b, 0.1 + abs(w) / largest) for a, b, w in family]
    return links


def as_json(layout: Layout, widths: Sequence[float]) -> dict[str, Any]:
    """Return a layout and the widths of its items as page data."""
    return {
        "width": layout.width,
        "height": layout.height,
        "points": [list(point) for point in layout.points],
        "widths": [round(width, 1) for width in widths],
        "bands": [
            {
                "label": band.label,
                "top": band.top,
                "bottom": band.bottom,
                "rows": [list(row) for row in band.rows],
            }
            for band in layout.bands
        ],
    }
