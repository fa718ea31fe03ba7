"""The strongest attacks on the whole model, by tokens and by length, with examples.

Shapes: P pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from wirework.circuits.adversarial.attacks import Attack
from wirework.circuits.adversarial.heads import kept_heads, patterns
from wirework.circuits.adversarial.padding import Padding
from wirework.circuits.adversarial.reading import CircuitOnModel, encode
from wirework.circuits.adversarial.sweep import (
    LEAST_PAIRS,
    AttackPoint,
    Case,
    Comparison,
    Measure,
    case_of,
    point,
)
from wirework.renamed_names import old_attributes
from wirework.summaries import Report
from wirework.tasks import Pair, TokenizedPairs, differences
from wirework.tasks.deciding_tokens import between
from wirework.tasks.task_split import linked
from wirework.view.visible_text import label

_CLEAR = 3.0
"""Standard errors that a drop must exceed: the largest of about fifty drops is chosen."""
_LEAST_REPORTED = 2
"""Pairs needed for a standard error."""
_NEARLY = 0.95
"""Drops of at least this share of the largest count as equal to it."""


@dataclass(frozen=True)
class PairSplit:
    """Pairs that choose the worst attack, and pairs on which it is reported."""

    choosing: list[Pair]
    """Pairs on which attacks are compared."""
    reporting: list[Pair]
    """Pairs on which the chosen attack is measured."""
    held_out: bool
    """Whether the two have no pair and no prompt in common. If not, they are the same pairs."""


def split_pairs(pairs: Sequence[Pair], most: int) -> PairSplit:
    """Split pairs into choosing and reporting pairs.

    Every other pair chooses, or every other group of pairs that share prompts if that makes the
    smaller part larger. If a part would have fewer than two pairs, both are the first `most` pairs.

    Args:
        pairs: the pairs.
        most: most pairs of each part.
    """
    of_groups = [pair for group in linked(pairs)[::2] for pair in group]
    splits = (_split_by(pairs, half[:most], most) for half in (pairs[::2], of_groups))
    split = max(splits, key=_smaller_part)
    if _smaller_part(split) < _LEAST_REPORTED:
        return PairSplit(list(pairs[:most]), list(pairs[:most]), False)
    return split


def _split_by(pairs: Sequence[Pair], choosing: Sequence[Pair], most: int) -> PairSplit:
    """Return the choosing pairs, and as reporting pairs those without a common prompt."""
    prompts = {prompt for pair in choosing for prompt in pair.prompts}
    reporting = [pair for pair in pairs if prompts.isdisjoint(pair.prompts)][:most]
    return PairSplit(list(choosing), reporting, True)


def _smaller_part(split: PairSplit) -> int:
    """Return the number of pairs of the smaller part."""
    return min(len(split.choosing), len(split.reporting))


@dataclass(frozen=True, repr=False)
class Example(Report):
    """A prompt that the model answers right, but wrong or less surely after an attack."""

    prompt: str
    """The attacked prompt."""
    right: str
    """Its right answer."""
    model_says: str
    """The answer of the two that the model prefers."""
    p: float
    """Probability of the right answer of the two."""


@old_attributes(says="description")
@dataclass(frozen=True)
class BreakingAttack:
    """An attack on which the whole model fails."""

    point: AttackPoint
    """Result on the reporting pairs, which did not choose it if `held_out`."""
    example: Example
    """The reporting prompt with the largest effect."""
    inserted: dict[str, float]
    """Head to the share of its attention, in the circuit, on the inserted tokens; mean over the
    reporting pairs."""
    description: str
    """The result in words."""
    chosen: AttackPoint
    """Result on the choosing pairs. It is the worst of many there, so it overestimates the
    effect."""
    held_out: bool
    """Whether the reporting pairs did not choose the attack."""
    confirmed: bool
    """Whether at least `LEAST_PAIRS` reporting pairs show the effect by three standard errors."""

    def to_json(self) -> dict[str, Any]:
        """Return the result for JSON, where the key of `description` is `says`."""
        values = asdict(self).items()
        return {"says" if name == "description" else name: value for name, value in values}


Choice = Callable[[Sequence[AttackPoint]], AttackPoint | None]
"""Returns the worst of some points, or None if none is clear."""


def report_worst(
    choose: Choice,
    points: Sequence[AttackPoint],
    attacks: Mapping[str, Attack],
    circuit: CircuitOnModel,
    split: PairSplit,
    padding: Padding,
    answers: tuple[str, str],
) -> BreakingAttack | None:
    """Return the worst attack on the choosing pairs, measured on the reporting pairs.

    Args:
        choose: `worst_by_tokens` or `worst_by_length`.
        points: results on the choosing pairs; a point is skipped if fewer than two reporting pairs
            fit the context.
        attacks: attacks by name.
        circuit: the circuit with its model.
        split: choosing and reporting pairs.
        padding: neutral code for the controls.
        answers: answers of the first and the second prompt, for the text.
    """
    candidates = list(points)
    while (chosen := choose(candidates)) is not None:
        attack = attacks[chosen.attack]
        case = case_of(circuit, split.reporting, attack, chosen.strength, padding)
        if len(case.before) >= _LEAST_REPORTED:
            measured = point(circuit, attack, chosen.strength, chosen.side, case)
            has_enough_pairs = measured.n_pairs >= LEAST_PAIRS
            confirmed = has_enough_pairs and choose([measured]) is not None
            return BreakingAttack(
                point=measured,
                example=_example(circuit, case, chosen.side),
                inserted=_inserted(circuit, case, chosen.side),
                description=describe(
                    measured, answers, held_out=split.held_out, confirmed=confirmed
                ),
                chosen=chosen,
                held_out=split.held_out,
                confirmed=confirmed,
            )
        candidates.remove(chosen)
    return None


def worst_by_tokens(points: Sequence[AttackPoint]) -> AttackPoint | None:
    """Return the point with the largest drop of accuracy relative to neutral code of equal length.

    P(correct) must drop by three standard errors; None if it does nowhere. An attack that the
    circuit follows is preferred to one with up to twice the drop that it does not follow. Among
    drops close to the largest, the point with the shortest prompts is returned.

    Args:
        points: results on the choosing pairs.
    """
    clear = [point for point in points if _is_clear(point.model.beyond, point.model.beyond_se)]
    worst = _largest_drop(clear, _control)
    if worst is None:
        return None
    least_drop = _accuracy_drop(worst, _control) / 2
    followed = [
        point for point in clear if follows(point) and _accuracy_drop(point, _control) >= least_drop
    ]
    return _largest_drop(followed, _control) or worst


def follows(point: AttackPoint) -> bool:
    """Return whether the circuit alone drops clearly too, at least half as far as the model."""
    model, circuit = point.model, point.circuit
    return _is_clear(circuit.fall, circuit.fall_se) and circuit.fall >= model.fall / 2


def worst_by_length(points: Sequence[AttackPoint]) -> AttackPoint | None:
    """Return the point with the largest drop of which neutral code causes at least half.

    None if there is none; ties as in `worst_by_tokens`.

    Args:
        points: results on the choosing pairs.
    """
    clear = [point for point in points if _is_clear(point.model.fall, point.model.fall_se)]
    due_to_length = [point for point in clear if _is_due_to_length(point.model)]
    return _largest_drop(due_to_length, lambda comparison: comparison.before)


def _is_due_to_length(comparison: Comparison) -> bool:
    """Return whether the control drops at least half as far as the attack, in P and accuracy."""
    before, attacked, control = comparison.before, comparison.attacked, comparison.control

    def is_half(before: float, attacked: float, control: float) -> bool:
        return before - control >= (before - attacked) / 2

    return is_half(before.p, attacked.p, control.p) and is_half(
        before.accuracy, attacked.accuracy, control.accuracy
    )


def _control(comparison: Comparison) -> Measure:
    return comparison.control


def _accuracy_drop(point: AttackPoint, base: Callable[[Comparison], Measure]) -> float:
    """Return by how much the attack lowers the model's accuracy, relative to a base."""
    return base(point.model).accuracy - point.model.attacked.accuracy


