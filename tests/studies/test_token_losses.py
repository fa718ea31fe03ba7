"""Losses token by token, and what is kept of them."""

import numpy as np
import pytest
import torch

from wirework.config import ModelConfig
from wirework.model import Model
from wirework.nn import Transformer
from wirework.studies.token_losses import joint, token_losses


def test_their_mean_is_the_model_s_loss():
    config = ModelConfig(vocab_size=50, d_model=16, n_layer=1, n_ctx=8)
    model = Model(Transformer(config, seed=1))
    generator = np.random.default_rng(0)
    batches = [tuple(generator.integers(0, 50, (2, 3, 8))) for _ in range(2)]
    found = token_losses(model, batches)
    assert found.shape == (2 * 3 * 8,)
    with torch.no_grad():
        means = [float(model.transformer.loss(*map(torch.from_numpy, batch))) for batch in batches]
    assert found.mean() == pytest.approx(np.mean(means), rel=1e-5)


def test_the_histogram_counts_every_token_once():
    first = np.array([0.0, 1.0, 2.0, 4.0])
    found = joint(first, 2 * first)
    assert found["correlation"] == pytest.approx(1)
    assert found["means"] == [1.75, 3.5]
    assert np.sum(found["counts"]) == found["n_tokens"] == 4
    assert found["counts"][0][0] == 1
    assert found["counts"][20][-1] == 1  # 4 of about 8, and 8, which is above the top
    assert joint(first, -first + 5)["correlation"] == pytest.approx(-1)
    assert joint(first, np.ones(4))["correlation"] is None
