"""From the parts of page data to a layout: which item stands in which row, and what pulls it.

Items are numbered nodes first, then the embedded tokens (`inputs`), then the answers (`outputs`),
then what stands for further tokens (`folded`).
"""

from collections.abc import Sequence
from typing import Any

from wirework.view.layout import NODE_WIDTH, Band, Layout, Row, place, text_width

SUBLAYERS = ("attn", "mlp")
"""The parts of a layer in execution order."""

_SINGLE = ("act_in", "post_act", "resid_delta")


def lay_out(n_layer: int, drawn: dict[str, Any]) -> dict[str, Any]:
    """Return the layout of page data's parts as JSON: points and widths of the items, bands.

    Args:
        n_layer: layers of the model, so that empty ones show too.
        drawn: `nodes`, `inputs`, `outputs`, `folded`, all edges and links, `heads` and `texts` of
            page data.
    """
    nodes, inputs, outputs = drawn["nodes"], drawn["inputs"], drawn["outputs"]
    labels = [drawn["texts"][entry["text"]]["label"] for entry in [*inputs, *outputs]]
    labels += [f"+{len(entry['entries'])}" for entry in drawn["folded"]]
    widths = [NODE_WIDTH] * len(nodes) + [text_width(label) for label in labels]
    first_in, first_out = len(nodes), len(nodes) + len(inputs)
    further = [[first_out + len(outputs) + i] for i in range(len(drawn["folded"]))]
    tokens = Row("tokens", [[first_in + i] for i in range(len(inputs))])
    bands = [Band("embedding", [Row("tokens", further), tokens])]
    bands += [_band(layer, sublayer, drawn) for layer in range(n_layer) for sublayer in SUBLAYERS]
    bands.append(Band("answers", [Row("", [[first_out + i] for i in range(len(outputs))])]))
    layout = place(bands, widths, _pulls(drawn))
    return as_json(layout, widths)


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


def _pulls(drawn: dict[str, Any]) -> list[tuple[int, int, float]]:
    """Return all that should stand close together: strong weights pull most."""
    first_in = len(drawn["nodes"])
    first_out = first_in + len(drawn["inputs"])
    edges = [(a, b, w) for a, b, w in drawn["edges"]]
    io_edges = [(first_in + a, b, w) for a, b, w in drawn["in_edges"]]
    io_edges += [(a, first_out + b, w) for a, b, w in drawn["out_edges"]]
    first_more = first_out + len(drawn["outputs"])
    pulls = [(a, b, 0.5) for a, b in drawn["residual_links"]]
    pulls += [(first_more + i, entry["node"], 1.0) for i, entry in enumerate(drawn["folded"])]
    for family in (edges, io_edges):
        largest = max((abs(w) for _, _, w in family), default=0.0) or 1.0
        pulls += [(a, b, 0.1 + abs(w) / largest) for a, b, w in family]
    return pulls


def as_json(layout: Layout, widths: Sequence[float]) -> dict[str, Any]:
    """Return a layout, and the widths of its items, as page data has it."""
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
