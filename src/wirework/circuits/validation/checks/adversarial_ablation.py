"""Adversarial ablation: nodes outside the circuit take the values that raise the task loss most.

Gradient ascent looks for these values within a range per node, from its lowest to its highest
activation in the activation cache. Ranges are those of single nodes, so values found by the ascent
need not occur together in any text: a circuit that fails may still hold under values of real text.
Removed edges between two kept nodes stay at the mean of their source, as in all checks.
Shapes: N nodes of all sites, P pairs (two prompts each), S tokens in the activation cache, V sets
of values: one for all prompts, or one for each of the 2P prompts.
Source: Gao et al. 2025, App. E (values other than the mean); projected gradient ascent with sign
steps is that of Madry et al. 2018 (arXiv 1706.06083).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import without_weight_gradients
from wirework.circuits.masking.activation_cache import ActivationCache
from wirework.circuits.masking.nodes import NodeSpace
from wirework.circuits.validation.checks.masked_circuit import (
    Edits,
    MaskedCircuit,
    finite,
    passes,
)
from wirework.circuits.validation.checks.resample import constant_draws
from wirework.errors import InputError
from wirework.nn.sites import MeanAblation
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs, logit_difference, pair_losses

_FIRST_STEP = 0.03
"""Length of the first step, as a share of a node's range. Steps shorten linearly to 0, so that a
value can move by 1.5 times its range in 100 steps."""


SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of the range around the mean for which survival is tried, in this order."""


@dataclass(frozen=True, repr=False)
class AdversarialAblation(Report):
    """Task losses in nats of the circuit, by the values of the nodes outside it."""

    means: float
    """Their means."""
    worst_draw: float
    """One random token of training text for all positions and prompts; highest loss over draws."""
    per_node: float
    """After the ascent, one value per node, the same for all prompts and positions."""
    per_prompt: float
    """After the ascent, one value per node and prompt, the same for all positions of the prompt."""
    limit: float
    """Highest loss at which the circuit survives."""
    survives: bool
    """Whether all of these losses are within the limit; `per_prompt` is the highest."""
    survived_share: float
    """Largest of `SHARES` that the circuit survives, one value per node, if each node may leave its
    mean by that share of the way to either end of its range; 0 if it does not survive the first."""
    steps: int
    """Steps of each ascent."""
    n_draws: int
    """Number of draws."""
    n_pairs: int
    """Number of pairs."""


class ValueRange(NamedTuple):
    """Range of the values that each node may take."""

    low: Tensor
    """(N,)."""
    high: Tensor
    """(N,)."""


def adversarial_ablation(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    cache: ActivationCache,
    means: Mapping[str, Tensor],
    limit: float,
    *,
    steps: int = 100,
    n_draws: int = 16,
    seed: int = 0,
) -> AdversarialAblation:
    """Look for values of the nodes outside the circuit that raise its task loss.

    One ascent starts at the means and one at the worst draw. With values per prompt, the second
    starts for each prompt at the worst of all draws and of the values found for all prompts.
    Starts count, so no loss is below that of a start.

    Args:
        masked_circuit: the circuit; its own ablation values are overwritten.
        batch: P tokenised pairs of a task.
        cache: activation cache, from `activation_cache`.
        means: site to (width,) mean activation, for all node sites.
        limit: highest task loss in nats at which the circuit survives.
        steps: steps of each ascent; 0 compares the starts alone.
        n_draws: number of draws.
        seed: seed of the draws, which are those of `constant_resample_ablation`.

    Raises:
        InputError: `n_draws` below 1, `steps` below 0, a cache of another model, or a loss that is
            not finite.

    Source: Gao et al. 2025, App. E; Madry et al. 2018.
    """
    if steps < 0:
        raise InputError(f"an ascent needs 0 steps or more, got {steps}")
    draws = constant_draws(masked_circuit, cache, n_draws, seed)
    at_means = masked_circuit.space.join(means)[None]
    bounds = value_range(masked_circuit.space, cache, means)
    starts = torch.cat([at_means, draws])
    by_start = torch.stack([logit_diffs(masked_circuit, batch, values) for values in starts])
    losses = [masked_circuit.loss_of(of_start) for of_start in by_start]

    worst_draw = max(range(1, len(losses)), key=losses.__getitem__)
    per_node = ascend(masked_circuit, batch, bounds, [at_means, starts[worst_draw][None]], steps)
    by_values = torch.cat([by_start, logit_diffs(masked_circuit, batch, per_node)[None]])
    node_loss = max(*losses, masked_circuit.loss_of(by_values[-1]))

    prompt_starts = [
        at_means.expand(by_values.shape[1], -1),
        torch.cat([starts, per_node])[by_values.argmin(0)],
    ]
    per_prompt = ascend(masked_circuit, batch, bounds, prompt_starts, steps)
    by_prompt = logit_diffs(masked_circuit, batch, per_prompt)
    prompt_loss = max(node_loss, masked_circuit.loss_of(by_prompt))

    return AdversarialAblation(
        means=losses[0],
        worst_draw=losses[worst_draw],
        per_node=node_loss,
        per_prompt=prompt_loss,
        limit=limit,
        survives=prompt_loss <= limit,
        survived_share=survived_share(masked_circuit, batch, bounds, at_means, limit, steps),
        steps=steps,
        n_draws=n_draws,
        n_pairs=batch.n_pairs,
    )


def survived_share(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    bounds: ValueRange,
    means: Tensor,
    limit: float,
    steps: int,
) -> float:
    """Return the largest of `SHARES` of the range around the mean that the circuit survives.

    Args:
        masked_circuit: the circuit.
        batch: P tokenised pairs of a task.
        bounds: range of each node.
        means: (1, N).
        limit: highest task loss in nats at which the circuit survives.
        steps: steps of each ascent, which starts at the means.

    Returns:
        0 if it does not survive the smallest share; larger ones than the first that it does not
        survive are not tried.
    """
    survived = 0.0
    for share in SHARES:
        within = ValueRange(*(torch.lerp(means[0], bound, share) for bound in bounds))
        values = ascend(masked_circuit, batch, within, [means], steps)
        if not masked_circuit.loss_of(logit_diffs(masked_circuit, batch, values)) <= limit:
            break
        survived = share
    return survived


def value_range(
    space: NodeSpace, cache: ActivationCache, means: Mapping[str, Tensor]
) -> ValueRange:
    """Return the range of each node's activations in the cache, widened to its mean.

    Means are measured on more tokens than the cache has, so that the mean of a node that is rarely
    active can lie outside the range in the cache.

    Args:
        space: nodes of the model.
        cache: site to (S, width).
        means: site to (width,).
    """
    values = torch.cat([space.join(cache), space.join(means)[None]])
    return ValueRange(values.amin(0), values.amax(0))


def ascend(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    bounds: ValueRange,
    starts: Sequence[Tensor],
    steps: int,
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
            length = _FIRST_STEP * (1 - step / max(1, steps))
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
