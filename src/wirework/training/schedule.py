"""What changes over the course of training, as pure functions of the step.

Steps count from 0; `steps` is how many there are in all. Gao et al. 2025, App. A.2.
"""

import math
from typing import Literal

from wirework.config import OptimizerConfig, WeightSparsityConfig


def warmup_decay(
    step: int, steps: int, warmup: float, decay: Literal["linear", "cosine"] = "linear"
) -> float:
    """Return the factor on the peak learning rate at a step, in (0, 1].

    It rises linearly over the first `warmup` share of the steps, never from 0 itself (a step at
    rate 0 would be lost), and falls towards 0, which it would reach at `steps`.

    Args:
        step: 0 <= step < steps.
        steps: length of the training.
        warmup: share of the steps, 0 for none.
        decay: fall in a line, or as the first half of a cosine.
    """
    rising = warmup * steps
    if step < rising:
        return min(1.0, (step + 1) / (rising + 1))
    left = (steps - step) / (steps - rising)
    return left if decay == "linear" else (1 - math.cos(math.pi * left)) / 2


def nonzero_fraction(step: int, steps: int, config: WeightSparsityConfig) -> float:
    """Return the share of weights that stays after a step; the last step has exactly the target.

    1 until `anneal_start`, then linearly to `l0_fraction` at `anneal_end`.
    """
    done = (step + 1) / steps
    if done >= config.anneal_end:
        return config.l0_fraction
    if done <= config.anneal_start:
        return 1.0
    way = (done - config.anneal_start) / (config.anneal_end - config.anneal_start)
    return 1.0 + way * (config.l0_fraction - 1.0)


def sharkfin(fraction: float) -> float:
    """Return the factor that raises the learning rate as weights go: 1/sqrt(nonzero fraction)."""
    return 1.0 / math.sqrt(fraction)


def learning_rate(step: int, steps: int, optimizer: OptimizerConfig) -> float:
    """Return the learning rate of a step: the peak rate after warm-up and decay."""
    return optimizer.lr * warmup_decay(step, steps, optimizer.warmup, optimizer.decay)
