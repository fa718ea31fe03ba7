"""The layered graph of the figure: bands, heads, edges and items, as on the page."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.path import Path as Curve

from wirework.view.figures import figure_pen as pen
from wirework.view.layout import BOX_PAD, NODE_HEIGHT

POSITIVE, NEGATIVE, RESIDUAL, PAIR = "#2171b5", "#d95f02", "#a3abb5", "#555555"
"""Colours of the edges; colour-blind readers can tell blue and orange apart."""
AT_TOKEN = "#fff3bf"
"""Fill of a node that is named by the tokens at which it is active."""
BEFORE_ANSWER = ("#e5d9f6", "#cfeecb")
"""Fill of the first and the second answer, and of nodes that are named by them."""
_TOKEN = "#e6e9ed"

Wire = Sequence[float]
"""[from, to, weight]; from and to are item numbers."""


def draw_graph(axes: Axes, data: dict[str, Any]) -> None:
    """Draw the whole graph on axes whose data units are the layout's pixels."""
    points, first_in = data["layout"]["points"], len(data["nodes"])
    first_out = first_in + len(data["inputs"])
    draw_bands(axes, data)
    _draw_heads(axes, data)
    curves = [_curve(points[a], points[b]) for a, b in data["residual_links"]]
    pen.stroke(axes, curves, RESIDUAL, [0.7] * len(curves), linestyles=(0, (3, 3)))
    io_edges = [(first_in + a, b, w) for a, b, w in data["in_edges"]]
    io_edges += [(a, first_out + b, w) for a, b, w in data["out_edges"]]
    n_wires = len(io_edges) + len(data["edges"])
    opacity = opacity_of(n_wires)
    _draw_wires(axes, io_edges, points, [0.75 * opacity] * len(io_edges))
    strength = [opacity * _strength(share) for share in data["edge_shares"]]
    _draw_wires(axes, data["edges"], points, strength)
    _draw_pairs(axes, data)
    _draw_items(axes, data)
    if note := data["layout"].get("note"):
        pen.write(axes, note["x"], note["y"], note["text"], 11, ha="center", color=pen.SOFT)


def opacity_of(n_wires: int) -> float:
    """Return the opacity of edges, lower where there are many."""
    return max(0.4, 0.85 - 0.16 * math.pow(max(0, n_wires / 60 - 1), 0.35))


def draw_bands(axes: Axes, data: dict[str, Any]) -> None:
    """Draw the bands, their labels and those of their rows."""
    for band in data["layout"]["bands"]:
        top, height = band["top"], band["bottom"] - band["top"]
        pen.box(
            axes, 0, top, data["layout"]["width"], height, 5, facecolor=pen.TINT, edgecolor="none"
        )
        if not band["rows"]:
            folded = f"{band['label']} · nothing kept"
            pen.write(axes, 12, top + height / 2, folded, 9.5, color=pen.SOFT)
            continue
        pen.write(axes, 12, top + 15, band["label"], 12, weight="bold")
        for name, y in band["rows"]:
            near = y - top < 30
            if name:
                pen.write(axes, 12, top + 29 if near else y, name, 9.5, color=pen.SOFT)


def _draw_heads(axes: Axes, data: dict[str, Any]) -> None:
    points, widths = data["layout"]["points"], data["layout"]["widths"]
    for head in data["heads"]:
        inside = head["q"] + head["k"] + head["v"]
        left = min(points[i][0] - widths[i] / 2 for i in inside) - BOX_PAD + 1
        right = max(points[i][0] + widths[i] / 2 for i in inside) + BOX_PAD - 1
        y = points[inside[0]][1]
        pen.box(axes, left, y - 22, right - left, 37, 5, facecolor="white", edgecolor="#b9c0c8")
        pen.write(axes, left + 5, y - 15.5, head["name"], 8.5, color=pen.SOFT)


def _draw_wires(
    axes: Axes, wires: Sequence[Wire], points: list[Any], opacity: Sequence[float]
) -> None:
    """Draw edges between items."""
    curves = [_curve(points[int(a)], points[int(b)]) for a, b, _ in wires]
    draw_weighted(axes, curves, [wire[2] for wire in wires], opacity)


