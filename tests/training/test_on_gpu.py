"""The same results on a GPU as on the CPU: `pytest -m gpu` on a machine with CUDA.

The cases of the CPU run by default: they show that these tests themselves are right. Kernels, and
logits and gradients of a model, are compared by `tests/test_gpu_benchmark.py`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_world import QUICK, text_of

import wirework as ww
from wirework import circuits
from wirework.config import TrainConfig

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return str(request.param)


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
