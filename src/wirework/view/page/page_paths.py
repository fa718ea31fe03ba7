"""Head-level circuits: the components that path edges join, and the way that each edge takes.

Components stand in the order of the forward pass: the embedding at the bottom, then of each layer
its heads and its MLP, `final_resid` on top. An edge that passes a sublayer gets a lane of its own
there, so that it runs beside what it has no part in and not behind it.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from wirework.circuit_format import Component, Document, split_component
from wirework.view.layout import NODE_HEIGHT, Band, Layout, Row, place, text_width
from wirework.view.page.page_layout import SUBLAYERS, as_json

PORTS = {"q": -22.0, "k": 0.0, "v": 22.0}
"""Where the queries, keys and values of a head read, from its middle."""

HEAD_TOP, HEAD_BOTTOM = 22.0, 15.0
"""How far a head's box reaches above and below its middle."""

_HEAD_WIDTH = 66.0
_LANE = 2.0
_PAD, _MORE_PAD = 32.0, 60.0

Path = Sequence[Any]
"""[source, target, input or None, effect or None], ends by their places among the components;
effects to six significant digits."""


def components_of(document: Document) -> tuple[list[dict[str, Any]], list[Path]]:
    """Return the components of a head-level circuit as JSON, and its path edges between them.

    The embedding and the final residual are among them even where no edge reaches them.
    """
    edges = [(split_component(e.source), split_component(e.target)) for e in document.path_edges]
    ends = {end._replace(input=None) for edge in edges for end in edge}
    outer = {Component("embed"), Component("final_resid")} if document.level == "head" else set()
    ordered = sorted(ends | outer, key=lambda end: (end.depth, end.head))
    places = {end: i for i, end in enumerate(ordered)}
    paths: list[Path] = [
        [places[source], places[target._replace(input=None)], target.input, _rounded(edge.effect)]
        for (source, target), edge in zip(edges, document.path_edges, strict=True)
    ]
    return [_as_json(end) for end in ordered], paths


def _rounded(effect: float | None) -> float | None:
    return None if effect is None else float(f"{effect:.6g}")


def _as_json(end: Component) -> dict[str, Any]:
    place = {"head": f"{end.layer}.attn.{end.head}", "mlp": f"{end.layer}.mlp"}
    return {
        "name": place.get(end.kind, end.kind),
        "kind": end.kind,
        "layer": end.layer if end.layer >= 0 else None,
        "head": end.head if end.head >= 0 else None,
    }


def lay_out_paths(
    n_layer: int, components: Sequence[dict[str, Any]], paths: Sequence[Path]
) -> dict[str, Any]:
    """Return the layout as JSON, with `routes`, the points that each path edge runs through.

    Args:
        n_layer: layers of the model, so that those without components show too.
        components, paths: what `components_of` returned.
    """
    bands = [_band_of(component, n_layer) for component in components]
    lanes = _lanes(bands, paths)
    widths = [_width(component) for component in components]
    n_items = len(components) + sum(len(lane) for lane in lanes)
    placed = place(
        _stack(n_layer, bands, paths, lanes),
        widths + [_LANE] * (n_items - len(components)),
        _pulls(paths, lanes),
        _PAD + min(_MORE_PAD, len(paths) / 4),
    )
    routes = _routes(components, bands, paths, lanes, placed)
    points = placed.points[: len(components)]
    shown = Layout(placed.width, placed.height, points, placed.bands)
    return {**as_json(shown, widths), "routes": routes, "ports": PORTS}


def _band_of(component: dict[str, Any], n_layer: int) -> int:
    """Return the band that a component stands in, 0 at the bottom."""
    outer = {"embed": 0, "final_resid": 2 * n_layer + 1}
    kind, layer = component["kind"], component["layer"]
    return outer[kind] if kind in outer else 1 + 2 * layer + (kind == "mlp")


def _width(component: dict[str, Any]) -> float:
    return _HEAD_WIDTH if component["kind"] == "head" else text_width(component["name"])


def _lanes(bands: Sequence[int], paths: Sequence[Path]) -> list[dict[int, int]]:
    """Return for each path edge the item that it is in each band that it passes."""
    filled, items = sorted(set(bands)), len(bands)
    lanes: list[dict[int, int]] = []
    for source, target, _, _ in paths:
        passed = [band for band in filled if bands[source] < band < bands[target]]
        lanes.append({band: items + i for i, band in enumerate(passed)})
        items += len(passed)
    return lanes


