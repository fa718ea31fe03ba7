"""The verdict on a circuit: whether it is faithful, with the reasons in words.

A low task loss under mean ablation is not sufficient evidence, because learned masks reach it on
random labels too.
"""

import math
from typing import NamedTuple

from wirework.circuits.validation.checks.adversarial_ablation import AdversarialAblation
from wirework.circuits.validation.checks.interchange import Interchange
from wirework.circuits.validation.validation_report import (
    CircuitChecks,
    Controls,
    PairLosses,
    RandomControl,
    Resampled,
    SearchedControl,
    SizeRange,
    Verdict,
)
from wirework.errors import number_of
from wirework.summaries import NotMeasured

SIZE_MARGIN = 3
"""A control search that reaches the target must need at least this many times the circuit's nodes.

A 2026 replication of Gao et al. needed about 30 nodes for random labels, 10 for a real behaviour.
If a control circuit is about as small, the search can fit any task, whatever the model computes.
"""

_CHANCE = math.log(2)
_ERRORS = 2.0
"""Standard errors by which a held-out loss may exceed the target."""


class Criterion(NamedTuple):
    """One criterion of faithfulness."""

    met: bool | None
    """None if it was not tested."""
    words: str
    """The reason, for the report."""


def verdict(
    checks: CircuitChecks,
    controls: Controls,
    *,
    target_loss: float,
    n_nodes: int,
    full_validation: bool = True,
) -> Verdict:
    """Judge a circuit by its checks and controls.

    Args:
        checks: the circuit's checks.
        controls: its controls; `Controls()` for the circuit of a control itself.
        target_loss: task loss that its search aimed for, in nats.
        n_nodes: number of its nodes.
        full_validation: whether all controls were run; without them no circuit is called faithful.
    """
    chance = checks.held_out.chance
    criteria = [
        _sufficient(checks.held_out, target_loss),
        _necessary(checks.held_out),
        _resampled(checks.resampled, target_loss, chance),
        _interchange(checks.interchange, target_loss, chance),
        *(
            _control(name, control, n_nodes)
            for name, control in (
                ("random circuits", controls.random_circuits),
                ("random labels", controls.random_labels),
                ("shuffled weights", controls.shuffled_weights),
            )
            if control is not None
        ),
    ]
    if not n_nodes:
        criteria.append(Criterion(None, "the circuit is empty: the task needs no node"))
    if not full_validation:
        criteria.append(Criterion(None, "the same search has not been run on its controls"))
    reasons = [
        criterion.words
        for met in (False, None, True)
        for criterion in criteria
        if criterion.met is met
    ]
    reasons += _adversary(checks.adversarial_ablation)
    return Verdict(_all([criterion.met for criterion in criteria]), tuple(reasons))


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
    return loss - _ERRORS * error <= target and loss <= max(target, loss_limit(target, chance))


def loss_limit(target: float, chance: float) -> float:
    """Return the highest task loss with other values of the ablated nodes than their means, in
    nats: midway between target and chance."""
    return (target + chance) / 2


def _all(met: list[bool | None]) -> bool | None:
    """Return whether all are met; None if none failed but some were not tested."""
    if False in met:
        return False
    return None if None in met else True


def _sufficient(losses: PairLosses, target: float) -> Criterion:
    loss, error = losses.circuit, losses.circuit_error
    met = reaches(loss, error, target, losses.chance)
    words = "sufficient" if met else "not sufficient"
    measured = f"loss {loss:.3f} +- {error:.3f} on {losses.n_pairs} held-out pairs"
    if losses.n_pairs == 1:
        measured = f"loss {loss:.3f} on a single held-out pair, too few for a standard error"
    return Criterion(met, f"{words}: {measured}, target {target:g}")


def _necessary(losses: PairLosses) -> Criterion:
    loss = losses.without_circuit
    met = loss >= 0.9 * losses.chance
    words = "necessary" if met else "not necessary"
    return Criterion(
        met, f"{words}: without it the model's loss is {loss:.3f}, chance {losses.chance:.3f}"
    )


def _resampled(losses: Resampled | NotMeasured, target: float, chance: float) -> Criterion:
    if isinstance(losses, NotMeasured):
        return Criterion(None, f"not checked under resampling: {losses.reason}")
    most = loss_limit(target, chance)
    met = losses.resample <= most
    words = "holds" if met else "does not hold"
    return Criterion(
        met,
        f"{words} when ablated nodes take values of real text: loss {losses.resample:.3f}, "
        f"at most {most:.3f}",
    )


def _adversary(losses: AdversarialAblation | NotMeasured | None) -> list[str]:
    """Return a line for an adversary that the circuit does not survive, else nothing.

    It is no criterion: its values need not occur together in any text.
    """
    if not isinstance(losses, AdversarialAblation) or losses.survives:
        return []
    return [
        "not a criterion: an adversary that sets ablated nodes within their range on training text "
        f"brings the loss to {losses.per_node:.3f} with one value per node and to "
        f"{losses.per_prompt:.3f} with one per node and prompt; to survive, at most "
        f"{losses.limit:.3f}"
    ]


def _interchange(losses: Interchange, target: float, chance: float) -> Criterion:
    same, other = losses.same, losses.other
    if same is None or other is None:
        return Criterion(None, "not checked by interchange: no two prompts share an answer")
    met = same <= loss_limit(target, chance) and other >= chance
    words = "carries the answer" if met else "does not carry the answer"
    return Criterion(
        met,
        f"{words}: loss {same:.3f} with values of prompts of the same answer, {other:.3f} with "
        "those of the other answer",
    )


def _control(
    name: str, control: RandomControl | SearchedControl | NotMeasured, n_nodes: int
) -> Criterion:
    if isinstance(control, NotMeasured):
        return Criterion(None, f"{name}: not run: {control.reason}")
    if isinstance(control, RandomControl):
        return Criterion(
            not control.n_sufficient,
            f"{name}: {control.n_sufficient} of {control.n} are sufficient too, lowest loss "
            f"{control.lowest:.3f}, with {_sizes(control.nodes)} nodes and "
            f"{_sizes(control.edges)} kept edges",
        )
    words = "reaches the target too" if control.reached else "does not reach the target"
    size = f"{number_of(control.n_nodes, 'node')} and {number_of(control.n_edges, 'edge')}"
    return Criterion(
        not control.reached or control.n_nodes >= SIZE_MARGIN * n_nodes,
        f"{name}: the same search {words}: loss {control.held_out.circuit:.3f} with {size} where "
        f"the circuit has {number_of(n_nodes, 'node')}",
    )


def _sizes(sizes: SizeRange) -> str:
    """Return the range of sizes of the random circuits and the circuit's size, as text."""
    least, most = sizes.least, sizes.most
    return f"{least if least == most else f'{least} to {most}'} (circuit {sizes.circuit})"
