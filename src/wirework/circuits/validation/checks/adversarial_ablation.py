"""Adversarial ablation: nodes outside the circuit take the values that raise the task loss most.

Gradient ascent looks for these values within a range per node, from its lowest to its highest
activation in the activation cache. Ranges are those of single nodes, so values found by the ascent
need not occur together in any text: a circuit that fails may still hold under values of real text.
Removed edges between two kept nodes stay at the mean of their source, as in all checks.
Shapes: N nodes of all sites, P pairs (two prompts each), S tokens in the activation cache, V sets
of values: one for all prompts, or one for each of the 2P prompts.
The ascent is in `circuits/masking/ascent.py`, since searches under adversarial ablation use it too.
Source: Gao et al. 2025, App. E (values other than the mean); Madry et al. 2018 (arXiv 1706.06083).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.activation_cache import ActivationCache
from wirework.circuits.masking.ascent import ascend, logit_diffs
from wirework.circuits.masking.masked_circuit import MaskedCircuit
from wirework.circuits.masking.value_range import ValueRange, value_range
from wirework.circuits.validation.checks.resample import constant_draws
from wirework.errors import InputError
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs

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
