import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wirework.nn import projection
from wirework.nn.projection import Projection


def plain_projection(weight: Tensor, k: int, floor: int, floor_dim: int | None) -> Tensor:
    """Rank everything by stable sorts: each neuron's floor first, then the largest others."""
    keep = torch.zeros(weight.shape, dtype=torch.bool)
    if floor and floor_dim is not None:
        for neuron in range(weight.shape[floor_dim]):
            order = weight.select(floor_dim, neuron).abs().argsort(descending=True, stable=True)
            keep.select(floor_dim, neuron)[order[:floor]] = True
    rest = weight.abs().masked_fill(keep, -1.0).flatten().argsort(descending=True, stable=True)
    keep.view(-1)[rest[: max(0, k - int(keep.sum()))]] = True
    return torch.where(keep, weight, 0)


def check(weight: Tensor, k: int, floor: int, floor_dim: int | None, steps: int = 1) -> None:
    repeated = Projection(weight, floor=floor, floor_dim=floor_dim)
    for step in range(steps):
        expected = plain_projection(weight.clone(), k, floor, floor_dim)
        kept = repeated.keep_(k)
        assert torch.equal(weight, expected)
        assert kept == max(k, repeated.n_floor_entries())
        weight += 0.002 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(step))


def test_keeps_exactly_the_largest_by_hand():
    weight = torch.tensor([[3.0, -1.0, 0.5], [-3.0, 2.0, 1.0]])
    assert Projection(weight).keep_(3) == 3
    assert torch.equal(weight, torch.tensor([[3.0, 0.0, 0.0], [-3.0, 2.0, 0.0]]))


def test_floor_keeps_the_weak_row_alive():
    weight = torch.tensor([[0.1, -0.2, 0.3], [5.0, 6.0, 7.0]])
    assert Projection(weight, floor=1, floor_dim=0).keep_(3) == 3
    assert torch.equal(weight, torch.tensor([[0.0, 0.0, 0.3], [0.0, 6.0, 7.0]]))


def test_floor_by_column():
    weight = torch.tensor([[0.1, 5.0], [-0.2, 6.0], [0.3, 7.0]])
    assert Projection(weight, floor=1, floor_dim=1).keep_(2) == 2
    assert torch.equal(weight, torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.3, 7.0]]))


def test_unreachable_k_stops_at_the_floor():
    weight = torch.randn(8, 16)
    assert Projection(weight, floor=4, floor_dim=0).keep_(5) == 32
    assert torch.equal((weight != 0).sum(1), torch.full((8,), 4))


def test_ties_go_to_the_lower_index():
    weight = torch.ones(3, 4)
    Projection(weight).keep_(5)
    assert torch.equal(weight.flatten().nonzero().flatten(), torch.arange(5))


@pytest.mark.parametrize("floor_dim", [None, 0, 1])
@pytest.mark.parametrize("k", [40, 300, 2000, 4000])
def test_warm_start_gives_what_ranking_gives(k: int, floor_dim: int | None):
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(k))
    check(weight, k, 0 if floor_dim is None else 4, floor_dim, steps=6)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    floor=st.integers(0, 5),
    floor_dim=st.sampled_from([None, 0, 1]),
    most_ranked=st.sampled_from([0, 1024]),
    data=st.data(),
)
def test_property_exact_for_any_tensor(rows, columns, floor, floor_dim, most_ranked, data):
    values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -0.25, 3e38, 1e-40, math.inf])
    flat = data.draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    k = data.draw(st.integers(1, rows * columns))
    weight = torch.tensor(flat).view(rows, columns)
    across = 0 if floor_dim is None else weight.shape[1 - floor_dim]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projection, "_MOST_RANKED", most_ranked)
        check(weight, k, min(floor, across), floor_dim, steps=3)


@pytest.mark.parametrize("floor_dim", [None, 0, 1])
def test_without_compiled_kernels_the_same_is_kept(monkeypatch, floor_dim):
    weight = torch.randn(23, 17).round(decimals=1)
    by_torch = weight.clone()
    Projection(weight, floor=2, floor_dim=floor_dim).keep_(60)
    monkeypatch.setattr("wirework.nn.kernels.compiled.is_available", lambda: False)
    Projection(by_torch, floor=2, floor_dim=floor_dim).keep_(60)
    assert torch.equal(by_torch, weight)


def test_a_bias_is_one_row():
    bias = torch.tensor([0.0, -4.0, 2.0, 3.0])
    Projection(bias).keep_(2)
    assert torch.equal(bias, torch.tensor([0.0, -4.0, 0.0, 3.0]))


def test_an_odd_size():
    for floor_dim in (None, 0, 1):
        check(torch.randn(23, 17), 60, 2, floor_dim, steps=3)


@pytest.mark.parametrize("floor_dim", [None, 0, 1])
def test_a_threshold_that_jumps_is_found_again(floor_dim: int | None):
    weight = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
    projection = Projection(weight, floor=2, floor_dim=floor_dim)
    for step, (k, scale) in enumerate([(700, 1), (700, 5), (90, 1), (90, 0.01), (600, 100)]):
        weight.add_(torch.randn(40, 24, generator=torch.Generator().manual_seed(step))).mul_(scale)
        expected = plain_projection(weight.clone(), k, 2, floor_dim)
        projection.keep_(k)
        assert torch.equal(weight, expected)


@pytest.mark.parametrize(("shape", "floor_dim"), [((3, 2560), 0), ((700, 3), 1), ((3, 2555), 0)])
def test_long_neurons_are_counted_past_what_a_byte_holds(shape: tuple[int, int], floor_dim: int):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 9
    weight.select(floor_dim, 1).mul_(1e-3)
    check(weight, weight.numel() * 13 // 20, 4, floor_dim, steps=3)


@pytest.mark.parametrize(("k", "floor"), [(30, 0), (30, 2), (1, 3), (64, 0)])
def test_nan_is_refused_at_any_step(k: int, floor: int):
    weight = torch.randn(8, 8)
    projection = Projection(weight, floor=floor, floor_dim=0)
    projection.keep_(k)
    weight[5, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        projection.keep_(k)


def test_nan_and_bad_k_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        Projection(torch.tensor([1.0, float("nan")])).keep_(1)
    with pytest.raises(ValueError, match="between 1 and the size 2, got 3"):
        Projection(torch.ones(2)).keep_(3)
