"""The figure of a head-level circuit: heads, MLPs and path edges, as on the page."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.path import Path as Curve

from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_graph import draw_bands, draw_weighted, opacity_of
from wirework.view.layout import BOX_PAD, NODE_HEIGHT
from wirework.view.page.page_paths import HEAD_BOTTOM, HEAD_TOP, PORTS


def draw_paths(axes: Axes, data: dict[str, Any]) -> None:
    """Draw the whole graph on axes whose data units are the layout's pixels."""
    draw_bands(axes, data)
    curves = [_through(route) for route in data["layout"]["routes"]]
    effects = [effect or 0.0 for *_, effect in data["path_edges"]]
    draw_weighted(axes, curves, effects, [opacity_of(len(curves))] * len(curves))
    read = {(target, way) for _, target, way, _ in data["path_edges"] if way}
    for i, component in enumerate(data["components"]):
        (x, y), width = data["layout"]["points"][i], data["layout"]["widths"][i]
        if component["kind"] == "head":
            ways = {way: (i, way) in read for way in PORTS}
            _draw_head(axes, x, y, width, component["name"], ways)

        else:
            left, top = x - width / 2, y - NODE_HEIGHT / 2
            pen.box(axes, left, top, width, NODE_HEIGHT, 3.5, facecolor="white", edgecolor=_LINE)
            pen.write(axes, x, y + 0.5, component["name"], 10.5, ha="center", family=pen.MONO)


_LINE = "#4c545d"


def _draw_head(
    axes: Axes, x: float, y: float, width: float, name: str, ways: dict[str, bool]
) -> None:
    """Draw a head's box with its name and q, k and v, pale where no edge arrives."""
    left, across = x - width / 2 - BOX_PAD + 1, width + 2 * BOX_PAD - 2
    height = HEAD_TOP + HEAD_BOTTOM
    pen.box(axes, left, y - HEAD_TOP, across, height, 5, facecolor="white", edgecolor=_LINE)
    pen.write(axes, x, y - 11, name, 10.5, ha="center", family=pen.MONO)
    for way, used in ways.items():
        style = {"color": pen.SOFT, "alpha": 1.0 if used else 0.3}
        pen.write(axes, x + PORTS[way], y + 6, way, 9.5, ha="center", family=pen.MONO, **style)


def _through(route: Sequence[Sequence[float]]) -> Curve:
    """Return a smooth line through points, upright at each."""
    points, codes = [tuple(route[0])], [Curve.MOVETO]
    for (x, y), (to_x, to_y) in pairwise(route):
        bend = (y - to_y) * 0.45
        points += [(x, y - bend), (to_x, to_y + bend), (to_x, to_y)]
        codes += [Curve.CURVE4] * 3
    return Curve(points, codes)
