"""Schedules of the learning rate and the nonzero fraction, as pure functions of the step.

Steps count from 0; `steps` is their number. Source: Gao et al. 2025, App. A.2.
"""

import math
from typing import Literal

from wirework.config import OptimizerConfig, WeightSparsityConfig


def warmup_decay(
    step: int, steps: int, warmup: float, decay: Literal["linear", "cosine"] = "linear"
) -> float:
    """Return the factor of the peak learning rate at a step, in (0, 1].

    It rises linearly over the first `warmup` share of the steps, starting above 0 so that no step
    has rate 0. Then it falls towards 0, which it would reach at `steps`.

    Args:
        step: 0 <= step < steps.
        steps: number of training steps.
        warmup: share of the steps, 0 for none.
        decay: `linear`, or `cosine` for half a cosine.

    Source: Gao et al. 2025, App. A.2 (linear); Ferrao et al. 2025 (cosine).
    """
    rising = warmup * steps
    if step < rising:
        return min(1.0, (step + 1) / (rising + 1))
    remaining = (steps - step) / (steps - rising)
    return remaining if decay == "linear" else (1 - math.cos(math.pi * remaining)) / 2


def nonzero_fraction(step: int, steps: int, config: WeightSparsityConfig) -> float:
    """Return the nonzero fraction after a step; after the last step it is exactly the target.

    It is `start_fraction` until `anneal_start`, then falls linearly to `l0_fraction` at
    `anneal_end`.

    Args:
        step: 0 <= step < steps.
        steps: number of training steps.
        config: target and annealing.

    Source: Gao et al. 2025, App. A.2.
    """
    elapsed = (step + 1) / steps
    if elapsed >= config.anneal_end:
        return config.l0_fraction
    if elapsed <= config.anneal_start:
        return config.start_fraction
    annealed = (elapsed - config.anneal_start) / (config.anneal_end - config.anneal_start)
    return config.start_fraction + annealed * (config.l0_fraction - config.start_fraction)


def sharkfin(fraction: float) -> float:
    """Return the learning-rate factor 1/sqrt(nonzero fraction)."""
    return 1.0 / math.sqrt(fraction)


def learning_rate(step: int, steps: int, optimizer: OptimizerConfig) -> float:
    """Return the learning rate of a step: the peak rate times warm-up and decay."""
    return optimizer.lr * warmup_decay(step, steps, optimizer.warmup, optimizer.decay)
