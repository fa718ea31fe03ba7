"""The chosen channels of AbsTopK, against the whole selection."""

import pytest
import torch

from wirework.nn.kernels.top_k import abs_top_k_reference
from wirework.nn.kernels.top_members import top_members

CHOSEN = torch.tensor([0, 2, 31])


@pytest.fixture(params=[torch.float32, torch.float64])
def x(request: pytest.FixtureRequest) -> torch.Tensor:
    """Small integers, so that rows have many ties; the last row is 0."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(-3, 4, (40, 5, 32), generator=generator).to(request.param)
    whole[-1] = 0
    return whole


def test_by_hand() -> None:
    x = torch.tensor([[3.0, -2.0, 2.0, 1.0, *[0.0] * 28], [0.0, 2.0, -2.0, 5.0, *[1.0] * 28]])
    found = top_members(x, 2, torch.tensor([1, 2, 3]))
    assert found.tolist() == [[-2, 0, 0], [2, 0, 5]]


@pytest.mark.parametrize("k", [1, 2, 8, 31, 32])
def test_ties_go_to_the_lower_index(x: torch.Tensor, k: int) -> None:
    assert torch.equal(top_members(x, k, CHOSEN), abs_top_k_reference(x, k)[..., CHOSEN])


@pytest.mark.parametrize("n_chosen", [4, 5])
def test_few_and_many_chosen_are_the_same_entries(n_chosen: int) -> None:
    x = torch.randn(60, 32, generator=torch.Generator().manual_seed(1))
    chosen = torch.arange(n_chosen) * 6
    assert torch.equal(top_members(x, 9, chosen), abs_top_k_reference(x, 9)[:, chosen])


def test_the_gradient_passes_at_kept_entries_also_where_they_are_0(x: torch.Tensor) -> None:
    weights = torch.arange(1.0, 4.0, dtype=x.dtype)
    for k in (1, 2, 31):
        ours, theirs = (x.clone().requires_grad_() for _ in range(2))
        (top_members(ours, k, CHOSEN) * weights).sum().backward()
        (abs_top_k_reference(theirs, k)[..., CHOSEN] * weights).sum().backward()
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("place", [0, 7])
def test_a_nan_anywhere_in_a_row_is_refused(x: torch.Tensor, place: int) -> None:
    x[3, 1, place] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        top_members(x, 4, CHOSEN)
