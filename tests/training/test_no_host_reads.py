"""A training step on a device reads no value: on the meta device each such read is an error.

Tensors of the meta device have shapes and no values. The step takes the same path as on CUDA.
"""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo  # remembers functions of torch when it is loaded: not those patched here

from wirework.config import GatingConfig, ModelConfig, OptimizerConfig, WeightSparsityConfig
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.nn.device_reads import device_reads_deferred
from wirework.training import Prior
from wirework.training.loop import _batch
from wirework.training.optimizer import scale_gradients_
from wirework.training.prior import losses_of
from wirework.training.self_ablation import SelfAblation
from wirework.training.weight_sparsity import WeightSparsity

MODEL = ModelConfig(
    vocab_size=50, d_model=32, d_head=8, n_layer=2, n_ctx=16, act_fraction=0.25, bigram=True
)
TOKENS = torch.zeros(2, 16, dtype=torch.int64, device="meta")


@pytest.fixture(autouse=True)
def _autocast_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no autocast."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())


def priors_of(transformer: Transformer, gated: bool) -> list[Prior]:
    sparsity = WeightSparsityConfig(l0_fraction=0.3, anneal_start=0, anneal_end=0.5)
    priors: list[Prior] = [WeightSparsity(sparsity, steps=10)]
    if gated:
        priors.append(SelfAblation(GatingConfig(k_attention=4, k_neurons=4), seed=0))
    for prior in priors:
        prior.wrap_model(transformer)
    return priors


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"sinks": False, "positions": "added", "norm": "layer", "act_fraction": None}],
)
def test_a_step_reads_nothing(changes: dict[str, Any], gated: bool):
    transformer = Transformer(ModelConfig.of({**MODEL.model_dump(), **changes})).to("meta")
    priors = priors_of(transformer, gated)
    parameters = [*transformer.parameters(), *(p for x in priors for p in x.parameters().values())]
    with device_reads_deferred() as nan_scalars:
        losses = losses_of(transformer, priors, TOKENS, TOKENS)
    losses["total"].backward()
    rms = scale_gradients_(parameters, OptimizerConfig().grad_scale)
    numbers = [prior.after_step(7) for prior in priors]
    assert rms.device.type == "meta"
    assert all(p.grad is not None for p in parameters if p.requires_grad)
    assert 0 < numbers[0]["l0_fraction"] < 1
    sites = 8 * MODEL.n_layer * (1 + gated)
    assert len(nan_scalars) == (0 if "act_fraction" in changes else sites)


def test_outside_a_training_step_tokens_are_checked():
    with pytest.raises(RuntimeError, match="meta"):
        Transformer(MODEL).to("meta").loss(TOKENS, TOKENS)


class TestBatch:
    @staticmethod
    def job(tokens: int, targets: int) -> Any:
        parts = tuple(np.full((2, 16), value, np.int64) for value in (tokens, targets))
        return SimpleNamespace(
            device=torch.device("meta"),
            batches=SimpleNamespace(at=lambda step: parts),
            transformer=Transformer(MODEL),
        )

    @pytest.mark.parametrize(("bad", "kind"), [((50, 0), "token 50"), ((0, -1), "target -1")])
    def test_is_checked_before_it_is_copied(self, bad, kind):
        with pytest.raises(InputError, match=f"{kind} is outside the vocabulary of 50"):
            _batch(self.job(*bad), 0)

    def test_is_on_the_device(self):
        assert [part.device.type for part in _batch(self.job(49, 0), 0)] == ["meta", "meta"]
