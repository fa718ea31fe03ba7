"""Sizes set side by side, by hand-made numbers."""

from typing import Any

import pytest

from wirework.studies import best_match, geometric_mean, matches
from wirework.studies.compare import compare, compare_all, match_verdict, mean_sizes, sizes_of


def rows(**edges: int | None) -> list[dict[str, Any]]:
    return [{"task": t, "n_edges": n, "reached": n is not None} for t, n in edges.items()]


def cell(name: str, loss: float, **edges: int | None) -> dict[str, Any]:
    return {"name": name, "kind": name.split("-")[0], "val_loss": loss, "tasks": rows(**edges)}


def test_geometric_mean_takes_no_edges_as_one_and_nothing_as_none():
    assert geometric_mean([2, 8]) == pytest.approx(4)
    assert geometric_mean([0, 16]) == pytest.approx(4)
    assert geometric_mean([0]) == 1
    assert geometric_mean([]) is None


def test_tasks_without_a_circuit_are_left_out_of_both_sides():
    assert sizes_of(rows(a=0, b=None, c=5)) == {"a": 0, "c": 5}
    assert sizes_of([{"task": "a", "n_edges": 7, "reached": False}]) == {}  # made `allow_unreached`
    found = compare(rows(a=4, b=9, c=None), rows(a=64, b=None, c=2))
    assert found["tasks"] == ["a"]
    assert (found["sparse_edges"], found["dense_edges"]) == pytest.approx((4, 64))
    assert found["ratio"] == pytest.approx(16)
    nothing = compare(rows(a=4), rows(b=4))
    assert nothing == {"tasks": [], "sparse_edges": None, "dense_edges": None, "ratio": None}


def counted(task: str, n_edges: int | None, n_kept: int, paper: int | None) -> dict[str, Any]:
    return {
        "task": task, "reached": True, "n_edges": n_edges, "n_kept_edges": n_kept,
        "paper_edges": paper,
    }  # fmt: skip


def test_each_number_of_edges_is_compared_on_the_tasks_that_have_it():
    found = compare_all(
        [counted("a", 4, 2, 10), counted("b", 4, 2, None)],
        [counted("a", 8, 2, 90), counted("b", 8, 8, 30)],
    )
    assert (found["tasks"], found["ratio"]) == (["a", "b"], pytest.approx(2))
    assert found["kept"]["ratio"] == pytest.approx(2)
    assert (found["paper"]["tasks"], found["paper"]["ratio"]) == (["a"], pytest.approx(9))
    means = mean_sizes([counted("a", None, 2, 10), counted("b", None, 8, 90)])
    assert means == {
        "edges": None,
        "kept_edges": pytest.approx(4),
        "paper_edges": pytest.approx(30),
    }


def test_the_verdict_names_the_ratio_of_the_paper_and_old_numbers_as_kept_edges():
    def words(sparse: dict[str, Any], dense: dict[str, Any]) -> str:
        cells = [{**cell("dense-1", 4.0), "tasks": [dense]}]
        pairs = matches([*cells, {**cell("sparse-1", 4.0), "tasks": [sparse]}], 0.02)
        return match_verdict(best_match(pairs), 0.02).removeprefix("held-out losses 0.0% apart; ")

    assert words(counted("a", 4, 2, 10), counted("a", 8, 8, 90)) == (
        "over 1 task the dense circuits have 2.0 times the edges; at plain bisection, as in the "
        "paper, 9.0 times (1 task)"
    )
    assert words(counted("a", None, 2, None), counted("a", None, 8, None)) == (
        "over 1 task the dense circuits have 4.0 times the kept edges"
    )


def test_each_sparse_model_gets_the_dense_one_closest_in_loss():
    cells = [
        cell("sparse-1", 3.9, a=2),
        cell("dense-1", 4.0, a=20),
        cell("sparse-2", 3.0, a=1),
        cell("dense-2", 3.2, a=90),
    ]
    first, second = matches(cells, within=0.03)
    assert (first["sparse"], first["dense"]) == ("sparse-1", "dense-1")
    assert first["apart"] == pytest.approx(0.1 / 4.0)
    assert first["matched"]
    assert first["ratio"] == pytest.approx(10)
    assert second["dense"] == "dense-2"
    assert second["apart"] == pytest.approx(0.2 / 3.2)
    assert not second["matched"]
    assert matches(cells[::2], 0.03) == []


def test_the_pair_reported_is_within_reach_and_has_most_tasks_whatever_its_ratio():
    cells = [
        cell("dense-1", 4.0, a=50, b=50),
        cell("sparse-1", 4.0, a=1),  # closest, ratio 50, one task
        cell("sparse-2", 4.02, a=10, b=10),
        cell("sparse-3", 4.2, a=5, b=5),  # too far
    ]
    found = matches(cells, within=0.02)
    pair = best_match(found)
    assert pair is not None
    assert pair["sparse"] == "sparse-2"
    assert match_verdict(pair, 0.02) == (
        "held-out losses 0.5% apart; over 2 tasks the dense circuits have 5.0 times the edges"
    )


def test_where_no_pair_is_within_reach_it_says_so():
    pair = best_match(matches([cell("dense-1", 4.0, a=8), cell("sparse-1", 4.4, a=2)], 0.02))
    assert pair is not None
    assert not pair["matched"]
    assert match_verdict(pair, 0.02) == (
        "no dense model within 2% of a sparse one: held-out losses 10.0% apart; "
        "over 1 task the dense circuits have 4.0 times the edges"
    )
    pair = best_match(matches([cell("dense-1", 4.0), cell("sparse-1", 4.0, a=2)], 0.02))
    assert match_verdict(pair, 0.02) == "held-out losses 0.0% apart; no task has a circuit in both"
    assert best_match([]) is None
    assert match_verdict(None, 0.02) == "no pair: it takes a sparse and a dense model"