def draw_weighted(
    axes: Axes, curves: Sequence[Curve], weights: Sequence[float], opacity: Sequence[float]
) -> None:
    """Draw edges: blue above zero, orange below; large weights are wider and on top."""
    order = sorted(range(len(weights)), key=lambda i: abs(weights[i]))
    most = max((abs(weight) for weight in weights), default=0.0) or 1.0
    colours = [(NEGATIVE if weights[i] < 0 else POSITIVE, opacity[i]) for i in order]
    widths = [0.5 + 3.5 * abs(weights[i]) / most for i in order]
    pen.stroke(axes, [curves[i] for i in order], colours, widths)


def _strength(share: float | None) -> float:
    """Return the opacity of a node or edge, given the share of repeated searches with it."""
    return 1.0 if share is None else 0.2 + 0.8 * share


def _draw_pairs(axes: Axes, data: dict[str, Any]) -> None:
    """Draw the arcs between a query and a key of one channel."""
    points = data["layout"]["points"]
    pairs = [pair for head in data["heads"] for pair in head["pairs"]]
    curves = [_arc(points[a], points[b]) for a, b in pairs]
    pen.stroke(axes, curves, PAIR, [0.8] * len(curves))


def _draw_items(axes: Axes, data: dict[str, Any]) -> None:
    points, widths = data["layout"]["points"], data["layout"]["widths"]
    first_in = len(data["nodes"])
    deciding = {first_in + i for i, entry in enumerate(data["inputs"]) if entry["deciding"]}
    fills = _fills(data)
    points = points[: len(fills)]
    for i, (x, y) in enumerate(points):
        node = data["nodes"][i] if i < len(data["nodes"]) else None
        radius = 9.0 if node and node["kind"] in ("act_in", "resid_delta") else 3.5
        left, top = x - widths[i] / 2, y - NODE_HEIGHT / 2
        edge = ("#4c545d", _strength(node and node["share"]))
        line = pen.points(2.2 if i in deciding else 1.0)
        style = {"facecolor": fills[i], "edgecolor": edge, "linewidth": line}
        pen.box(axes, left, top, widths[i], NODE_HEIGHT, radius, **style)
    shares = [node["share"] for node in data["nodes"]]
    shares += [None] * (len(points) - len(shares))
    for (x, y), label, share in zip(points, _labels(data), shares, strict=True):
        opaque = _strength(share)
        pen.write(axes, x, y + 0.5, label, 10.5, ha="center", family=pen.MONO, alpha=opaque)


def _fills(data: dict[str, Any]) -> list[str]:
    """Return the fill of each node, embedded token and answer."""
    tints = dict(zip((entry["text"] for entry in data["outputs"]), BEFORE_ANSWER, strict=False))
    fills = ["white" for _ in data["nodes"]]
    for i, node in enumerate(data["nodes"]):
        if node["active_at"]:
            fills[i] = AT_TOKEN
        elif node["active_before"]:
            fills[i] = tints.get(node["active_before"][0][0], AT_TOKEN)
    fills += [_TOKEN for _ in data["inputs"]]
    return fills + [tints.get(entry["text"], _TOKEN) for entry in data["outputs"]]


def _labels(data: dict[str, Any]) -> list[str]:
    tokens = [*data["inputs"], *data["outputs"]]
    return [node["label"] for node in data["nodes"]] + [
        data["texts"][entry["text"]]["label"] for entry in tokens
    ]


def _curve(a: Sequence[float], b: Sequence[float]) -> Curve:
    """Return the curve from the top of one item to the bottom of another above it."""

    y1, y2 = a[1] - NODE_HEIGHT / 2, b[1] + NODE_HEIGHT / 2
    bend = max(18.0, abs(y1 - y2) * 0.45)
    points = [(a[0], y1), (a[0], y1 - bend), (b[0], y2 + bend), (b[0], y2)]
    return Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])


def _arc(a: Sequence[float], b: Sequence[float]) -> Curve:
    top = a[1] - NODE_HEIGHT / 2
    points = [(a[0], top), ((a[0] + b[0]) / 2, top - 13), (b[0], b[1] - NODE_HEIGHT / 2)]
    return Curve(points, [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3])
