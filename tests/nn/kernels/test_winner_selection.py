"""Selected winners against a sort of each row, with and without compiled kernels."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from wirework.nn.kernels.winner_selection import WinnerSelection, select_winners

TEMPERATURE, EPSILON = 0.1, 1e-12
WIDTHS = (2, 15, 40, 128)


@pytest.fixture(params=["compiled", "numpy"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numpy":
        without_numba(monkeypatch)


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirework.nn.kernels.compiled.is_available", lambda: False)


def drawn(width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return scores whose location and spread differ from row to row."""
    generator = torch.Generator().manual_seed(width)
    normal, where = (torch.randn(60, n, generator=generator, dtype=dtype) for n in (width, 2))
    return normal * (3 * where[:, :1]).exp() + 10 * where[:, 1:]


def rows_of(selection: WinnerSelection) -> list[list[tuple[int, float, bool]]]:
    """Return unit, score and whether it wins of each row's entries."""
    rows: list[list[tuple[int, float, bool]]] = [[] for _ in range(selection.pattern.shape[0])]
    pattern = selection.pattern
    for token, *entry in zip(
        pattern.tokens.tolist(),
        pattern.units.tolist(),
        selection.scores.tolist(),
        selection.is_winner.tolist(),
        strict=True,
    ):
        rows[token].append(tuple(entry))
    return rows


def ks(width: int) -> Iterator[int]:
    yield from sorted({1, min(8, width - 1), width // 2, width - 1})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", WIDTHS)
def test_entries_are_those_of_a_sort(width: int, dtype: torch.dtype) -> None:
    scores = drawn(width, dtype)
    reach = np.float64(-1.2 * np.log(torch.finfo(dtype).eps))
    for k in ks(width):
        selection = select_winners(scores, k, TEMPERATURE, EPSILON)
        listed = torch.stack([selection.pattern.units, selection.pattern.tokens])
        for row, (entries, borders) in enumerate(
            zip(rows_of(selection), selection.border, strict=True)
        ):
            values, order = scores[row].sort(descending=True)
            lowest = values[k] - reach * (TEMPERATURE * (values[k - 1] - values[k]) + EPSILON)
            wanted = [
                (unit, score, rank < k)
                for rank, (unit, score) in enumerate(
                    zip(order.tolist(), values.tolist(), strict=True)
                )
                if score >= lowest
            ]
            assert entries == sorted(wanted)
            assert listed[:, borders].tolist() == [order[k - 1 : k + 1].tolist(), [row, row]]


@pytest.mark.parametrize("k", [1, 3, 8])
def test_of_equal_scores_those_of_lower_index_win(k: int) -> None:
    scores = torch.randint(-3, 4, (200, 20), generator=torch.Generator().manual_seed(0)).float()
    order = scores.sort(descending=True, stable=True).indices
    for entries, first in zip(rows_of(select_winners(scores, k)), order, strict=True):
        assert [unit for unit, _, wins in entries if wins] == sorted(first[:k].tolist())


def test_scores_of_ranked_rows_are_listed_too() -> None:
    scores = torch.tensor([[2.0, 5.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0]])
    wanted = [
        [(0, 2.0, True), (1, 5.0, True), (2, 2.0, False), (3, 1.0, False)],
        [(0, 4.0, True), (1, 3.0, True), (2, 2.0, False)],
    ]
    assert rows_of(select_winners(scores, 2)) == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_select_the_same(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = drawn(128, dtype)
    scores[1, 3:9] = torch.nan
    scores[2, 4:40] = torch.inf
    scores[3] = -torch.inf
    scores[4] = 7
    scores[5] = 1e-30 * scores[6]
    scores[7] *= 0.99 * torch.finfo(dtype).max / scores[7].abs().max()
    scores[8, 2] = torch.inf
    order = scores.argsort(descending=True)
    scores[9, order[9, 6]] = scores[9, order[9, 7]]  # two winners at the border
    scores[10, order[10, 9]] = scores[10, order[10, 8]]  # two losers
    ours = select_winners(scores, 8, TEMPERATURE, EPSILON)
    without_numba(monkeypatch)
    theirs = select_winners(scores, 8, TEMPERATURE, EPSILON)
    for name in ("tokens", "units"):
        assert torch.equal(getattr(ours.pattern, name), getattr(theirs.pattern, name))
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_rows_with_gaps_between_them() -> None:
    scores = drawn(40)
    whole, part = scores.repeat(1, 2)[:, :40], scores.t().contiguous().t()
    for other in (whole, part):
        assert rows_of(select_winners(other, 3)) == rows_of(select_winners(scores, 3))


def test_pieces_and_threads_do_not_change_the_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = drawn(128)
    whole = rows_of(select_winners(scores, 8, TEMPERATURE, EPSILON))
    monkeypatch.setattr("wirework.nn.kernels.pieces._PIECE", 3 * 128)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert rows_of(select_winners(scores, 8, TEMPERATURE, EPSILON)) == whole
    finally:
        torch.set_num_threads(before)
