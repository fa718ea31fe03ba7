"""Head-level circuits: what stands where, and the way that path edges take between it."""

import json
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from circuit_maker import PATHS, make_paths
from hypothesis import given
from hypothesis import strategies as st

from wirework.view import load_page_data
from wirework.view.page.page_paths import lay_out_paths

ENDS = ["embed", *(f"{i}.{kind}" for i in range(4) for kind in ("attn.0", "attn.1", "mlp"))]


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    """Page data of the head-level circuit of the maker."""
    return load_page_data(make_paths(tmp_path / "c"))


def test_components_stand_in_the_order_of_the_forward_pass(data: dict[str, Any]) -> None:
    names = ["embed", "0.attn.1", "0.mlp", "1.attn.3", "1.mlp", "final_resid"]
    assert [component["name"] for component in data["components"]] == names
    assert data["components"][3] == {"name": "1.attn.3", "kind": "head", "layer": 1, "head": 3}
    points = data["layout"]["points"]
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    labels = [band["label"] for band in data["layout"]["bands"]]
    assert labels[0] == "embedding"
    assert labels[-2:] == ["2.attn to 3.mlp", "final"]


def test_path_edges_name_their_ends_input_and_effect(data: dict[str, Any]) -> None:
    assert data["path_edges"] == [
        [2, 5, None, 0.5],
        [1, 5, None, 0.25],
        [0, 5, None, -0.125],
        [1, 2, None, 0.0123457],  # six digits of what was stored
        [0, 3, "v", 0.3],
        [2, 3, "q", 0.2],
        [3, 4, None, None],
        [0, 1, "k", 0.1],
    ]
    assert data["level"] == "head"
    assert data["patching"]["n_all"] == 1519
    assert data["nodes"] == data["outputs"] == data["activations"] == []
    assert [text["text"] for text in data["texts"]][:2] == data["task"]["answers"]
    json.dumps(data, allow_nan=False)


def test_routes_lead_from_the_source_to_the_input_that_reads(data: dict[str, Any]) -> None:
    points = data["layout"]["points"]
    aside = {None: 0.0, "q": -22.0, "k": 0.0, "v": 22.0}
    for (source, target, read, _), route in zip(
        data["path_edges"], data["layout"]["routes"], strict=True
    ):
        assert route[0][0] == points[source][0]
        assert route[-1][0] == pytest.approx(points[target][0] + aside[read], abs=0.11)
        heights = [y for _, y in route]
        assert points[source][1] > heights[0]
        assert points[target][1] < heights[-1]
        assert heights == sorted(heights, reverse=True)


NAMES = [*ENDS, "final_resid"]


def depth_of(name: str) -> int:
    """The band that a component stands in, from the bottom."""
    outer = {"embed": 0, "final_resid": 9}
    return outer[name] if name in outer else 1 + 2 * int(name[0]) + ("mlp" in name)


EDGES = [
    [source, target, way, 1.0]
    for source, target in combinations(range(len(NAMES)), 2)
    for way in ("qkv" if "attn" in NAMES[target] else [None])
    if depth_of(NAMES[source]) < depth_of(NAMES[target])
]


@given(st.lists(st.sampled_from(EDGES), min_size=1, max_size=25, unique_by=tuple))
def test_an_edge_passes_beside_components_and_its_own_kind(paths: list[list[Any]]) -> None:
    layout = lay_out_paths(4, [component_of(name) for name in NAMES], paths)
    boxes = list(zip(layout["points"], layout["widths"], strict=True))
    for (source, target, *_), route in zip(paths, layout["routes"], strict=True):
        upright = list(pairwise(route))[1:-1:2]
        assert len(upright) == depth_of(NAMES[target]) - depth_of(NAMES[source]) - 1
        for (x, y), (top_x, top_y) in upright:
            assert x == top_x
            beside = [w / 2 <= abs(x - at) for (at, middle), w in boxes if top_y < middle < y]
            assert beside
            assert all(beside)
    for (one, a), (other, b) in combinations(zip(paths, layout["routes"], strict=True), 2):
        if one[0] == other[0] and len(a) == len(b) > 2 and a[-1] != b[-1]:
            logit_diffs = [x - to_x for (x, _), (to_x, _) in zip(a[1:], b[1:], strict=True)]
            assert all(gap > 0 for gap in logit_diffs) or all(gap < 0 for gap in logit_diffs)


def component_of(name: str) -> dict[str, Any]:
    """A component as page data has it."""
    layer, _, place = name.partition(".")
    if not place:
        return {"name": name, "kind": name, "layer": None, "head": None}
    kind, _, head = place.partition(".")
    if kind == "mlp":
        return {"name": name, "kind": "mlp", "layer": int(layer), "head": None}
    return {"name": name, "kind": "head", "layer": int(layer), "head": int(head)}


def test_a_circuit_without_edges_has_its_two_ends(tmp_path: Path) -> None:
    data = load_page_data(make_paths(tmp_path / "c", [], n_prompts=0))
    assert [component["name"] for component in data["components"]] == ["embed", "final_resid"]
    assert data["layout"]["routes"] == []


def test_the_same_folder_gives_the_same_data(tmp_path: Path) -> None:
    made = make_paths(tmp_path / "c", PATHS)
    assert json.dumps(load_page_data(made)) == json.dumps(load_page_data(made))
