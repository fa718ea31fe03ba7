"""Driving tokens against a plain loop over the text."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from present import present

from wirework.circuits.reading.driving_tokens import driving_tokens
from wirework.model import Model


@pytest.fixture
def windows() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 12, (4, 20), generator=generator) for _ in range(3)]


def test_means_by_token_and_the_share_they_explain(random_model: Model, windows):
    site, channels = "0.mlp.post_act", torch.tensor([1, 5])
    tokenizer = present(random_model.tokenizer)
    got = driving_tokens(random_model.transformer, windows, {site: channels}, tokenizer)[site]
    for column, one in zip(channels.tolist(), got, strict=True):
        by_token = defaultdict(list)
        for tokens in windows:
            with random_model.transformer.recorded([site]) as values, torch.no_grad():
                random_model.transformer.state(tokens)
            flat = values[site][..., column].flatten().tolist()
            for token, value in zip(tokens.flatten().tolist(), flat, strict=True):
                by_token[token].append(value)
        means = {tokenizer.token(token): np.mean(values) for token, values in by_token.items()}
        assert one.n_tokens == 240
        highest = sorted(means.values(), reverse=True)[: len(one.highest)]
        assert [t.value for t in one.highest] == pytest.approx(highest, abs=1e-6)
        assert [t.value for t in one.lowest] == pytest.approx(
            sorted(means.values())[: len(one.lowest)], abs=1e-6
        )
        everything = np.concatenate([np.array(values) for values in by_token.values()])
        within = sum(((np.array(v) - np.mean(v)) ** 2).sum() for v in by_token.values())
        total = ((everything - everything.mean()) ** 2).sum()
        assert one.explained == pytest.approx(1 - within / total, abs=1e-6)


def test_the_first_layer_reads_nothing_but_the_token(random_model: Model, windows):
    """Without positions in the channel, act_in of layer 0 is a function of the token."""
    tokenizer = present(random_model.tokenizer)
    (one,) = driving_tokens(
        random_model.transformer, windows, {"0.attn.act_in": torch.tensor([0])}, tokenizer
    )["0.attn.act_in"]
    assert one.explained == pytest.approx(1.0, abs=0.05)


def test_a_constant_channel_has_nothing_to_explain(random_model: Model):
    tokens = torch.full((2, 6), 5)
    tokenizer = present(random_model.tokenizer)
    (one,) = driving_tokens(
        random_model.transformer, [tokens[:, :1]], {"0.attn.act_in": torch.tensor([0])}, tokenizer
    )["0.attn.act_in"]
    assert one.explained == 0.0
    assert one.highest == ()  # fewer than five places
