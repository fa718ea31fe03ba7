"""The model that predicts a node from the tokens so far, on values whose terms are known."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from wirework.circuits.reading.past_tokens import PastTokens

SITE = "0.attn.resid_delta"
LENGTH = 12


def prompts(seed: int, n_prompts: int = 200) -> Tensor:
    """Return (n_prompts, LENGTH) random tokens from 10 to 14."""
    return torch.randint(10, 15, (n_prompts, LENGTH), generator=torch.manual_seed(seed))


def fitted(tokens: Tensor, values: Tensor, n_padding: int = 0) -> PastTokens:
    """Return the model fitted on one node with values (R, T); the last tokens are padding."""
    in_prompt = torch.ones_like(tokens, dtype=torch.bool)
    in_prompt[:, LENGTH - n_padding :] = False
    recorded: Any = SimpleNamespace(
        batch=SimpleNamespace(tokens=tokens),
        values={SITE: values[..., None]},
        in_prompt=in_prompt,
        averages=lambda _site: values[in_prompt].mean()[None],
    )
    return PastTokens(recorded)


def share_of_eleven(tokens: Tensor) -> Tensor:
    return 3 * (tokens == 11).float().cumsum(1) / torch.arange(1, LENGTH + 1)


def twelve_before(tokens: Tensor) -> Tensor:
    before = torch.zeros(tokens.shape)
    before[:, 1:] = -2.0 * (tokens[:, :-1] == 12)
    return before


def own_token(tokens: Tensor) -> Tensor:
    return (tokens == 13).float()


def fading(tokens: Tensor) -> Tensor:
    return 1 / torch.arange(1, LENGTH + 1).expand(tokens.shape)


def next_token(tokens: Tensor) -> Tensor:
    return (tokens.roll(-1, 1) == 12).float()


@pytest.mark.parametrize("rule", [share_of_eleven, twelve_before, own_token, fading])
def test_what_the_tokens_so_far_give_is_predicted_on_other_prompts(rule):
    seen, others = prompts(0), prompts(1)
    predicted = fitted(seen, rule(seen)).predicted(SITE, others)[..., 0]
    assert torch.allclose(predicted, rule(others), atol=0.05)


def test_all_of_them_together_are_predicted():
    def rule(tokens: Tensor) -> Tensor:
        return share_of_eleven(tokens) + twelve_before(tokens) + own_token(tokens) + fading(tokens)

    seen, others = prompts(0), prompts(1)
    predicted = fitted(seen, rule(seen)).predicted(SITE, others)[..., 0]
    assert torch.allclose(predicted, rule(others), atol=0.1)


def test_what_a_later_token_gives_is_not_predicted():
    """A node cannot follow from what it cannot see: the prediction stays near the mean."""
    seen, others = prompts(0), prompts(1)
    predicted = fitted(seen, next_token(seen)).predicted(SITE, others)[..., 0]
    left = (predicted - next_token(others)).var() / next_token(others).var()
    assert left > 0.9


def test_padding_is_not_fitted():
    seen = prompts(0)
    values = share_of_eleven(seen)
    values[:, -4:] = 1000.0
    predicted = fitted(seen, values, n_padding=4).predicted(SITE, seen)[:, :-4, 0]
    assert torch.allclose(predicted, share_of_eleven(seen)[:, :-4], atol=0.05)


def test_a_token_that_was_not_seen_adds_nothing():
    seen = prompts(0)
    model = fitted(seen, own_token(seen))
    unseen = torch.full((1, LENGTH), 999)
    expected = own_token(seen).mean()
    assert model.predicted(SITE, unseen) == pytest.approx(float(expected), abs=0.05)


@pytest.mark.parametrize(
    ("rule", "source", "highest", "lowest", "later"),
    [
        (share_of_eleven, "share", "<11>", None, None),
        (twelve_before, "before", None, "<12>", None),
        (own_token, "token", "<13>", None, None),
        (fading, "position", None, None, "lower"),
    ],
)
def test_the_strongest_source_and_its_tokens_are_named(rule, source, highest, lowest, later):
    seen = prompts(0)
    tokenizer: Any = SimpleNamespace(token=lambda one: f"<{one}>")
    found = fitted(seen, rule(seen)).strongest(SITE, 0, tokenizer)
    assert (found.source, found.later) == (source, later)
    assert highest is None or found.highest[0] == highest
    assert lowest is None or found.lowest[0] == lowest
