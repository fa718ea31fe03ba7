import math

import numpy as np
import pytest
import torch
from present import present

from wirework.config import ModelConfig
from wirework.nn import Transformer
from wirework.training.batch_evaluation import Moments, evaluate_batches

CPU = torch.device("cpu")
MODEL = ModelConfig(vocab_size=16, n_ctx=8, n_layer=2, d_model=16, d_head=8)


def batches(n: int = 2):
    generator = np.random.default_rng(0)
    return [tuple(generator.integers(0, 16, (2, 3, 8))) for _ in range(n)]


class TestEvaluateBatches:
    def test_loss_of_an_untrained_model_is_near_that_of_guessing(self):
        values = present(evaluate_batches(Transformer(MODEL), batches(), CPU))
        assert values["val_loss"] == pytest.approx(math.log(16), abs=0.05)

    def test_loss_is_the_mean_over_batches(self):
        transformer = Transformer(MODEL)
        whole = present(evaluate_batches(transformer, batches(3), CPU))["val_loss"]
        single = [
            present(evaluate_batches(transformer, [batch], CPU))["val_loss"] for batch in batches(3)
        ]
        assert whole == pytest.approx(sum(single) / 3, rel=1e-6)

    def test_a_neuron_that_never_fires_is_dead(self):
        transformer = Transformer(MODEL.model_copy(update={"act_fraction": None}))
        with torch.no_grad():
            up = transformer.blocks[1].mlp.up
            up.weight[[3, 5]] = 0.0
            up.bias[[3, 5]] = 0.0  # gelu(0) = 0
        values = present(evaluate_batches(transformer, batches(), CPU))
        assert values["dead_neurons_by_layer"] == [0, 2]
        assert values["dead_neurons"] == 2

    def test_evaluation_leaves_no_edit_behind_and_no_gradient(self):
        transformer = Transformer(MODEL)
        evaluate_batches(transformer, batches(), CPU)
        assert all(site.edits == () for site in transformer.sites.values())
        assert all(p.grad is None for p in transformer.parameters())

    def test_it_is_given_up_between_batches(self):
        asked = iter([False, True])
        transformer = Transformer(MODEL)
        assert evaluate_batches(transformer, batches(2), CPU, lambda: next(asked)) is None
        assert all(site.edits == () for site in transformer.sites.values())


class TestMoments:
    def test_kurtosis_by_hand(self):
        moments = Moments()
        # Over pieces: mean 0, variance 1, fourth moment 1: the least there is.
        moments.add(torch.tensor([[1.0, -1.0]]))
        moments.add(torch.tensor([[-1.0], [1.0]]))
        assert moments.kurtosis() == pytest.approx(1.0)

    def test_kurtosis_does_not_depend_on_scale_or_shift(self):
        x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
        moments, moved = Moments(), Moments()
        moments.add(x)
        moved.add(3 * x + 2)
        assert moments.kurtosis() == pytest.approx(3.0, abs=0.15)
        assert moved.kurtosis() == pytest.approx(moments.kurtosis(), rel=1e-5)

    def test_kurtosis_of_a_constant_is_zero(self):
        moments = Moments()
        assert moments.kurtosis() == 0.0
        moments.add(torch.ones(4))
        assert moments.kurtosis() == 0.0