def _stack(
    n_layer: int, bands: Sequence[int], paths: Sequence[Path], lanes: Sequence[dict[int, int]]
) -> list[Band]:
    """Return the bands from the bottom up; lanes of one source stay together."""
    blocks: dict[int, list[list[int]]] = defaultdict(list)
    for item, band in enumerate(bands):
        blocks[band].append([item])
    for group in _ribbons(paths, lanes).values():
        for band in sorted({band for path in group for band in lanes[path]}):
            blocks[band].append([lanes[path][band] for path in group if band in lanes[path]])
    labels = [f"{layer}.{sublayer}" for layer in range(n_layer) for sublayer in SUBLAYERS]
    return [
        Band(label, [Row("", blocks[band], boxed=label.endswith("attn"))] if blocks[band] else [])
        for band, label in enumerate(["embedding", *labels, "final"])
    ]


def _ribbons(paths: Sequence[Path], lanes: Sequence[dict[int, int]]) -> dict[int, list[int]]:
    """Return the path edges of each source that pass some band."""
    ribbons: dict[int, list[int]] = defaultdict(list)
    for path, (source, _, _, _) in enumerate(paths):
        if lanes[path]:
            ribbons[source].append(path)
    return ribbons


def _pulls(paths: Sequence[Path], lanes: Sequence[dict[int, int]]) -> list[tuple[int, int, float]]:
    """Return what should stand close together: each edge's ends and lanes, strong ones most."""
    largest = max((abs(effect or 0.0) for *_, effect in paths), default=0.0) or 1.0
    pulls = []
    for (source, target, _, effect), lane in zip(paths, lanes, strict=True):
        chain = [source, *lane.values(), target]
        pull = 0.1 + abs(effect or 0.0) / largest
        pulls += [(a, b, pull) for a, b in pairwise(chain)]
    return pulls


class _End(NamedTuple):
    """Where edges leave and reach a component: how far above and below its middle."""

    above: float
    below: float


def _end(kind: str) -> _End:
    boxed = kind == "head"
    return _End(HEAD_TOP, HEAD_BOTTOM) if boxed else _End(NODE_HEIGHT / 2, NODE_HEIGHT / 2)


def _routes(
    components: Sequence[dict[str, Any]],
    bands: Sequence[int],
    paths: Sequence[Path],
    lanes: Sequence[dict[int, int]],
    placed: Layout,
) -> list[list[list[float]]]:
    """Return of each path edge the points it runs through, from its source up."""
    kinds = dict(zip(bands, (component["kind"] for component in components), strict=True))
    columns = _untangled(paths, lanes, placed)
    routes = []
    for (source, target, read, _), lane, xs in zip(paths, lanes, columns, strict=True):
        x, y = placed.points[source]
        route = [[x, y - _end(kinds[bands[source]]).above]]
        for band, item in lane.items():
            y, end = placed.points[item][1], _end(kinds[band])
            route += [[xs[band], y + end.below], [xs[band], y - end.above]]
        x, y = placed.points[target]
        route.append([x + PORTS.get(read, 0.0), y + _end(kinds[bands[target]]).below])
        routes.append([[round(x, 1), round(y, 1)] for x, y in route])
    return routes


def _untangled(
    paths: Sequence[Path], lanes: Sequence[dict[int, int]], placed: Layout
) -> list[dict[int, float]]:
    """Return the x of each edge in each band it passes, such that edges of a source don't cross."""
    columns: list[dict[int, float]] = [{} for _ in paths]

    def ahead(path: int) -> float:
        _, target, read, _ = paths[path]
        above = columns[path]  # filled from the top down: what came last is next on its way
        return above[min(above)] if above else placed.points[target][0] + PORTS.get(read, 0.0)

    for group in _ribbons(paths, lanes).values():
        for band in sorted({band for path in group for band in lanes[path]}, reverse=True):
            here = [path for path in group if band in lanes[path]]
            xs = sorted(placed.points[lanes[path][band]][0] for path in here)
            for x, path in zip(xs, sorted(here, key=ahead), strict=True):
                columns[path][band] = x
    return columns
