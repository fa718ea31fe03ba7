"""The same values on a GPU as on the CPU: `pytest -m gpu` on a machine with CUDA.

The cases of the CPU run by default: they show that these tests themselves are right.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_world import QUICK, text_of
from torch import Tensor

import wirework as ww
from wirework import circuits
from wirework.config import ModelConfig, TrainConfig
from wirework.nn import Transformer, abs_top_k
from wirework.nn.kernels.top_k import abs_top_k_reference
from wirework.nn.kernels.winners import k_winners
from wirework.nn.projection import Projection

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return str(request.param)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class TestKernels:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_abs_top_k_keeps_what_the_sort_keeps(self, device: str, dtype: torch.dtype):
        x = normal(50, 300).to(dtype)
        x[7] = 1  # ties
        leaf = x.to(device).requires_grad_()
        kept = abs_top_k(leaf, 75)
        kept.sum().backward()
        assert leaf.grad is not None
        assert torch.equal(kept.detach().cpu(), abs_top_k_reference(x, 75))
        assert (leaf.grad.sum(-1) == 75).all()

    def test_projection_keeps_the_same_weights(self, device: str):
        weight = normal(64, 48)
        expected, weight = weight.clone(), weight.to(device)
        assert Projection(expected, floor=2, floor_dim=0).keep_(300) == 300
        assert Projection(weight, floor=2, floor_dim=0).keep_(300) == 300
        assert torch.equal(weight.cpu(), expected)

    def test_winners_and_their_gradient_are_the_same(self, device: str):
        scores = normal(20, 64)
        results = []
        for place in ("cpu", device):
            leaf = scores.to(place).requires_grad_()
            mask = k_winners(leaf, 8)
            (mask * normal(20, 64).to(place)).sum().backward()
            assert leaf.grad is not None
            results.append((mask.detach().cpu(), leaf.grad.cpu()))
        assert torch.equal(results[0][0], results[1][0])
        torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-5)


def test_logits_and_gradients_are_those_of_the_cpu(device: str):
    config = ModelConfig(
        vocab_size=50, d_model=32, d_head=8, n_layer=2, n_ctx=16, act_fraction=0.25, bigram=True
    )
    tokens, targets = torch.randint(0, 50, (2, 3, 16), generator=torch.Generator().manual_seed(0))
    losses, gradients = [], []
    for place in ("cpu", device):
        transformer = Transformer(config).to(place)
        loss = transformer.loss(tokens.to(place), targets.to(place))
        loss.backward()
        losses.append(loss.detach().cpu())
        gradients.append(
            {name: p.grad.cpu() for name, p in transformer.named_parameters() if p.grad is not None}
        )
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-2, atol=1e-4)


def test_a_weight_sparse_training_ends_at_its_density(
    device: str, settings: Callable[..., TrainConfig]
):
    run = ww.train(settings(device=device, steps=12), progress=False)
    assert run.model.transformer.embed.weight.device.type in (device, "cpu")
    for prunable in run.model.transformer.prunable():
        nonzero = int((prunable.parameter != 0).sum())
        assert nonzero < prunable.parameter.numel()
    assert run.metrics["val_loss"] > 0


def test_pruning_finds_the_circuit_of_the_cpu(device: str, world: Path):
    model, task = ww.load(world / "model"), ww.task(world / "pairs.jsonl")
    expected = ww.NodeCircuit.load(world / "circuit")
    circuit = circuits.prune(
        model.to(device), task, QUICK, data=text_of(world).train, progress=False
    )
    assert {(n.site, n.index) for n in circuit.nodes} == {(n.site, n.index) for n in expected.nodes}
    assert circuit.task_loss == pytest.approx(expected.task_loss, rel=1e-4)
