"""The study's figures by hand-made numbers: what is drawn, not how it looks."""

import struct
from pathlib import Path
from typing import Any

import pytest
from present import present

from wirework.errors import InputError
from wirework.files import write_json
from wirework.view import write_study_figures
from wirework.view.figures.figure_study import (
    draw_finders,
    draw_frontier,
    draw_kurtosis,
    draw_targets,
    draw_token_losses,
)
from wirework.view.figures.study_file import FinderResults, FrontierResults


def sparse(width: int, l0: int, edges: float | None, act: float = 0.25) -> dict[str, Any]:
    return {
        "name": f"sparse-w{width}-l{l0}-a{act}", "kind": "sparse", "width": width, "l0_count": l0,
        "act_fraction": act, "n_nonzero": l0 + 1, "val_loss": 4 - width / 100,
        "log_kurtosis": width, "kurtosis": 2 * width, "edges": edges,
        "n_circuits": 0 if edges is None else 2,
    }  # fmt: skip


def dense(width: int, edges: float | None) -> dict[str, Any]:
    return {
        **sparse(width, 0, edges),
        "kind": "dense", "l0_count": None, "act_fraction": None, "n_nonzero": 900 * width,
    }  # fmt: skip


@pytest.fixture
def results() -> dict[str, Any]:
    pair = {"sparse": "s", "dense": "d", "sparse_loss": 3.51, "dense_loss": 3.5}
    sizes = [(0.5, 1, 4.0), (0.15, 2, 40.0), (0.005, 0, None)]
    return {
        "cells": [
            *(sparse(width, l0, l0 / width) for width in (32, 64) for l0 in (1000, 2000, 4000)),
            sparse(128, 1000, None),
            dense(32, 999.0),
            dense(64, None),
        ],
        "target_loss": 0.15,
        "pair": pair,
        "verdict": "held-out losses 0.3% apart",
        "targets": [
            {
                "target_loss": target, "tasks": ["a", "b"][:n], "ratio": n and 4.0,
                "sparse_edges": edges, "dense_edges": edges and 4 * edges,
            }
            | ({} if n else {"ratio": None})
            for target, n, edges in sizes
        ],
    }  # fmt: skip


@pytest.fixture
def tokens() -> dict[str, Any]:
    common = {"first": "d", "n_tokens": 6, "top": 4.0, "correlation": 0.9, "means": [1, 1]}
    return {
        "of": {},
        "joints": [
            {**common, "second": "s", "kind": "sparse", "counts": [[3, 2], [0, 1]]},
            {**common, "second": "e", "kind": "dense", "counts": [[3, 0], [0, 3]]},
        ],
    }


def lines(axes: Any) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_targets_draws_both_models_where_both_have_circuits(results: dict[str, Any]):
    (axes,) = draw_targets(results).axes
    assert lines(axes) == [([0.5, 0.15], [16, 160]), ([0.5, 0.15], [4, 40])]
    assert axes.xaxis_inverted()
    assert {"n=1", "n=2"} <= {text.get_text() for text in axes.texts}
    assert axes.get_legend_handles_labels()[1][0] == "d, held-out loss 3.5"


def test_frontier_has_lines_of_equal_l0_and_of_equal_size(results: dict[str, Any]):
    (axes,) = draw_frontier(results).axes
    solid = [line for line in axes.lines if line.get_linestyle() == "-"]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [line.get_label() for line in solid] == [
        f"L0 {count}, 25% of activations" for count in ("1,000", "2,000", "4,000")
    ]
    assert list(solid[0].get_xdata()) == [1000 / 32, 1000 / 64]  # that of width 128 has no circuit
    assert [list(line.get_xdata()) for line in dashed] == [
        [l0 / width for l0 in (1000, 2000, 4000)] for width in (32, 64)
    ]
    (points,) = (line for line in axes.lines if line.get_linestyle() == "None")
    assert (list(points.get_xdata()), points.get_label()) == ([999.0], "dense")
    assert "w64 n=2" in {text.get_text() for text in axes.texts}


def test_targets_draws_the_lines_of_the_paper_beside_ours(results: dict[str, Any]):
    at_half, at_last = results["targets"][0], results["targets"][1]
    at_half["paper"] = {"tasks": ["a"], "sparse_edges": 9.0, "dense_edges": 90.0, "ratio": 10.0}
    at_last["paper"] = {"tasks": [], "sparse_edges": None, "dense_edges": None, "ratio": None}
    (axes,) = draw_targets(results).axes
    assert lines(axes)[2:] == [([0.5], [90]), ([0.5], [9])]
    assert axes.get_legend_handles_labels()[1] == [
        "d, held-out loss 3.5, our circuits", "s, held-out loss 3.51, our circuits",
        "d, bisection alone (the paper's)", "s, bisection alone (the paper's)",
    ]  # fmt: skip


