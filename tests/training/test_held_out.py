import math

import numpy as np
import pytest
import scipy.stats
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


def moments_of(*parts: torch.Tensor) -> Moments:
    moments = Moments()
    for part in parts:
        assert torch.equal(moments.add(part), part)
    return moments


class TestLogKurtosis:
    def test_it_is_the_log_of_the_mean_over_channels_by_hand(self):
        # Channel 0: +-1, E[x^4] / E[x^2]^2 = 1. Channel 1: mean 2, squares of the distances
        # 4 4 4 36, fourth powers 16 16 16 1296, so 336 / 12^2 = 7/3. The mean is 5/3.
        x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 8.0]])
        assert moments_of(x[None]).log_kurtosis() == pytest.approx(math.log(5 / 3))
        parts = moments_of(x[:1], x[1:2], x[2:])
        assert parts.log_kurtosis() == pytest.approx(math.log(5 / 3))

    def test_it_is_pearsons_as_scipy_has_it(self):
        x = torch.randn(500, 7, generator=torch.Generator().manual_seed(0)).double() ** 3
        x[:, 2] = 5  # no spread: left out
        x[:, 3] += 1e4
        varying = [0, 1, 3, 4, 5, 6]
        expected = scipy.stats.kurtosis(x[:, varying].numpy(), axis=0, fisher=False)
        found = moments_of(x[:100], x[100:])
        assert found.log_kurtosis() == pytest.approx(math.log(expected.mean()), rel=1e-9)
        everything = scipy.stats.kurtosis(x.numpy(), axis=None, fisher=False)
        assert found.kurtosis() == pytest.approx(everything, rel=1e-6)

    def test_channels_of_other_scales_do_not_raise_it_as_they_raise_the_pooled_one(self):
        x = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
        x[:, 1] *= 10
        moments = moments_of(x)
        assert moments.log_kurtosis() == pytest.approx(math.log(3), abs=0.05)
        assert moments.kurtosis() == pytest.approx(5.9, abs=0.3)  # 3 * mean(s^4) / mean(s^2)^2

    def test_without_spread_it_is_the_least_possible_value(self):
        assert Moments().log_kurtosis() == 0.0
        assert moments_of(torch.full((3, 2), 0.1)).log_kurtosis() == 0.0
        assert moments_of(torch.zeros(3, 2)).log_kurtosis() == 0.0


class TestKurtosis:
    def test_by_hand(self):
        # Over pieces: mean 0, variance 1, fourth moment 1: the least there is.
        moments = moments_of(torch.tensor([[1.0, -1.0]]), torch.tensor([[-1.0, 1.0]]))
        assert moments.kurtosis() == pytest.approx(1.0)

    def test_it_does_not_depend_on_scale_or_shift(self):
        x = torch.randn(1_000, 10, generator=torch.Generator().manual_seed(0))
        assert moments_of(x).kurtosis() == pytest.approx(3.0, abs=0.15)
        assert moments_of(3 * x + 2).kurtosis() == pytest.approx(moments_of(x).kurtosis(), rel=1e-5)

    def test_of_a_constant_it_is_zero(self):
        assert Moments().kurtosis() == 0.0
        assert moments_of(torch.ones(4, 1)).kurtosis() == 0.0


def test_the_evaluation_measures_the_final_residual_stream():
    transformer, rows = Transformer(MODEL), batches()
    values = present(evaluate_batches(transformer, rows, CPU))
    residuals = []
    for tokens, _ in rows:
        with transformer.recorded(["final_resid"]) as recorded, torch.no_grad():
            transformer.state(torch.from_numpy(tokens))
        residuals.append(recorded["final_resid"].flatten(0, 1).double())
    of_channels = scipy.stats.kurtosis(torch.cat(residuals).numpy(), axis=0, fisher=False)
    assert values["log_kurtosis"] == pytest.approx(math.log(of_channels.mean()), rel=1e-6)
