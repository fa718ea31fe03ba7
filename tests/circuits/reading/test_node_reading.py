"""Roles of nodes, where they depend on other nodes."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from wirework.circuits.reading.node_reading import (
    NodeReading,
    Role,
    _with_joint_constants,
    is_predicted,
)

SITE = "0.mlp.post_act"


class FixedTogether:
    """A circuit whose loss rises by 0.01 nats for each node that is fixed."""

    recorded = SimpleNamespace(channels={SITE: torch.arange(6)})

    def loss_with(self, fixed: dict[str, torch.Tensor]) -> float:
        return 0.1 + 0.01 * len(fixed.get(SITE, ()))


def reading(index: int, role: Role, loss_if_fixed: float) -> NodeReading:
    anything: Any = None
    return NodeReading(
        node=f"{SITE}.{index}", site=SITE, index=index, role=role, contrast=0.0,
        at_place=anything, swap=anything, swap_last=None, loss_if_fixed=loss_if_fixed,
        loss_if_ablated=0.1, driving_tokens=anything,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("n_constants", "kept"), [(0, set()), (1, {3}), (2, {2, 3}), (3, {2, 3}), (4, {2, 3})]
)
def test_constants_that_cannot_be_fixed_together_are_other(n_constants: int, kept: set[int]):
    """Those that matter least alone stay: two change the loss by 0.02 nats, three by 0.03."""
    losses = [0.11, 0.109, 0.092, 0.1]  # changes of 0.01, 0.009, 0.008 and 0
    constants = [reading(i, "constant", losses[i]) for i in range(4 - n_constants, 4)]
    signal: Any = reading(5, "signal", 0.5)
    patcher: Any = FixedTogether()
    found = _with_joint_constants([*constants, signal], patcher, 0.1)
    assert {one.index for one in found if one.role == "constant"} == kept
    assert [one.role for one in found if one.index not in kept][-1] == "signal"
    assert len(found) == n_constants + 1


@pytest.mark.parametrize(
    ("after", "if_fixed", "expected"),
    [
        (0.11, 0.5, True),
        (0.09, 0.5, True),  # better than with the values
        (0.13, 0.5, False),  # too far
        (0.11, 0.11, False),  # no better than the average
        (0.11, 0.115, False),  # two thirds of the average's change are left
        (0.11, 0.12, True),
    ],
)
def test_a_prediction_must_say_more_than_the_average(after: float, if_fixed: float, expected: bool):
    assert is_predicted(0.1, after, if_fixed, most=0.025) == expected
