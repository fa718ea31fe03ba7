"""The attacks that break the whole model most, by tokens and by length, with examples.

Shapes: P pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wirework.circuits.distractors.attacks import Attack
from wirework.circuits.distractors.heads import between, kept_heads, patterns
from wirework.circuits.distractors.padding import Padding
from wirework.circuits.distractors.reading import CircuitOn, encode
from wirework.circuits.distractors.sweep import Beside, Case, Measure, Point, case_of
from wirework.tasks import Pair, differences

_CLEAR = 3.0  # standard errors, as the largest of some fifty falls is taken
_NEARLY = 0.95  # of the furthest fall


@dataclass(frozen=True)
class Breaking:
    """An attack that breaks the whole model."""

    point: Point
    example: dict[str, Any]
    """One prompt that it turns, with the right answer, the one that the model prefers now and
    `p`, the right one's probability among the two."""
    inserted: dict[str, float]
    """Head to the share of its attention, in the circuit, that goes to what was put in."""
    says: str


def describe(
    circuit: CircuitOn,
    point: Point,
    attack: Attack,
    pairs: Sequence[Pair],
    padding: Padding,
    answers: tuple[str, str],
) -> Breaking:
    """Return a point with an example and in words.

    Args:
        circuit: and its model.
        point: what was measured.
        attack: the one that it measures.
        pairs: those that were measured on.
        padding: of the controls.
        answers: of the first and the second prompt, for the words.
    """
    case = case_of(circuit, pairs, attack, point.strength, padding)
    return Breaking(
        point=point,
        example=_example(circuit, case, point.side),
        inserted=_inserted(circuit, case, point.side),
        says=says(point, answers),
    )


def worst_by_tokens(points: Sequence[Point]) -> Point | None:
    """Return the point where accuracy falls furthest below that of neutral code as long.

    None where none falls, and P(correct) with it by three standard errors. An attack that the
    circuit follows goes before one that it withstands and that falls up to twice as far. Of points
    that fall nearly as far as the furthest, the one of the shortest prompts.
    """
    beyond = [p for p in points if _clear(p.model.beyond, p.model.beyond_se)]
    worst = _furthest(beyond, _by_control)
    if worst is None:
        return None
    enough = _fall(worst, _by_control) / 2
    followed = [p for p in beyond if follows(p) and _fall(p, _by_control) >= enough]
    return _furthest(followed, _by_control) or worst


def follows(point: Point) -> bool:
    """Whether the circuit alone falls clearly too, and half as far as the model or more."""
    model, circuit = point.model, point.circuit
    return _clear(circuit.fall, circuit.fall_se) and circuit.fall >= model.fall / 2


def worst_by_length(points: Sequence[Point]) -> Point | None:
    """Return the point where accuracy falls furthest and neutral code does half of it or more.

    None where there is none, and of several as `worst_by_tokens`.
    """
    fallen = [p for p in points if _clear(p.model.fall, p.model.fall_se)]
    shared = [p for p in fallen if _shared(p.model)]
    return _furthest(shared, lambda beside: beside.before)


def _shared(beside: Beside) -> bool:
    """Whether the control falls half as far as the attacked prompts, by P and by accuracy."""
    before, attacked, control = (
        (m.p, m.accuracy) for m in (beside.before, beside.attacked, beside.control)
    )
    falls = zip(before, attacked, control, strict=True)
    return all(was - as_long >= (was - now) / 2 for was, now, as_long in falls)


def _by_control(beside: Beside) -> Measure:
    return beside.control


def _fall(point: Point, base: Callable[[Beside], Measure]) -> float:
    return base(point.model).accuracy - point.model.attacked.accuracy


def _furthest(points: Sequence[Point], base: Callable[[Beside], Measure]) -> Point | None:
    falls = [_fall(p, base) for p in points]
    least = max(_NEARLY * max(falls, default=0), 1e-9)
    near = [p for p, fall in zip(points, falls, strict=True) if fall >= least]
    return min(near, key=lambda point: point.tokens, default=None)


def _clear(mean: float, error: float) -> bool:
    return mean > max(_CLEAR * error, 0.01)


def says(point: Point, answers: tuple[str, str]) -> str:
    """Return a point in words; `answers` are those of the first and the second prompt."""
    model, circuit = point.model, point.circuit
    times = "once" if point.strength == 1 else f"{point.strength} times"
    return (
        f"{point.attack}, {times}: accuracy where `{answers[point.side]}` is right falls from "
        f"{model.before.accuracy:.2f} to {model.attacked.accuracy:.2f} (P from {model.before.p:.2f}"
        f" to {model.attacked.p:.2f}) at {point.tokens:.0f} tokens, with as much neutral code to "
        f"{model.control.accuracy:.2f} ({model.control.p:.2f}); of the circuit alone from "
        f"{circuit.before.accuracy:.2f} to {circuit.attacked.accuracy:.2f}"
        f"{'' if follows(point) else ', which withstands it: what breaks the model lies outside'}"
    )


def _example(circuit: CircuitOn, case: Case, side: int) -> dict[str, Any]:
    """Return the prompt that was right as it was and is furthest from it now."""
    transformer = circuit.model.transformer
    before, after = (
        differences(transformer, encode(pairs, circuit.model)).view(-1, 2)[:, side]
        for pairs in (case.before, case.attacked)
    )
    place = int(torch.where(before > 0, after, after.max() + 1).argmin())
    pair, p = case.attacked[place], float(after[place].double().sigmoid())
    right, wrong = pair.answers[side], pair.answers[1 - side]
    says = right if p > 0.5 else wrong
    return {"prompt": pair.prompts[side], "right": right, "model_says": says, "p": p}


def _inserted(circuit: CircuitOn, case: Case, side: int) -> dict[str, float]:
    """Return, for each kept head, its mean attention to the tokens that the attack put in."""
    rows = encode(case.attacked, circuit.model)
    before = encode(case.before, circuit.model)
    weights = patterns(circuit, rows)
    total = torch.zeros(len(weights))
    chosen = range(side, len(rows.at), 2)
    for row in chosen:
        ids = rows.tokens[row, : int(rows.at[row]) + 1].tolist()
        first, end = between(ids, before.tokens[row, : int(before.at[row]) + 1].tolist())
        total += weights[:, row, first:end].sum(-1).cpu()
    shares = (total / len(chosen)).tolist()
    return {
        f"{layer}.{head}": share
        for (layer, head), share in zip(kept_heads(circuit), shares, strict=True)
    }
