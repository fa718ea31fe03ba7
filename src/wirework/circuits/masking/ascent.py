"""Gradient ascent on the task loss over the values of the nodes outside a circuit.

Values stay within a range per node. The check of adversarial ablation and searches with
`--ablation adversarial` use it.
Shapes: N nodes of all sites, P pairs (two prompts each), S tokens in the activation cache, V sets
of values: one for all prompts, or one for each of the 2P prompts.
Source: projected gradient ascent with sign steps, Madry et al. 2018 (arXiv 1706.06083).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wirework.circuits.masking.masked_circuit import Edits, MaskedCircuit, finite, passes
from wirework.circuits.masking.masks import without_weight_gradients
from wirework.circuits.masking.value_range import ValueRange
from wirework.nn import Edit
from wirework.nn.sites import MeanAblation
from wirework.tasks import TokenizedPairs, logit_difference, pair_losses

FIRST_STEP = 0.03
"""Length of the first step, as a share of a node's range. Steps shorten linearly to 0, so that a
value can move by 1.5 times its range in 100 steps."""


def ascend(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    bounds: ValueRange,
    starts: Sequence[Tensor],
    steps: int,
    first_step: float = FIRST_STEP,
) -> Tensor:
    """Return the values of highest task loss that projected gradient ascent meets.

    Each step moves every value by the same share of its node's range, in the direction of the sign
    of its gradient, and back into the range. Values of one prompt have no effect on others, so the
    highest loss of each prompt counts by itself.

    Args:
        masked_circuit: the circuit.
        batch: P tokenised pairs of a task.
        bounds: range of each node.
        starts: (V, N) values each, within the range; one ascent per start.
        steps: steps of each ascent.
        first_step: length of the first step, as a share of a node's range.

    Returns:
        (V, N) values of all nodes; those of kept nodes have no effect.

    Raises:
        InputError: a loss is not finite.
    """
    best = starts[0]
    highest = torch.full((len(best),), -torch.inf, dtype=torch.float64, device=best.device)
    for values in starts:
        for step in range(steps + 1):
            losses, gradient = losses_and_gradient(masked_circuit, batch, values)
            best = torch.where((losses > highest)[:, None], values, best)
            highest = highest.maximum(losses)
            length = first_step * (1 - step / max(1, steps))
            moved = values + length * (bounds.high - bounds.low) * gradient.sign()
            values = moved.clamp(bounds.low, bounds.high)
    return best


def losses_and_gradient(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Return losses with given values of the nodes outside the circuit, and their gradient.

    Args:
        masked_circuit: the circuit.
        batch: P tokenised pairs of a task.
        values: (V, N).

    Returns:
        Mean loss in nats over the prompts of each set of values, (V,) float64, and the gradient of
        the sum over all prompts, (V, N).

    Raises:
        InputError: a loss is not finite.
    """
    transformer, gradient = masked_circuit.transformer, torch.zeros_like(values)
    losses = torch.zeros(
        len(batch.last_positions), dtype=torch.float64, device=masked_circuit.device
    )
    with without_weight_gradients(transformer), torch.enable_grad():
        for prompts, part in passes(batch):
            leaf = values.detach().requires_grad_()
            edits = value_edits(masked_circuit, leaf if len(leaf) == 1 else leaf[prompts])
            with masked_circuit.on(), transformer.edited(edits):
                logits = transformer(part.tokens, part.last_positions)
            of_prompts = pair_losses(logit_difference(logits, part.answers).double())
            losses[prompts] = of_prompts.detach()
            if of_prompts.requires_grad:  # else nothing in the circuit reads the values
                gradient += torch.autograd.grad(of_prompts.sum(), leaf)[0]
    finite(float(losses.sum()), "a task loss under adversarial ablation")
    return losses.view(len(values), -1).mean(1), gradient


def logit_diffs(masked_circuit: MaskedCircuit, batch: TokenizedPairs, values: Tensor) -> Tensor:
    """Return the logit differences with given values of the nodes outside the circuit, (2P,).

    Args:
        masked_circuit: the circuit.
        batch: P tokenised pairs of a task.
        values: (N,) or (V, N).
    """
    by_set = values.view(-1, values.shape[-1])

    def edits(_: TokenizedPairs, prompts: Tensor) -> Edits:
        return value_edits(masked_circuit, by_set if len(by_set) == 1 else by_set[prompts])

    return masked_circuit.logit_diffs(batch, edits)


def value_edits(masked_circuit: MaskedCircuit, values: Tensor) -> Edits:
    """Return the edits that set the nodes outside the circuit to given values, by site.

    Args:
        masked_circuit: the circuit.
        values: (1, N), or (B, N) for the B sequences of a pass; gradients flow to it.
    """
    gates = (masked_circuit.gates.to(masked_circuit.device) != 0).to(values.dtype)
    kept = masked_circuit.space.split(gates)
    return {
        name: MeanAblation(kept[name], of_site[:, None])
        for name, of_site in masked_circuit.space.split(values).items()
        if not kept[name].all()
    }


def first_order_values(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, bounds: ValueRange, values: Tensor
) -> Tensor:
    """Return values in which every node is at the end of its range that raises the loss.

    The ends are those of the gradient at given values, of a change that is the same at all tokens
    of a prompt. They say, to first order, what a kept node would do to the loss if it were removed
    and set by the adversary.

    Args:
        masked_circuit: the circuit.
        batch: P tokenised pairs of a task.
        bounds: range of each node.
        values: (2P, N), where the gradient is taken; a node without gradient stays there.

    Returns:
        (2P, N).
    """
    transformer, gradient = masked_circuit.transformer, torch.zeros_like(values)
    with without_weight_gradients(transformer), torch.enable_grad():
        for prompts, part in passes(batch):
            change = torch.zeros_like(values[prompts]).requires_grad_()
            changes = masked_circuit.space.split(change)
            adding = {name: _adding(of_site[:, None]) for name, of_site in changes.items()}
            edits = value_edits(masked_circuit, values[prompts])
            with masked_circuit.on(), transformer.edited(edits), transformer.edited(adding):
                logits = transformer(part.tokens, part.last_positions)
            loss = pair_losses(logit_difference(logits, part.answers)).sum()
            gradient[prompts] = torch.autograd.grad(loss, change)[0]
    return at_ends(gradient, bounds, values)


def at_ends(gradient: Tensor, bounds: ValueRange, values: Tensor) -> Tensor:
    """Return the end of each node's range that raises the loss; `values` without a gradient."""
    ends = torch.where(gradient > 0, bounds.high, bounds.low)
    return torch.where(gradient == 0, values, ends)


def _adding(change: Tensor) -> Edit:
    return lambda x: x + change
