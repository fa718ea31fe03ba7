import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wirework.circuits import auroc
from wirework.errors import InputError


def test_by_hand() -> None:
    truth = torch.tensor([True, False, True, False])
    assert auroc(torch.tensor([3.0, 1.0, 2.0, 0.0]), truth) == 1.0
    assert auroc(torch.tensor([0.0, 1.0, 2.0, 3.0]), truth) == 0.25
    assert auroc(torch.zeros(4), truth) == 0.5


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30).filter(
        lambda entries: len({true for _, true in entries}) == 2
    )
)
def test_it_is_the_share_of_pairs_in_order(entries: list[tuple[int, bool]]) -> None:
    true = [score for score, is_true in entries if is_true]
    false = [score for score, is_true in entries if not is_true]
    wins = sum((a > b) + 0.5 * (a == b) for a in true for b in false)
    score = torch.tensor([float(score) for score, _ in entries])
    truth = torch.tensor([is_true for _, is_true in entries])
    assert auroc(score, truth) == pytest.approx(wins / (len(true) * len(false)))


def test_what_has_no_auroc_is_refused() -> None:
    some = torch.tensor([True, False])
    with pytest.raises(InputError, match=r"scores \(3,\) and truth \(2,\) do not pair"):
        auroc(torch.zeros(3), some)
    with pytest.raises(InputError, match="needs true and false entries, got 2 and 0"):
        auroc(torch.zeros(2), torch.tensor([True, True]))
    with pytest.raises(InputError, match="not a number"):
        auroc(torch.tensor([0.0, torch.nan]), some)
