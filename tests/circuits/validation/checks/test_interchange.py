import pytest
import torch
from present import present

from wirework.circuits.validation.checks import MaskedCircuit, interchange
from wirework.circuits.validation.checks.interchange import _donors, _swap_edits, last_values
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs, pair_losses


def test_the_planted_circuit_says_the_answer_and_no_more(
    planted: MaskedCircuit, quotes: TokenizedPairs
) -> None:
    found = interchange(planted, quotes, n_resamples=3)
    own = planted.loss(quotes)
    assert found.circuit == pytest.approx(own)
    assert found.same == pytest.approx(own, abs=0.02)
    assert found.mixed == pytest.approx(own, abs=0.02)
    flipped = float(pair_losses(-planted.logit_diffs(quotes)).mean())
    assert found.other == pytest.approx(flipped, abs=0.2)
    assert present(found.other) > 1
    assert (found.n_same, found.n_other) == (32, 32)


def test_donors_are_drawn_by_seed(some: MaskedCircuit, rows: TokenizedPairs) -> None:
    found = interchange(some, rows, n_resamples=2)
    assert interchange(some, rows, n_resamples=2) == found
    assert interchange(some, rows, n_resamples=2, seed=1).same != found.same


def test_donors_are_other_rows_of_the_wanted_answer() -> None:
    rows = TokenizedPairs(
        torch.zeros(6, 2, dtype=torch.int64),
        torch.ones(6, dtype=torch.int64),
        torch.tensor([[5, 6], [6, 5], [5, 7], [7, 5], [5, 6], [6, 5]]),
    )
    assert [some.tolist() for some in _donors(rows, 0)] == [
        [2, 4], [5], [0, 4], [], [0, 2], [1],
    ]  # fmt: skip
    assert [some.tolist() for some in _donors(rows, 1)] == [
        [1, 5], [0, 2, 4], [3], [0, 2, 4], [1, 5], [0, 2, 4],
    ]  # fmt: skip


def test_values_are_traded_at_the_last_token_alone(
    some: MaskedCircuit, rows: TokenizedPairs
) -> None:
    kept, values = some.kept, last_values(some, rows)
    donors = _donors(rows, 0)
    edits = _swap_edits(kept, values, donors, 1.0, torch.Generator().manual_seed(0))
    changed: dict[str, torch.Tensor] = {}
    for name, edit in edits(rows, torch.arange(len(rows.last_positions))).items():
        changed[name] = edit(torch.full((*rows.tokens.shape, some.space.widths[name]), 9.0))
    for name, channels in kept.items():
        for row, at in enumerate(rows.last_positions.tolist()):
            for j, channel in enumerate(channels.tolist()):
                options = values[name][donors[row], j]
                assert (changed[name][row, at, channel] == options).any()
        untouched = changed[name].clone()
        untouched[
            torch.arange(len(rows.last_positions))[:, None], rows.last_positions[:, None], channels
        ] = 9.0
        assert (untouched == 9).all()


def test_each_node_draws_for_itself(some: MaskedCircuit, rows: TokenizedPairs) -> None:
    kept = {"0.mlp.post_act": torch.arange(20)}
    values = {"0.mlp.post_act": torch.arange(24.0)[:, None].expand(24, 20)}  # who gave it
    edits = _swap_edits(kept, values, _donors(rows, 0), 1.0, torch.Generator().manual_seed(0))
    given = edits(rows, torch.arange(24))["0.mlp.post_act"](
        torch.zeros(24, rows.tokens.shape[1], 24)
    )
    first = given[0, rows.last_positions[0], :20]
    assert len(first.unique()) > 5
    assert not (first == 0).any()  # never its own
    half = _swap_edits(kept, values, _donors(rows, 0), 0.5, torch.Generator().manual_seed(0))
    start = torch.full((24, rows.tokens.shape[1], 24), -1.0)
    left = (
        half(rows, torch.arange(24))["0.mlp.post_act"](start)[torch.arange(24), rows.last_positions]
        < 0
    )
    assert 0.4 < left[:, :20].float().mean() < 0.6


def test_last_values_are_those_of_one_pass(some: MaskedCircuit, rows: TokenizedPairs) -> None:
    whole = some.values(rows)
    for name, value in last_values(some, rows).items():
        expected = whole[name][torch.arange(len(rows.last_positions)), rows.last_positions]
        assert torch.allclose(value, expected, atol=1e-6)


def test_one_pair_has_nobody_to_trade_with(planted: MaskedCircuit, quotes: TokenizedPairs) -> None:
    found = interchange(planted, quotes.select(torch.tensor([0])), n_resamples=1)
    assert (found.circuit, found.same, found.mixed) == (None, None, None)
    assert (found.n_same, found.n_other) == (0, 2)
    assert found.other is not None
    with pytest.raises(InputError, match="at least one draw"):
        interchange(planted, quotes, n_resamples=0)