def test_frontier_draws_the_points_of_the_paper_beside_ours(results: dict[str, Any]):
    for cell in results["cells"]:
        cell["paper_edges"] = cell["edges"] and 3 * cell["edges"]
    (axes,) = draw_frontier(results).axes
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert list(dotted[0].get_xdata()) == [3 * 1000 / 32, 3 * 1000 / 64]
    assert dotted[0].get_label() == "hollow, dotted, bisection alone (the paper's)"
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in points] == [[999.0], [3 * 999.0]]


def test_frontier_has_a_line_of_the_bigram_table_where_it_is_recorded(results: dict[str, Any]):
    (axes,) = draw_frontier(results).axes
    assert "-." not in {line.get_linestyle() for line in axes.lines}
    (axes,) = draw_frontier({**results, "bigram_loss": 4.25}).axes
    (line,) = (line for line in axes.lines if line.get_linestyle() == "-.")
    assert list(line.get_ydata()) == [4.25, 4.25]
    assert line.get_label() == "bigram table alone, 4.25"


def test_finders_draws_the_bare_learned_line_beside_ours():
    row = {"target_loss": 0.15, "n_tasks": 2, "kept_edges": 8.0, "paper_edges": 40.0}
    rows = [{**row, "finder": name, "edges": 10.0} for name in ("learned", "attribution")]
    (axes,) = draw_finders({"rows": rows}).axes
    assert [(line.get_label(), list(line.get_ydata())) for line in axes.lines] == [
        ("learned", [10]),
        ("learned, bisection alone (the paper's)", [40]),
        ("attribution", [10]),
    ]
    assert axes.get_ylabel() == "edges, geometric mean over tasks"


def test_edges_of_an_earlier_version_are_drawn_as_kept_edges(results: dict[str, Any]):
    read = FrontierResults.model_validate(results).model_dump()
    assert [cell["edges"] for cell in read["cells"]] == [None] * len(read["cells"])
    (axes,) = draw_frontier(read).axes
    assert axes.get_xlabel().startswith("kept edges at target 0.15 nats")
    (axes,) = draw_targets(read).axes
    assert lines(axes) == [([0.5, 0.15], [16, 160]), ([0.5, 0.15], [4, 40])]
    assert axes.get_ylabel() == "kept edges, geometric mean over n tasks"
    row = {"finder": "learned", "target_loss": 0.15, "n_tasks": 2, "edges": 9.0}
    (axes,) = draw_finders(FinderResults.model_validate({"rows": [row]}).model_dump()).axes
    assert axes.get_ylabel() == "kept edges, geometric mean over tasks"


def test_kurtosis_is_drawn_against_l0_and_against_width(results: dict[str, Any]):
    left, right = draw_kurtosis(results).axes
    assert [x for x, _ in lines(left)] == [
        [1001, 2001, 4001], [1001, 2001, 4001], [1001], [900 * 32, 900 * 64],
    ]  # fmt: skip
    assert lines(right)[0] == ([32, 64, 128], [32, 64, 128])
    assert len(lines(right)) == 4
    assert left.get_yscale() == "linear"
    assert left.get_ylabel() == "log(mean kurtosis of channels), final residual stream"


def test_results_of_earlier_versions_show_their_pooled_kurtosis(results: dict[str, Any]):
    for cell in results["cells"]:
        del cell["log_kurtosis"]
    left, right = draw_kurtosis(results).axes
    assert lines(right)[0] == ([32, 64, 128], [64, 128, 256])
    assert left.get_ylabel() == "pooled kurtosis of the final residual stream"
    assert left.get_yscale() == "log"


def test_token_losses_has_a_panel_for_each_pair_with_its_correlation(tokens: dict[str, Any]):
    first, second, *bars = draw_token_losses(tokens).axes
    assert len(bars) == 2
    assert "correlation 0.9 over 6 tokens" in {text.get_text() for text in first.texts}
    (mesh,) = first.collections
    # Row: a bin of the second model's loss; column: of the first's.
    assert present(mesh.get_array()).tolist() == [[3, 0], [2, 1]]
    assert (first.get_xlabel(), first.get_ylabel()) == ("d, nats", "s, nats")
    assert second.get_ylabel() == "e, nats"


def test_pictures_are_written_beside_the_numbers(
    results: dict[str, Any], tokens: dict[str, Any], tmp_path: Path
):
    write_json(tmp_path / "results.json", results)
    write_json(tmp_path / "token_losses.json", tokens)
    written = write_study_figures(tmp_path)
    assert [path.name for path in written] == ["fig02.png", "fig03.png", "fig10.png", "fig33.png"]
    before = [path.read_bytes() for path in written]
    assert all(struct.unpack(">II", png[16:24]) > (500, 500) for png in before)
    assert [path.read_bytes() for path in write_study_figures(tmp_path)] == before
    write_json(tmp_path / "results.json", {**results, "pair": None, "targets": []})
    assert [path.name for path in write_study_figures(tmp_path)] == ["fig03.png", "fig10.png"]
    assert not (tmp_path / "fig33.png").exists()


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot read .*results\.json"):
        write_study_figures(tmp_path)
