"""Layout of head-level circuits: components, and the route of each path edge between them.

Components are stacked in the order of the forward pass: the embedding at the bottom, then the heads
and the MLP of each layer, `final_resid` on top. An edge that passes a sublayer has a lane of its
own in it, so that it is drawn beside the components there and not behind them.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from wirework.circuit_format import Component, Document, split_component
from wirework.node_names import head_name
from wirework.view.layout import NODE_HEIGHT, Band, Layout, Row, place, text_width
from wirework.view.page.page_layout import SUBLAYERS, as_json

PORTS = {"q": -22.0, "k": 0.0, "v": 22.0}
"""Pixels from a head's middle to where edges reach its queries, keys and values."""

HEAD_TOP, HEAD_BOTTOM = 22.0, 15.0
"""Pixels from a head's middle to the top and the bottom of its box."""

_HEAD_WIDTH = 66.0
_LANE = 2.0
_PAD, _MORE_PAD = 32.0, 60.0

PathEntry = Sequence[Any]
"""[source, target, "q", "k", "v" or None, effect or None]; source and target are positions in the
components, effects have six significant digits."""


def components_of(document: Document) -> tuple[list[dict[str, Any]], list[PathEntry]]:
    """Return the components of a head-level circuit as JSON, and the path edges between them.

    The embedding and the final residual are always included. A node-level circuit has neither
    components nor path edges.
    """
    if document.patching is None:
        return [], []
    edges = [(split_component(e.source), split_component(e.target)) for e in document.path_edges]
    ends = {end._replace(input=None) for edge in edges for end in edge}
    outer = {Component("embed"), Component("final_resid")}
    ordered = sorted(ends | outer, key=lambda end: (end.depth, end.head))
    places = {end: i for i, end in enumerate(ordered)}
    path_edges: list[PathEntry] = [
        [places[source], places[target._replace(input=None)], target.input, _rounded(edge.effect)]
        for (source, target), edge in zip(edges, document.path_edges, strict=True)
    ]
    return [_as_json(end) for end in ordered], path_edges


def _rounded(effect: float | None) -> float | None:
    return None if effect is None else float(f"{effect:.6g}")


def _as_json(end: Component) -> dict[str, Any]:
    names = {"head": head_name(end.layer, end.head), "mlp": f"{end.layer}.mlp"}
    return {
        "name": names.get(end.kind, end.kind),
        "kind": end.kind,
        "layer": end.layer if end.layer >= 0 else None,
        "head": end.head if end.head >= 0 else None,
    }


def lay_out_paths(
    n_layer: int, components: Sequence[dict[str, Any]], path_edges: Sequence[PathEntry]
) -> dict[str, Any]:
    """Return the layout as JSON, with `routes`, the points that each path edge runs through.

    Args:
        n_layer: layers of the model; those without components are shown as thin bands.
        components: from `components_of`.
        path_edges: from `components_of`.
    """
    bands = [_band_of(component, n_layer) for component in components]
    lanes = _lanes(bands, path_edges)
    widths = [_width(component) for component in components]
    n_items = len(components) + sum(len(lane) for lane in lanes)
    placed = place(
        _stack(n_layer, bands, path_edges, lanes),
        widths + [_LANE] * (n_items - len(components)),
        _layout_links(path_edges, lanes),
        _PAD + min(_MORE_PAD, len(path_edges) / 4),
    )
    routes = _routes(components, bands, path_edges, lanes, placed)
    points = placed.points[: len(components)]
    visible = Layout(placed.width, placed.height, points, placed.bands)
    return {**as_json(visible, widths), "routes": routes, "ports": PORTS}


def _band_of(component: dict[str, Any], n_layer: int) -> int:
    """Return the number of a component's band, 0 at the bottom."""
    outer = {"embed": 0, "final_resid": 2 * n_layer + 1}
    kind, layer = component["kind"], component["layer"]
    return outer[kind] if kind in outer else 1 + 2 * layer + (kind == "mlp")


def _width(component: dict[str, Any]) -> float:
    return _HEAD_WIDTH if component["kind"] == "head" else text_width(component["name"])


def _lanes(bands: Sequence[int], path_edges: Sequence[PathEntry]) -> list[dict[int, int]]:
    """Return, for each path edge, the number of its lane's item in each band that it passes."""
    filled, items = sorted(set(bands)), len(bands)
    lanes: list[dict[int, int]] = []
    for source, target, _, _ in path_edges:
        passed = [band for band in filled if bands[source] < band < bands[target]]
        lanes.append({band: items + i for i, band in enumerate(passed)})
        items += len(passed)
    return lanes


