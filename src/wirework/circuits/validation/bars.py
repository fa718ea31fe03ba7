"""Bars of the verdict: the losses at which a criterion is met, and why they are where they are.

`python -m benchmarks.blind_test calibrate` measures how often circuits without a mechanism pass
them; `studies/results/blind_test` has the figures. Losses are task losses in nats.
"""

import math

SIZE_MARGIN = 3
"""A control search that reaches the target must need at least this many times the circuit's nodes.

A 2026 replication of Gao et al. needed about 30 nodes for random labels, 10 for a real behaviour.
If a control circuit is about as small, the search can fit any task, whatever the model computes.
"""

LIMIT_SHARE = 0.5
"""Place of `loss_limit` between target (0) and chance (1).

Midway, chosen by hand. None of 210 circuits without a mechanism is sufficient and specific with it,
nor with any place from 0.05 to 0.95; all of 32 real ones are. So the place makes little difference
to false positives. It decides which circuits found under mean ablation are called robust.
"""

ERRORS = 2.0
"""Standard errors by which a held-out loss may exceed the target."""

_CHANCE = math.log(2)


def reaches(loss: float, error: float, target: float, chance: float = _CHANCE) -> bool:
    """Return whether a circuit is sufficient: its held-out loss is compatible with the target.

    The loss may exceed the target by at most two standard errors and, because few pairs have large
    standard errors, must be closer to the target than to chance.

    Args:
        loss: task loss of the circuit on held-out pairs, in nats.
        error: its standard error, in nats.
        target: task loss that the search aimed for, in nats.
        chance: task loss of a guess, in nats: ln 2 unless losses are sums over a pair's prompts.
    """
    return loss - ERRORS * error <= target and loss <= max(target, loss_limit(target, chance))


def loss_limit(target: float, chance: float) -> float:
    """Return the task loss in nats above which a behaviour counts as lost.

    It must not be exceeded by the whole model, by the circuit on other templates and by the circuit
    with other values of the ablated nodes. The model without the circuit must reach it.
    """
    return target + LIMIT_SHARE * (chance - target)
