"""The verdict on a circuit: whether it is faithful, with the reasons in words.

A low task loss under mean ablation is not sufficient evidence, because learned masks reach it on
random labels too. This module reads the numbers of a report and needs no torch.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from wirework.errors import number_of

SIZE_MARGIN = 3
"""A control search that reaches the target must need at least this many times the circuit's nodes.

A 2026 replication of Gao et al. needed about 30 nodes for random labels, 10 for a real behaviour. A
control circuit of similar size would show that the search fits the task by itself.
"""

WORDS = {True: "faithful", False: "not faithful", None: "open"}
"""The values of `faithful` in words."""

MISSED = "misses the target"
"""Shown instead of a verdict if the search did not reach its target."""

_CHANCE = math.log(2)
_ERRORS = 2.0  # standard errors by which a held-out loss may exceed the target


class Criterion(NamedTuple):
    """One criterion of faithfulness."""

    met: bool | None
    """None if it was not tested."""
    words: str


def verdict(
    report: Mapping[str, Any], controls: Mapping[str, Any], *, full_validation: bool = True
) -> dict[str, Any]:
    """Judge a circuit by its checks and controls.

    Args:
        report: `target_loss`, `n_nodes`, `held_out`, `resampled` and `interchange`, as `validate`
            returns them.
        controls: name to the report of a control; empty for a control itself.
        full_validation: whether all controls were run; without them no circuit is called faithful.

    Returns:
        `faithful`: None if no criterion failed but some were not tested. `reasons`: one line per
        criterion; failed ones first, then those not tested.
    """
    target, n_nodes = float(report["target_loss"]), int(report["n_nodes"])
    criteria = [
        _sufficient(report["held_out"], target),
        _necessary(report["held_out"]),
        _resampled(report["resampled"], target),
        _interchange(report["interchange"], target),
        *(_control(name, control, n_nodes) for name, control in controls.items()),
    ]
    if not n_nodes:
        criteria.append(Criterion(None, "the circuit is empty: the task needs no node"))
    if not full_validation:
        criteria.append(Criterion(None, "the same search has not been run on its controls"))
    faithful = _all([one.met for one in criteria])
    reasons = [one.words for met in (False, None, True) for one in criteria if one.met is met]
    return {"faithful": faithful, "reasons": reasons}


def reaches(losses: Mapping[str, float], target: float) -> bool:
    """Return whether a circuit is sufficient: its held-out loss is compatible with the target.

    The loss may exceed the target by at most two standard errors and, because few pairs have large
    standard errors, must be closer to the target than to chance.

    Args:
        losses: `circuit` and its standard error `circuit_error`, in nats.
        target: task loss in nats.
    """
    loss, error = losses["circuit"], losses["circuit_error"]
    return loss - _ERRORS * error <= target and loss <= max(target, _middle(target))


def _all(met: list[bool | None]) -> bool | None:
    """Return whether all are met; None if none failed but some were not tested."""
    if False in met:
        return False
    return None if None in met else True


def _sufficient(losses: Mapping[str, float], target: float) -> Criterion:
    loss, error = losses["circuit"], losses["circuit_error"]
    met = reaches(losses, target)
    words = "sufficient" if met else "not sufficient"
    count = losses.get("n_pairs")
    pairs = "unseen pairs" if count is None else f"{count:g} unseen pairs"
    measured = f"loss {loss:.3f} +- {error:.3f} on {pairs}"
    if count == 1:
        measured = f"loss {loss:.3f} on a single unseen pair, too few for a standard error"
    return Criterion(met, f"{words}: {measured}, target {target:g}")


def _necessary(losses: Mapping[str, float]) -> Criterion:
    loss = losses["without_circuit"]
    met = loss >= 0.9 * _CHANCE
    words = "necessary" if met else "not necessary"
    return Criterion(
        met, f"{words}: without it the model's loss is {loss:.3f}, chance {_CHANCE:.3f}"
    )


def _resampled(losses: Mapping[str, Any], target: float) -> Criterion:
    if "reason" in losses:
        return Criterion(None, f"not checked under resampling: {losses['reason']}")
    loss, most = losses["resample"], _middle(target)
    met = loss <= most
    words = "holds" if met else "does not hold"
    return Criterion(
        met,
        f"{words} when what is outside takes values of real text: loss {loss:.3f}, "
        f"at most {most:.3f}",
    )


def _interchange(losses: Mapping[str, Any], target: float) -> Criterion:
    same, other = losses["same"], losses["other"]
    if same is None or other is None:
        return Criterion(None, "not checked by interchange: no two prompts share an answer")
    met = same <= _middle(target) and other >= _CHANCE
    words = "carries the answer" if met else "does not carry the answer"
    return Criterion(
        met,
        f"{words}: loss {same:.3f} with values of prompts of the same answer, {other:.3f} with "
        "those of the other answer",
    )


def _control(name: str, control: Mapping[str, Any], n_nodes: int) -> Criterion:
    if "reason" in control:
        return Criterion(None, f"{name}: not run: {control['reason']}")
    if "n_sufficient" in control:
        n_sufficient, lowest = control["n_sufficient"], control["lowest"]
        words = f"{n_sufficient} of {control['n']} are sufficient too, lowest loss {lowest:.3f}"
        if "edges" in control:
            words += f", with {_sizes(control['nodes'])} nodes and {_sizes(control['edges'])} edges"
        return Criterion(not n_sufficient, f"{name}: {words}")
    reached, larger = control["reached"], control["n_nodes"] >= SIZE_MARGIN * n_nodes
    words = "reaches the target too" if reached else "does not reach the target"
    loss, nodes, edges = control["held_out"]["circuit"], control["n_nodes"], control["n_edges"]
    size = f"{number_of(nodes, 'node')} and {number_of(edges, 'edge')}"
    return Criterion(
        not reached or larger,
        f"{name}: the same search {words}: loss {loss:.3f} with {size} where the "
        f"circuit has {number_of(n_nodes, 'node')}",
    )


def _sizes(part: Mapping[str, int]) -> str:
    """Return the range of sizes of the random circuits and the circuit's size, as text."""
    least, most = part["least"], part["most"]
    return f"{least if least == most else f'{least} to {most}'} (circuit {part['circuit']})"


def _middle(target: float) -> float:
    """Return the loss midway between target and chance."""
    return (target + _CHANCE) / 2