def _stack(
    n_layer: int,
    bands: Sequence[int],
    path_edges: Sequence[PathEntry],
    lanes: Sequence[dict[int, int]],
) -> list[Band]:
    """Return the bands from the bottom up; lanes of one source are one block."""
    blocks: dict[int, list[list[int]]] = defaultdict(list)
    for item, band in enumerate(bands):
        blocks[band].append([item])
    for group in _ribbons(path_edges, lanes).values():
        for band in sorted({band for edge in group for band in lanes[edge]}):
            blocks[band].append([lanes[edge][band] for edge in group if band in lanes[edge]])
    labels = [f"{layer}.{sublayer}" for layer in range(n_layer) for sublayer in SUBLAYERS]
    return [
        Band(label, [Row("", blocks[band], boxed=label.endswith("attn"))] if blocks[band] else [])
        for band, label in enumerate(["embedding", *labels, "final"])
    ]


def _ribbons(
    path_edges: Sequence[PathEntry], lanes: Sequence[dict[int, int]]
) -> dict[int, list[int]]:
    """Return, by source, the positions of the path edges that pass at least one band."""
    ribbons: dict[int, list[int]] = defaultdict(list)
    for edge, (source, _, _, _) in enumerate(path_edges):
        if lanes[edge]:
            ribbons[source].append(edge)
    return ribbons


def _layout_links(
    path_edges: Sequence[PathEntry], lanes: Sequence[dict[int, int]]
) -> list[tuple[int, int, float]]:
    """Return (item, item, weight) along each edge's route; large effects have large weights."""
    largest = max((abs(effect or 0.0) for *_, effect in path_edges), default=0.0) or 1.0
    links = []
    for (source, target, _, effect), lane in zip(path_edges, lanes, strict=True):
        chain = [source, *lane.values(), target]
        weight = 0.1 + abs(effect or 0.0) / largest
        links += [(a, b, weight) for a, b in pairwise(chain)]
    return links


class _End(NamedTuple):
    """Pixels from a component's middle to where edges leave (above) and reach it (below)."""

    above: float
    below: float


def _end(kind: str) -> _End:
    boxed = kind == "head"
    return _End(HEAD_TOP, HEAD_BOTTOM) if boxed else _End(NODE_HEIGHT / 2, NODE_HEIGHT / 2)


def _routes(
    components: Sequence[dict[str, Any]],
    bands: Sequence[int],
    path_edges: Sequence[PathEntry],
    lanes: Sequence[dict[int, int]],
    placed: Layout,
) -> list[list[list[float]]]:
    """Return the points of each path edge's route, from its source up."""
    kinds = dict(zip(bands, (component["kind"] for component in components), strict=True))
    columns = _lane_columns(path_edges, lanes, placed)
    routes = []
    for (source, target, head_input, _), lane, xs in zip(path_edges, lanes, columns, strict=True):
        x, y = placed.points[source]
        route = [[x, y - _end(kinds[bands[source]]).above]]
        for band, item in lane.items():
            y, end = placed.points[item][1], _end(kinds[band])
            route += [[xs[band], y + end.below], [xs[band], y - end.above]]
        x, y = placed.points[target]
        route.append([x + PORTS.get(head_input, 0.0), y + _end(kinds[bands[target]]).below])
        routes.append([[round(x, 1), round(y, 1)] for x, y in route])
    return routes


def _lane_columns(
    path_edges: Sequence[PathEntry], lanes: Sequence[dict[int, int]], placed: Layout
) -> list[dict[int, float]]:
    """Return the x of each edge in each band it passes, so that edges of a source do not cross."""
    columns: list[dict[int, float]] = [{} for _ in path_edges]

    def next_x(edge: int) -> float:
        _, target, head_input, _ = path_edges[edge]
        above = columns[edge]  # filled from the top down, so the lowest band is the next one up

        return above[min(above)] if above else placed.points[target][0] + PORTS.get(head_input, 0.0)

    for group in _ribbons(path_edges, lanes).values():
        for band in sorted({band for edge in group for band in lanes[edge]}, reverse=True):
            passing = [edge for edge in group if band in lanes[edge]]
            xs = sorted(placed.points[lanes[edge][band]][0] for edge in passing)
            for x, edge in zip(xs, sorted(passing, key=next_x), strict=True):
                columns[edge][band] = x
    return columns
