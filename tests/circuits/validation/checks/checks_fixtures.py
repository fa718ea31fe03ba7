import pytest
import torch
from hand_wired.quote_closer import NODES

from wirework.circuits import Ablation, node_means
from wirework.circuits.validation.checks import MaskedCircuit
from wirework.model import Model
from wirework.tasks import Task, TokenizedPairs


def gates_of(ablation: Ablation, nodes: list[tuple[str, int]]) -> torch.Tensor:
    parts: dict[str, list[int]] = {}
    for site, channel in nodes:
        parts.setdefault(site, []).append(channel)
    return ablation.space.gates(parts)


@pytest.fixture(scope="session")
def quotes(wired: Model, task: Task) -> TokenizedPairs:
    """Sixteen pairs that the hand-wired model can do."""
    return task.take(task.pairs[:16]).encode(wired.tokenizer, 80)


@pytest.fixture(scope="session")
def wired_ablation(wired: Model, task: Task) -> Ablation:
    tokens = task.encode(wired.tokenizer, 80).tokens
    return Ablation.of(wired.transformer, node_means(wired.transformer, [tokens]))


@pytest.fixture(scope="session")
def planted_gates(wired_ablation: Ablation) -> torch.Tensor:
    return gates_of(wired_ablation, NODES)


@pytest.fixture(scope="session")
def idle_gates(wired_ablation: Ablation) -> torch.Tensor:
    """The planted circuit and a value channel that no weight reaches."""
    return gates_of(wired_ablation, [*NODES, ("1.attn.v", 7)])


@pytest.fixture(scope="session")
def planted(wired_ablation: Ablation, planted_gates: torch.Tensor) -> MaskedCircuit:
    return MaskedCircuit.of(wired_ablation, planted_gates)


@pytest.fixture(scope="session")
def some_gates(ablation: Ablation) -> torch.Tensor:
    """A third of the random model's nodes."""
    generator = torch.Generator().manual_seed(7)
    return (torch.rand(ablation.space.size, generator=generator) < 0.33).float()


@pytest.fixture(scope="session")
def some(ablation: Ablation, some_gates: torch.Tensor) -> MaskedCircuit:
    return MaskedCircuit.of(ablation, some_gates)


@pytest.fixture(scope="session")
def everything(ablation: Ablation) -> MaskedCircuit:
    return MaskedCircuit.of(ablation, torch.ones(ablation.space.size))
