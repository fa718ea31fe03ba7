"""The verdict on a circuit: four levels, each with its evidence, and whether it is faithful.

A low task loss under mean ablation is not sufficient evidence, because learned masks reach it on
random labels too.
"""

from wirework.circuits.validation import criteria
from wirework.circuits.validation.calibrated import CALIBRATION
from wirework.circuits.validation.validation_report import (
    CircuitChecks,
    Controls,
    Criterion,
    Level,
    Levels,
    Verdict,
)


def verdict(
    checks: CircuitChecks,
    controls: Controls,
    *,
    target_loss: float,
    n_nodes: int,
    full_validation: bool = True,
) -> Verdict:
    """Judge a circuit by its checks and controls.

    A circuit is faithful if it is sufficient, specific and robust. Whether it is minimal is said
    beside that: a circuit with a node too many is still one.

    Args:
        checks: the circuit's checks.
        controls: its controls; `Controls()` for the circuit of a control itself.
        target_loss: task loss that its search aimed for, in nats.
        n_nodes: number of its nodes.
        full_validation: whether all controls were run; without them no circuit is called specific.
    """
    chance = checks.held_out.chance
    levels = Levels(
        sufficient=_level(
            criteria.sufficient(checks.held_out, target_loss),
            *criteria.on_templates(checks.held_out_templates, target_loss),
        ),
        specific=_level(*_specific(checks, controls, target_loss, n_nodes, full_validation)),
        robust=_level(
            criteria.resampled(checks.resampled, target_loss, chance),
            criteria.interchanged(checks.interchange, target_loss, chance),
        ),
        minimal=_level(criteria.minimal(checks.minimality)),
    )
    of_faithful = (levels.sufficient, levels.specific, levels.robust)
    reasons = [
        criterion.words
        for met in (False, None, True)
        for level in of_faithful
        for criterion in level.criteria
        if criterion.met is met
    ]
    reasons += criteria.adversary(checks.adversarial_ablation)
    faithful = criteria.all_met(level.met for level in of_faithful)
    return Verdict(faithful, tuple(reasons), levels, CALIBRATION)


def _specific(
    checks: CircuitChecks,
    controls: Controls,
    target_loss: float,
    n_nodes: int,
    full_validation: bool,
) -> list[Criterion]:
    """Return the criteria of circuits that do what the model does, and no others do."""
    found = [
        criteria.performed(checks.held_out, target_loss),
        criteria.necessary(checks.held_out, target_loss),
        *(
            criteria.control(name, control, n_nodes)
            for name, control in (
                ("random circuits", controls.random_circuits),
                ("random labels", controls.random_labels),
                ("shuffled weights", controls.shuffled_weights),
            )
            if control is not None
        ),
    ]
    if not n_nodes:
        words = "the circuit is empty: the task needs no node"
        found.append(Criterion("empty", None, words))
    if not full_validation:
        words = "the same search has not been run on its controls"
        found.append(Criterion("searched_controls", None, words))
    return found


def _level(*found: Criterion) -> Level:
    return Level(criteria.all_met(criterion.met for criterion in found), found)
