"""Gradient scores of nodes: estimated change of the task loss when a node is mean-ablated.

Pure functions of a model, its means and a batch; `discretise` turns scores into a circuit.
With a gate g per node, g x + (1 - g) mean, minus the gradient of the loss by g is (mean -
activation) times gradient, summed over tokens: one backward pass scores all nodes.
Shapes: N nodes of all sites, P pairs (two prompts each).
Source: Gao et al. 2025, Fig. 31 (baseline).
"""

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.masks import without_weight_gradients
from wirework.errors import InputError
from wirework.renamed_names import old_arguments
from wirework.tasks import TokenizedPairs


@old_arguments(rows="batch")
def attribution(ablation: Ablation, batch: TokenizedPairs, *, signed: bool = False) -> Tensor:
    """Return the first-order change of the task loss when each node alone is mean-ablated.

    Args:
        ablation: the model and the means of its nodes.
        batch: pairs on which to score.
        signed: give nodes whose ablation lowers the loss a negative score, so that they rank last.
            That may save a few nodes, but a node that hurts in the complete model can be needed in
            a circuit; then almost no circuit smaller than the model reaches the target.

    Returns:
        (N,) float32, nats: (mean - activation) x gradient, summed over tokens, mean over
        prompts; its magnitude unless `signed`.

    Source: Gao et al. 2025, Fig. 31; AtP of Nanda 2022 with means for the other prompt's values.
    """
    with without_weight_gradients(ablation.transformer):
        return _scores(_loss_increase(ablation, batch, 1.0), signed)


@old_arguments(rows="batch")
def integrated_gradients(
    ablation: Ablation, batch: TokenizedPairs, *, steps: int = 16, signed: bool = False
) -> Tensor:
    """Return each node's share of the loss increase from the model to all nodes mean-ablated.

    The gradient is averaged along the straight path of all gates together from 0 (every node at
    its mean) to 1 (the model), at the midpoints of `steps` equal intervals. Signed scores sum to
    the loss with all nodes ablated minus the model's loss, up to the error of the midpoint rule.
    This does not hold with AbsTopK: its selection and thus the loss jump along the path, and
    gradients do not include jumps.

    Args:
        ablation: the model and the means of its nodes.
        batch: pairs on which to score.
        steps: number of gradients; the cost is `steps` times that of `attribution`.
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
    """Return random scores: the baseline that any finder must beat.

    Args:
        size: N, number of nodes.
        seed: seed of the order.

    Returns:
        (N,) float32 in [0, 1), on the CPU.
    """
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)) / size


def _scores(change: Tensor, signed: bool) -> Tensor:
    return change.float() if signed else change.abs().float()


def _loss_increase(ablation: Ablation, batch: TokenizedPairs, gate: float) -> Tensor:
    """Return the first-order loss increase per node, (N,), with all gates at one value."""
    weight = ablation.transformer.embed.weight
    gates = torch.full((ablation.space.size,), gate, device=weight.device, dtype=weight.dtype)
    return ablation.loss_increase(gates, batch) / len(batch.last_positions)