def _largest_drop(
    points: Sequence[AttackPoint], base: Callable[[Comparison], Measure]
) -> AttackPoint | None:
    """Return the point of the largest drop of accuracy; of nearly equal ones the shortest."""
    drops = [_accuracy_drop(point, base) for point in points]
    least = max(_NEARLY * max(drops, default=0), 1e-9)
    near = [point for point, drop in zip(points, drops, strict=True) if drop >= least]
    return min(near, key=lambda point: point.tokens, default=None)


def _is_clear(mean: float, error: float) -> bool:
    """Return whether a drop exceeds three standard errors, and a hundredth."""
    return mean > max(_CLEAR * error, 0.01)


_WITHSTANDS = ", which withstands it: nodes outside it break the model"
_UNCONFIRMED = ", which do not confirm it: the choice may be due to chance"


def describe(
    measured: AttackPoint, answers: tuple[str, str], *, held_out: bool, confirmed: bool = True
) -> str:
    """Return a point in words.

    Args:
        measured: result on the reporting pairs.
        answers: right answers of the first and the second prompt.
        held_out: whether these pairs did not choose the attack.
        confirmed: whether they show its effect clearly.
    """
    model, circuit, answer = measured.model, measured.circuit, label(answers[measured.side])
    times = "once" if measured.strength == 1 else f"{measured.strength} times"
    pairs = "held-out pairs" if held_out else "pairs, which also chose it (not held out)"
    return (
        f"{measured.attack}, {times}: accuracy where `{answer}` is right falls from"
        f" {model.before.accuracy:.2f} to {_with_error(model.attacked)} (P from"
        f" {model.before.p:.2f} to {model.attacked.p:.2f}, a fall of {model.fall:.2f} ±"
        f" {model.fall_se:.2f}) at {measured.tokens:.0f} tokens, with as much neutral code to"
        f" {_with_error(model.control)} (P {model.control.p:.2f}); of the circuit alone from"
        f" {circuit.before.accuracy:.2f} to {_with_error(circuit.attacked)}"
        f"{'' if follows(measured) else _WITHSTANDS}; mean ± standard error of "
        f"{measured.n_pairs} {pairs}{'' if confirmed else _UNCONFIRMED}"
    )


