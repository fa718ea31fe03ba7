"""The criteria of a verdict: one function each, from an entry of the report to a `Criterion`."""

from collections.abc import Iterable

from wirework.circuits.validation.bars import SIZE_MARGIN, loss_limit, reaches
from wirework.circuits.validation.checks.adversarial_ablation import AdversarialAblation
from wirework.circuits.validation.checks.interchange import Interchange
from wirework.circuits.validation.checks.minimality import Minimality
from wirework.circuits.validation.validation_report import (
    Criterion,
    PairLosses,
    RandomControl,
    Resampled,
    SearchedControl,
    SizeRange,
)
from wirework.errors import number_of
from wirework.summaries import NotMeasured


def sufficient(losses: PairLosses, target: float) -> Criterion:
    """Return whether the circuit alone does the task on held-out pairs."""
    loss, error = losses.circuit, losses.circuit_error
    met = reaches(loss, error, target, losses.chance)
    words = "sufficient" if met else "not sufficient"
    measured = f"loss {loss:.3f} +- {error:.3f} on {losses.n_pairs} held-out pairs"
    if losses.n_pairs == 1:
        measured = f"loss {loss:.3f} on a single held-out pair, too few for a standard error"
    return Criterion("held_out", met, f"{words}: {measured}, target {target:g}", loss, target)


def on_templates(losses: PairLosses | NotMeasured, target: float) -> list[Criterion]:
    """Return whether it does so on templates that no search has seen; nothing without any.

    A search cannot aim for the target there, so the bar is `loss_limit`.
    """
    if isinstance(losses, NotMeasured):
        return []
    loss, most = losses.circuit, loss_limit(target, losses.chance)
    met = loss <= most
    words = "holds" if met else "does not hold"
    measured = f"loss {loss:.3f} on {number_of(losses.n_pairs, 'pair')}, at most {most:.3f}"
    said = f"{words} on templates that no search has seen: {measured}"
    return [Criterion("held_out_templates", met, said, loss, most)]


def performed(losses: PairLosses, target: float) -> Criterion:
    """Return whether the whole model has the behaviour: else there is nothing to explain."""
    loss, most = losses.model, loss_limit(target, losses.chance)
    met = loss <= most
    words = "the model has the behaviour" if met else "the model does not have the behaviour"
    return Criterion(
        "model", met, f"{words}: its own loss is {loss:.3f}, at most {most:.3f}", loss, most
    )


def necessary(losses: PairLosses, target: float) -> Criterion:
    """Return whether the model loses the behaviour without the circuit."""
    loss, least = losses.without_circuit, loss_limit(target, losses.chance)
    met = loss >= least
    words = "necessary" if met else "not necessary"
    said = f"{words}: without it the model's loss is {loss:.3f}, at least {least:.3f}"
    return Criterion("without_circuit", met, said, loss, least)


def control(
    name: str, result: RandomControl | SearchedControl | NotMeasured, n_nodes: int
) -> Criterion:
    """Return whether a control fails to do what the circuit does.

    Args:
        name: the control in words.
        result: its result.
        n_nodes: nodes of the circuit.
    """
    key = name.replace(" ", "_")
    if isinstance(result, NotMeasured):
        return Criterion(key, None, f"{name}: not run: {result.reason}")
    if isinstance(result, RandomControl):
        n_others, n_with_needed = result.n_sufficient - result.n_with_needed, result.n_with_needed
        with_needed = f" and {n_with_needed} with all nodes that it needs" if n_with_needed else ""
        words = (
            f"{name}: {n_others} of {result.n} are sufficient too{with_needed}, lowest loss "
            f"{result.lowest:.3f}, with {_sizes(result.nodes)} nodes and "
            f"{_sizes(result.edges)} kept edges"
        )
        return Criterion(key, not n_others, words, n_others, 0)
    words = "reaches the target too" if result.reached else "does not reach the target"
    size = f"{number_of(result.n_nodes, 'node')} and {number_of(result.n_edges, 'edge')}"
    return Criterion(
        key,
        not result.reached or result.n_nodes >= SIZE_MARGIN * n_nodes,
        f"{name}: the same search {words}: loss {result.held_out.circuit:.3f} with {size} where "
        f"the circuit has {number_of(n_nodes, 'node')}",
        result.held_out.circuit,
    )


def resampled(losses: Resampled | NotMeasured, target: float, chance: float) -> Criterion:
    """Return whether the circuit holds when ablated nodes take values of real text."""
    if isinstance(losses, NotMeasured):
        return Criterion("resampled", None, f"not checked under resampling: {losses.reason}")
    most = loss_limit(target, chance)
    met = losses.resample <= most
    words = "holds" if met else "does not hold"
    said = (
        f"{words} when ablated nodes take values of real text: loss {losses.resample:.3f}, "
        f"at most {most:.3f}"
    )
    return Criterion("resampled", met, said, losses.resample, most)


def interchanged(losses: Interchange, target: float, chance: float) -> Criterion:
    """Return whether swapped values leave the answer as it is, or change it if they should."""
    same, other = losses.same, losses.other
    if same is None or other is None:
        words = "not checked by interchange: no two prompts share an answer"
        return Criterion("interchange", None, words)
    most = loss_limit(target, chance)
    met = same <= most and other >= chance
    words = "carries the answer" if met else "does not carry the answer"
    said = (
        f"{words}: loss {same:.3f} with values of prompts of the same answer, {other:.3f} with "
        "those of the other answer"
    )
    return Criterion("interchange", met, said, same, most)


def minimal(result: Minimality | NotMeasured | None) -> Criterion:
    """Return whether every node and edge is needed."""
    if result is None:
        return Criterion("minimality", None, "minimality has not been tested")
    if isinstance(result, NotMeasured):
        return Criterion("minimality", None, f"minimality: not tested: {result.reason}")
    n_units = len(result.losses)
    words = f"{result.n_removable} of {n_units} nodes and edges can each be removed alone"
    if result.minimal is None:
        words = f"minimality: the circuit itself misses the target, loss {result.circuit:.3f}"
    return Criterion("minimality", result.minimal, words, result.n_removable, 0)


def adversary(losses: AdversarialAblation | NotMeasured | None) -> list[str]:
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


def all_met(met: Iterable[bool | None]) -> bool | None:
    """Return whether all are met; None if none failed but some were not tested."""
    tested = list(met)
    if False in tested:
        return False
    return None if None in tested else True


def _sizes(sizes: SizeRange) -> str:
    """Return the range of sizes of the random circuits and the circuit's size, as text."""
    least, most = sizes.least, sizes.most
    return f"{least if least == most else f'{least} to {most}'} (circuit {sizes.circuit})"
