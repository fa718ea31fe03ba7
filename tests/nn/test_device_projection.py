"""Projection on a device: the same kept entries as the CPU's, here on tensors of the CPU."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wirework.nn import device_projection
from wirework.nn.projection import Projection, keep_all_

VALUES = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -0.25, 3e38, 1e-40, math.inf, -math.inf]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kept_by_both(
    weights: list[Tensor], ks: list[int], floor: int, floor_dims: list[int | None]
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return the tensors after the CPU's projection and after that of a device, and its flag."""
    expected = [weight.clone() for weight in weights]
    for weight, k, floor_dim in zip(expected, ks, floor_dims, strict=True):
        projection = Projection(weight, floor=floor, floor_dim=floor_dim)
        assert projection.keep_(k) == projection.n_kept(k)
    got = [weight.clone() for weight in weights]
    projections = [
        Projection(weight, floor=floor, floor_dim=floor_dim)
        for weight, floor_dim in zip(got, floor_dims, strict=True)
    ]
    return expected, got, keep_all_(projections, ks)


@settings(deadline=None, max_examples=200)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    floor=st.integers(0, 5),
    floor_dim=st.sampled_from([None, 0, 1]),
    data=st.data(),
)
def test_keeps_what_the_cpu_keeps(rows, columns, floor, floor_dim, data):
    values = st.sampled_from(VALUES)
    size = rows * columns
    weights = [
        torch.tensor(data.draw(st.lists(values, min_size=size, max_size=size))).view(rows, columns)
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    k = data.draw(st.integers(1, size) | st.sampled_from([1, size]))
    ks, floor_dims = [k] * len(weights), [floor_dim] * len(weights)
    expected, got, nan = kept_by_both(weights, ks, floor, floor_dims)
    for weight, other in zip(expected, got, strict=True):
        assert torch.equal(weight, other)
    assert not nan


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), k=st.integers(1, 60 * 50), floor=st.integers(0, 7))
def test_keeps_what_the_cpu_keeps_of_many_tensors(seed, k, floor):
    # Two shapes, both kinds of neuron, a bias, and bf16 values, which tie.
    weights = [normal(60, 50, seed=seed), normal(60, 50, seed=seed + 1).bfloat16().float()]
    weights += [normal(50, 60, seed=seed + 2), normal(50, 60, seed=seed + 3).bfloat16().float()]
    weights += [normal(60, seed=seed + 4)]
    ks = [k, k, k, max(1, k // 7), min(k, 60)]
    expected, got, _ = kept_by_both(weights, ks, floor, [0, None, 1, 1, None])
    for weight, other in zip(expected, got, strict=True):
        assert torch.equal(weight, other)


def test_worked_by_hand():
    rows = torch.tensor([[0.1, -0.2, 0.3], [5.0, 6.0, 7.0]])
    columns = torch.tensor([[0.1, 5.0, 6.0], [-0.2, 6.0, 7.0]])
    ones = torch.ones(2, 3)
    nan = device_projection.keep_each_(
        [rows, columns, ones], [3, 4, 4], [(1, 0), (1, 1), (0, None)]
    )
    assert torch.equal(rows, torch.tensor([[0.0, 0.0, 0.3], [0.0, 6.0, 7.0]]))
    assert torch.equal(columns, torch.tensor([[0.0, 0.0, 6.0], [-0.2, 6.0, 7.0]]))
    assert torch.equal(ones, torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]))
    assert not nan


@pytest.mark.parametrize(("k", "floor"), [(30, 0), (60, 0), (30, 2), (1, 3), (64, 0)])
def test_nan_sets_the_flag_and_stays(k: int, floor: int):
    weights = [normal(8, 8), normal(8, 8, seed=1)]
    weights[1][5, 3] = torch.nan
    projections = [Projection(weight, floor=floor, floor_dim=0) for weight in weights]
    assert keep_all_(projections, [k, k])
    assert weights[1][5, 3].isnan()
    assert not keep_all_(projections[:1], [k])


def test_infinity_is_no_nan():
    weight = torch.tensor([math.inf, 1.0, -math.inf, 2.0])
    assert not keep_all_([Projection(weight)], [3])
    assert torch.equal(weight, torch.tensor([math.inf, 0.0, -math.inf, 2.0]))


def test_a_group_in_several_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_projection, "_MOST_ENTRIES", 130)
    weights = [normal(8, 8, seed=seed) for seed in range(5)]
    expected, got, _ = kept_by_both(weights, [9] * 5, 1, [0] * 5)
    for weight, other in zip(expected, got, strict=True):
        assert torch.equal(weight, other)


@pytest.mark.parametrize("k", [1, 18_000, 36_000, 39_999])
def test_more_ties_than_a_short_counts(k: int):
    expected, got, _ = kept_by_both([torch.ones(200, 200)], [k], 0, [None])
    assert torch.equal(expected[0], got[0])
