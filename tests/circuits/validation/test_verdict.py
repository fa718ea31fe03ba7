"""What numbers come to in words."""

from collections.abc import Mapping
from typing import Any

import pytest

from wirework.circuits.validation.verdict import SIZE_MARGIN, reaches, verdict

GOOD: Mapping[str, Any] = {
    "target_loss": 0.15,
    "n_nodes": 10,
    "held_out": {"circuit": 0.16, "circuit_error": 0.01, "without_circuit": 2.0},
    "resampled": {"resample": 0.2},
    "interchange": {"same": 0.2, "other": 3.0},
}


def control(reached: bool, n_nodes: int) -> dict[str, Any]:
    return {"reached": reached, "n_nodes": n_nodes, "n_edges": 5, "held_out": {"circuit": 0.1}}


def test_all_met_is_faithful_and_only_with_controls() -> None:
    assert verdict(GOOD, {})["faithful"] is True
    found = verdict(GOOD, {}, full_validation=False)
    assert found["faithful"] is None
    assert found["reasons"][0] == "the same search has not been run on its controls"


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("held_out", {"circuit": 0.18}, "not sufficient: loss 0.180 +- 0.010"),
        ("held_out", {"without_circuit": 0.5}, "not necessary"),
        ("resampled", {"resample": 0.43}, "does not hold"),
        ("interchange", {"same": 0.5}, "does not carry"),
        ("interchange", {"other": 0.1}, "does not carry"),
    ],
)
def test_what_failed_stands_first(part: str, change: dict[str, float], words: str) -> None:
    found = verdict({**GOOD, part: {**GOOD[part], **change}}, {})
    assert found["faithful"] is False
    assert found["reasons"][0].startswith(words)


@pytest.mark.parametrize("name", ["nonsense task", "shuffled weights"])
def test_a_control_that_gets_there_with_few_nodes_speaks_against_the_circuit(name: str) -> None:
    assert SIZE_MARGIN == 3
    found = verdict(GOOD, {name: control(reached=True, n_nodes=29)})
    assert found["faithful"] is False
    assert found["reasons"][0] == (
        f"{name}: the same search reaches the target too: loss 0.100 with 29 nodes and 5 edges "
        "where the circuit has 10 nodes"
    )
    assert verdict(GOOD, {name: control(reached=True, n_nodes=30)})["faithful"] is True
    assert verdict(GOOD, {name: control(reached=False, n_nodes=2)})["faithful"] is True


def test_random_circuits_must_not_be_sufficient() -> None:
    lucky = {"n": 20, "n_sufficient": 1, "lowest": 0.1}
    assert "1 of 20 are sufficient" in verdict(GOOD, {"random circuits": lucky})["reasons"][0]


def test_what_could_not_be_looked_at_leaves_it_open() -> None:
    missing = {"reason": "no text"}
    found = verdict({**GOOD, "resampled": missing}, {"nonsense task": {"reason": "few pairs"}})
    assert found["faithful"] is None
    assert found["reasons"][:2] == [
        "not checked under resampling: no text", "nonsense task: not run: few pairs",
    ]  # fmt: skip
    failed = {**GOOD, "resampled": missing, "interchange": {"same": 2.0, "other": 3.0}}
    assert verdict(failed, {})["faithful"] is False
    alone = {**GOOD, "interchange": {"same": None, "other": None}}
    assert verdict(alone, {})["faithful"] is None


def test_a_large_error_does_not_make_a_circuit_sufficient() -> None:
    assert reaches({"circuit": 0.165, "circuit_error": 0.01}, 0.15)
    assert not reaches({"circuit": 0.18, "circuit_error": 0.01}, 0.15)
    assert not reaches({"circuit": 1.0, "circuit_error": 0.5}, 0.15)
    assert reaches({"circuit": 0.9, "circuit_error": 0.0}, 1.0)


def test_a_single_pair_has_no_standard_error() -> None:
    held_out = {"circuit": 0.03, "circuit_error": 0.0, "without_circuit": 2.0, "n_pairs": 1}
    reasons = verdict({**GOOD, "held_out": held_out}, {})["reasons"]
    assert any("0.030 on a single unseen pair, too few for a standard" in one for one in reasons)
    assert not any("+- 0.000" in one for one in reasons)


def test_an_empty_circuit_is_called_so() -> None:
    found = verdict({**GOOD, "n_nodes": 0}, {})
    assert found["faithful"] is None
    assert found["reasons"][0] == "the circuit is empty: the task needs no node"
