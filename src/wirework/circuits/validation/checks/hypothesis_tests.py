"""The three hypothesis tests of Shi et al. 2024 (arXiv 2410.13032).

They take one number for each pair, the mean of its two logit differences (`pair_logit_diffs`): the
two prompts of a pair are dependent, so they are one observation. Each null hypothesis states that
the circuit is ideal in one respect. A small p-value is evidence against the circuit; a large one
only shows that this number of pairs gives no such evidence.
Shapes: P pairs, u units of a circuit, R random circuits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.masked_circuit import finite
from wirework.errors import InputError
from wirework.summaries import Report

_ROUNDING = 1e-5
"""Logit differences that differ by less than this share of the largest are equal: logits are
float32."""
_MOST_PAIRS = 1000
"""Pairs in the independence test, whose memory grows with their square."""


@dataclass(frozen=True, repr=False)
class Equivalence(Report):
    """Whether circuit and model have the higher logit difference equally often."""

    share: float | None
    """Share of the pairs without ties in which the circuit is higher; None if all tie."""
    n_pairs: int
    """Number of pairs without ties."""
    n_ties: int
    p_value: float


@dataclass(frozen=True, repr=False)
class Independence(Report):
    """Whether the complement's logit differences are independent of the model's."""

    hsic: float
    p_value: float


@dataclass(frozen=True, repr=False)
class MinimalityTest(Report):
    """Whether each unit matters more than random ones do."""

    p_values: tuple[float, ...]
    """(u,) one per unit, not corrected for multiple tests."""
    p_value: float
    """For the circuit: the smallest p-value times their number (Bonferroni)."""
    n_random: int
    """R, number of random effects that the units were compared with."""


def pair_logit_diffs(logit_diffs: Tensor) -> Tensor:
    """Return (P,) float64, the mean of each pair's two logit differences (2P,)."""
    return logit_diffs.double().view(-1, 2).mean(1)


def equivalence_test(circuit: Tensor, model: Tensor, eps: float = 0.1) -> Equivalence:
    """Test H0: |P(circuit is higher than model) - 1/2| <= eps.

    Ties are dropped, as in a sign test. Values that differ only by rounding are ties: otherwise a
    circuit of all nodes would win or lose by the order of its floating-point sums. If the circuit
    is higher in K of the n pairs without ties, p is the largest probability under H0 that the share
    of wins is at least as far from 1/2 as K / n. It is attained at 1/2 + eps and is exact.

    Args:
        circuit: (P,) `pair_logit_diffs` of the circuit.
        model: (P,) `pair_logit_diffs` of the whole model.
        eps: 0 to 1/2.

    Raises:
        InputError: shapes differ, a value is no number, or eps is out of range.

    Source: Shi et al. 2024, equivalence test. Their code compares with the mean difference
    where the share of wins is meant; here it is the share.
    """
    from scipy.stats import binom  # slow to import

    _check(circuit, model)
    if not 0 <= eps <= 0.5:
        raise InputError(f"eps must lie between 0 and 0.5, got {eps}")
    differences = circuit.double() - model.double()
    rounding = _ROUNDING * float(torch.stack([circuit, model]).abs().max())
    wins, losses = int((differences > rounding).sum()), int((differences < -rounding).sum())
    n = wins + losses
    fewer, wins_under_h0 = min(wins, losses), binom(n, 0.5 + eps)
    p = float(wins_under_h0.cdf(fewer) + wins_under_h0.sf(n - fewer - 1))
    return Equivalence(wins / n if n else None, n, len(circuit) - n, min(p, 1.0))


def independence_test(
    complement: Tensor, model: Tensor, permutations: int = 999, seed: int = 0
) -> Independence:
    """Test H0: the logit differences of the circuit's complement are independent of the model's.

    The statistic is the Hilbert-Schmidt independence criterion with Gaussian kernels, as wide as
    the median distance between two values of the same kind. p is the share of orders, including
    the given one, in which it is at least as high: exact. At most the first 1000 pairs are used.

    Args:
        complement: (P,) `pair_logit_diffs` of the model without the circuit.
        model: (P,) `pair_logit_diffs` of the whole model.
        permutations: number of random orders in addition to the given one.
        seed: seed of the orders.

    Raises:
        InputError: shapes differ, a value is no number, or there are no permutations.

    Source: Shi et al. 2024, independence test; Gretton et al. 2007 (HSIC).
    """
    _check(complement, model)
    if permutations < 1:
        raise InputError(f"a permutation test needs at least one order, got {permutations}")
    left, right = (
        centred_kernel(diffs[:_MOST_PAIRS].double().cpu()) for diffs in (complement, model)
    )
    generator = torch.Generator().manual_seed(seed)
    n = len(left)
    observed = float((left * right).sum())
    # Statistics that differ by rounding count as equal; if one side is constant, all are equal.
    threshold = observed - 1e-9 * (float(left.norm()) * float(right.norm()) + 1e-12)
    orders = (torch.randperm(n, generator=generator) for _ in range(permutations))
    n_as_high = sum(float((left[order][:, order] * right).sum()) >= threshold for order in orders)
    p = (1 + n_as_high) / (1 + permutations)
    return Independence(observed / max(n - 1, 1) ** 2, p)


def minimality_test(
    effects: Sequence[float], random_effects: Sequence[float], q: float = 0.9
) -> MinimalityTest:
    """Test for each unit H0: it matters more than a random one in at least a share q of cases.

    With K of R random effects below the unit's, p = P(Binomial(R, q) <= K): exact, and small for a
    unit that matters no more than units added to the circuit at random.

    Args:
        effects: (u,) effect of removing each unit from the circuit.
        random_effects: (R,) effect of removing a random unit from a randomly inflated circuit.
        q: q* of the paper.

    Raises:
        InputError: an effect is no number, or q is not between 0 and 1.

    Source: Shi et al. 2024, minimality test. The correction for the number of units is ours.
    """
    from scipy.stats import binom  # slow to import

    if not 0 <= q <= 1:
        raise InputError(f"q must lie between 0 and 1, got {q}")
    for effect in (*effects, *random_effects):
        finite(effect, "an effect")
    n = len(random_effects)
    below = (sum(effect > other for other in random_effects) for effect in effects)
    p_values = tuple(float(binom.cdf(k, n, q)) for k in below)
    return MinimalityTest(p_values, min([1.0, *(len(p_values) * p for p in p_values)]), n)


def centred_kernel(values: Tensor) -> Tensor:
    """Return the Gaussian kernel of values (P,), rows and columns centred, (P, P).

    Values that differ only by rounding are equal, so that noise is not taken for a signal.
    """
    differences = (values[:, None] - values).abs()
    differences = torch.where(differences > _ROUNDING * values.abs().max(), differences, 0)
    nonzero = differences[differences > 0]
    width = nonzero.median() if len(nonzero) else torch.ones(())
    kernel = torch.exp(-differences.square() / (2 * width.square()))
    return kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()


def _check(left: Tensor, right: Tensor) -> None:
    if left.shape != right.shape or left.dim() != 1 or not len(left):
        raise InputError(
            f"expected logit differences of the same pairs, got shapes {tuple(left.shape)} and "
            f"{tuple(right.shape)}"
        )
    if not (left.isfinite().all() and right.isfinite().all()):
        raise InputError("a logit difference is not a finite number")