def _with_error(measure: Measure) -> str:
    return f"{measure.accuracy:.2f} ± {measure.accuracy_se:.2f}"


def _example(circuit: CircuitOnModel, case: Case, side: int) -> Example:
    """Return the prompt that was answered right before the attack and is most wrong after it."""
    transformer = circuit.model.transformer
    before, after = (
        differences(transformer, encode(pairs, circuit.model)).view(-1, 2)[:, side]
        for pairs in (case.before, case.attacked)
    )
    number = int(torch.where(before > 0, after, after.max() + 1).argmin())
    pair, p = case.attacked[number], float(after[number].double().sigmoid())
    right, wrong = pair.answers[side], pair.answers[1 - side]
    return Example(pair.prompts[side], right, right if p > 0.5 else wrong, p)


def _inserted(circuit: CircuitOnModel, case: Case, side: int) -> dict[str, float]:
    """Return the share of each kept head's attention that is on the inserted tokens, by head."""
    batch, before = encode(case.attacked, circuit.model), encode(case.before, circuit.model)
    weights = patterns(circuit, batch)
    total = torch.zeros(len(weights))
    rows = range(side, len(batch.last_positions), 2)
    for row in rows:
        first, end = between(_tokens_of(batch, row), _tokens_of(before, row))
        total += weights[:, row, first:end].sum(-1).cpu()
    shares = (total / len(rows)).tolist()
    return {
        f"{layer}.{head}": share
        for (layer, head), share in zip(kept_heads(circuit), shares, strict=True)
    }


def _tokens_of(batch: TokenizedPairs, row: int) -> list[int]:
    """Return the tokens of one prompt, without padding."""
    tokens: list[int] = batch.tokens[row, : int(batch.last_positions[row]) + 1].tolist()
    return tokens
