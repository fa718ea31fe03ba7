"""Against dense matrices that are zero elsewhere."""

import pytest
import torch
from torch import Tensor

from wirework.nn.kernels.sparse_pattern import SparsePattern

SHAPE = (7, 5)


@pytest.fixture
def mask() -> Tensor:
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) < 0.4
    mask[2], mask[:, 3] = False, False  # a token without units, a unit without tokens
    return mask


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr("wirework.nn.kernels.compiled.is_available", lambda: False)


@pytest.mark.parametrize("channels", [3, 16, 48])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_and_sums(mask: Tensor, dtype: torch.dtype, channels: int) -> None:
    tokens, units = mask.nonzero().unbind(-1)
    places = SparsePattern(tokens, units, SHAPE)
    x, weight = (torch.randn(n, channels, dtype=dtype) for n in SHAPE)
    values = torch.randn(int(mask.sum()), dtype=dtype)
    dense = torch.zeros(SHAPE, dtype=dtype).masked_scatter(mask, values)
    assert torch.equal(places.spread(values), dense)
    for found, wanted in (
        (places.products(x, weight), (x @ weight.t())[mask]),
        (places.sum_rows_by_token(weight, values), dense @ weight),
        (places.sum_rows_by_unit(x, values), dense.t() @ x),
        (places.sum_by_token(values), dense.sum(1)),
        (places.sum_by_unit(values), dense.sum(0)),
    ):
        torch.testing.assert_close(found, wanted)


def test_many_sums_are_of_sorted_entries(mask: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirework.nn.kernels.sparse_pattern._CACHED", 5 * 16 - 1)
    test_products_and_sums(mask, torch.float32, 16)


def test_threads_do_not_change_sums(mask: Tensor) -> None:
    tokens, units = mask.nonzero().unbind(-1)
    places, x, values = (
        SparsePattern(tokens, units, SHAPE),
        torch.randn(7, 80),
        torch.randn(len(units)),
    )
    whole, before = places.sum_rows_by_unit(x, values), torch.get_num_threads()
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            assert torch.equal(places.sum_rows_by_unit(x, values), whole)
    finally:
        torch.set_num_threads(before)


def test_values_of_tokens_and_units(mask: Tensor) -> None:
    tokens, units = mask.nonzero().unbind(-1)
    places = SparsePattern(tokens, units, SHAPE)
    by_token, by_unit = torch.arange(7.0), torch.arange(5.0)
    assert torch.equal(places.of_tokens(by_token), by_token[:, None].expand(SHAPE)[mask])
    assert torch.equal(places.of_units(by_unit), by_unit.expand(SHAPE)[mask])


def test_what_is_spread_gets_its_gradient_back(mask: Tensor) -> None:
    tokens, units = mask.nonzero().unbind(-1)
    places = SparsePattern(tokens, units, SHAPE)
    values = torch.randn(int(mask.sum()), requires_grad=True)
    grad = torch.randn(SHAPE)
    (found,) = torch.autograd.grad(places.spread(values), values, grad)
    assert torch.equal(found, grad[mask])
