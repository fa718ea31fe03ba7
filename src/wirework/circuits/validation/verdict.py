"""What a report of checks comes to, in words: whether a circuit may be called faithful.

A low task loss under mean ablation is not enough, as learned masks reach it on nonsense too. No
torch: it reads numbers.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from wirework.errors import number_of

SIZE_MARGIN = 3
"""How many times the circuit's nodes a search must need where there is nothing to find.

A 2026 replication of Gao et al. saw about 30 nodes for nonsense against 10 for a real behaviour. A
search that gets by with fewer would have found something as small as the circuit without one.
"""

WORDS = {True: "faithful", False: "not faithful", None: "open"}
"""What `faithful` of a verdict means."""

MISSED = "misses the target"
"""What is said of a circuit in the place of that where its search went on without meeting it."""

_CHANCE = math.log(2)
_ERRORS = 2.0  # standard errors that a held-out loss may lie above the target by chance


class Criterion(NamedTuple):
    """One thing that a faithful circuit does."""

    met: bool | None
    """None where it was not looked at."""
    words: str


def verdict(
    report: Mapping[str, Any], controls: Mapping[str, Any], *, full_validation: bool = True
) -> dict[str, Any]:
    """Judge a circuit by its checks and controls.

    Args:
        report: `target_loss`, `n_nodes`, `held_out`, `resampled`, `interchange` as `validate`
            returns them.
        controls: name to a control's report; none for a control itself.
        full_validation: whether all controls were run: without them nothing is called faithful.

    Returns:
        `faithful`, None where nothing failed but not all was looked at; and `reasons`: a line for
        each criterion, those that failed first, then those not looked at.
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
    """Whether a circuit is sufficient: its loss on unseen pairs may be the target.

    At most two standard errors above it and, as few pairs have large errors, in any case nearer
    to it than to chance.

    Args:
        losses: `circuit` and `circuit_error` in nats.
        target: nats.
    """
    loss, error = losses["circuit"], losses["circuit_error"]
    return loss - _ERRORS * error <= target and loss <= max(target, _middle(target))


def _all(met: list[bool | None]) -> bool | None:
    """Whether all are met; None where none failed but some are open."""
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
    """Return the sizes of random circuits beside the circuit's."""
    least, most = part["least"], part["most"]
    return f"{least if least == most else f'{least} to {most}'} (circuit {part['circuit']})"


def _middle(target: float) -> float:
    """Half way from the target to chance: a loss below is nearer to doing the task than not."""
    return (target + _CHANCE) / 2
