"""Scores of nodes by gradient: how the loss would change if a node were frozen at its mean.

Pure functions of a model, its means and a task's rows; `discretise` turns a score into a circuit.
With every node's gate g between activation and mean, g x + (1 - g) mean, minus the gradient of the
loss by g is (mean - activation) times gradient, summed over tokens: one backward pass scores all.
Shapes: N nodes of all sites, P pairs (two rows each). Source: Gao et al. 2025, Fig. 31 (baseline).
"""

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation, without_weight_gradients
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs


def attribution(ablation: Ablation, batch: TokenizedPairs, *, signed: bool = False) -> Tensor:
    """Return the first-order change of the task loss when each node alone is mean-ablated.

    Args:
        ablation: the model and the means of its nodes.
        batch: the task's pairs to score on.
        signed: give a node whose removal would lower the loss a score below zero, which ranks it
            last. That may save a few nodes, but a node that is in the way while all others stay
            can be needed in a circuit: then hardly any circuit short of the model reaches a target.

    Returns:
        (N,) float32, nats: (mean - activation) x gradient, summed over tokens, mean over rows; its
        magnitude unless `signed`.

    Source: Gao et al. 2025, Fig. 31; AtP of Nanda 2022 with means for the other prompt's values.
    """
    with without_weight_gradients(ablation.transformer):
        return _scores(_loss_increase(ablation, batch, 1.0), signed)


def integrated_gradients(
    ablation: Ablation, batch: TokenizedPairs, *, steps: int = 16, signed: bool = False
) -> Tensor:
    """Return each node's share of the rise in loss from the whole model to one of means alone.

    The gradient is averaged along the straight path of all gates together from 0 (every node at
    its mean) to 1 (the model), at the middles of `steps` equal parts. Signed scores then add up to
    the loss with all nodes ablated minus the model's, up to the error of the midpoint rule. With
    AbsTopK that is no longer so: which channels it keeps jumps along the path, the loss jumps with
    it, and no gradient sees a jump.

    Args:
        ablation: the model and the means of its nodes.
        batch: the task's pairs to score on.
        steps: gradients taken; the cost is that of `attribution` times this.
        signed: as in `attribution`.

    Returns:
        (N,) float32, nats; magnitudes unless `signed`.

    Raises:
        InputError: `steps` below 1.

    Source: Sundararajan et al. 2017 (arXiv 1703.01365), eq. 1 and 3, on gates.
    """
    if steps < 1:
        raise InputError(f"integrated gradients take at least 1 step, got {steps}")
    with without_weight_gradients(ablation.transformer):
        parts = [_loss_increase(ablation, batch, (step + 0.5) / steps) for step in range(steps)]
    return _scores(torch.stack(parts).mean(0), signed)


def random_order(size: int, seed: int) -> Tensor:
    """Return a score that puts the nodes in random order: what any finder must beat.

    Args:
        size: N, how many nodes.
        seed: of the order.

    Returns:
        (N,) float32 in [0, 1), on the CPU.
    """
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)) / size


def _scores(change: Tensor, signed: bool) -> Tensor:
    return change.float() if signed else change.abs().float()


def _loss_increase(ablation: Ablation, batch: TokenizedPairs, gate: float) -> Tensor:
    """Return minus the gradient of the mean loss by each gate, all gates at one value; (N,)."""
    weight = ablation.transformer.embed.weight
    gates = torch.full((ablation.space.size,), gate, device=weight.device, dtype=weight.dtype)
    return ablation.loss_increase(gates, batch) / len(batch.last_positions)
