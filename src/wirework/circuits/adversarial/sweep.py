"""Attacks at increasing strength: P(correct) of the whole model and of the circuit.

Each point is measured on the pairs that fit the context, and compared with the unchanged pairs and
with the same pairs made equally long by neutral code.
Shapes: P pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from torch import Tensor

from wirework.circuits.adversarial.attacks import Attack
from wirework.circuits.adversarial.padding import Padding
from wirework.circuits.adversarial.reading import CircuitOnModel, encode, fits
from wirework.circuits.node_assembly import standard_error
from wirework.tasks import Pair, differences

LEAST_PAIRS = 8
"""Fewest pairs that must fit the context for a point."""


@dataclass(frozen=True)
class Measure:
    """Probability and accuracy of the right answers, on the attacked prompts and on all."""

    p: float
    """Mean probability of the right answer of the two, on the attacked side."""
    p_se: float
    """Its standard error over pairs."""
    accuracy: float
    """Share of prompts on that side whose right answer is more likely than the wrong one."""
    p_both: float
    """Mean probability over both prompts of each pair."""
    accuracy_both: float
    """The same share over both prompts of each pair."""
    accuracy_se: float
    """Standard error of `accuracy` over pairs; `_se` means this throughout."""
    p_both_se: float
    accuracy_both_se: float

    @classmethod
    def of(cls, logit_diffs: Tensor, side: int) -> "Measure":
        """Compute the measures from logit differences.

        Args:
            logit_diffs: (P, 2), right minus wrong logit.
            side: which prompt of a pair is attacked, 0 or 1.
        """
        p, right = logit_diffs.double().sigmoid(), (logit_diffs > 0).double()
        return cls(
            p=float(p[:, side].mean()),
            p_se=standard_error(p[:, side]),
            accuracy=float(right[:, side].mean()),
            p_both=float(p.mean()),
            accuracy_both=float(right.mean()),
            accuracy_se=standard_error(right[:, side]),
            p_both_se=standard_error(p.mean(1)),
            accuracy_both_se=standard_error(right.mean(1)),
        )


@dataclass(frozen=True)
class Comparison:
    """Measures of attacked prompts, unchanged prompts and control, on the same pairs."""

    attacked: Measure
    """Attacked prompts."""
    before: Measure
    """Unchanged prompts."""
    control: Measure
    """Prompts made equally long by neutral code."""
    fall: float
    """P(correct) before minus attacked, on the attacked side."""
    fall_se: float
    beyond: float
    """P(correct) of the control minus attacked: the effect beyond that of the length."""
    beyond_se: float


@dataclass(frozen=True)
class AttackPoint:
    """One attack at one strength."""

    attack: str
    """Name of the attack."""
    strength: int
    """Number of elements, words, lines or tokens that it adds."""
    side: int
    """Which prompt of a pair is attacked, 0 or 1."""
    n_pairs: int
    """Number of pairs to which it applies and that fit the context."""
    tokens: float
    """Mean length of the attacked prompts of that side."""
    before_tokens: float
    """Mean length of the unchanged prompts."""
    control_tokens: float
    """Mean length of the prompts of the control."""
    model: Comparison
    """On the whole model."""
    circuit: Comparison
    """On the circuit alone."""


@dataclass(frozen=True)
class Case:
    """Pairs before and after an attack, and their controls, in the same order."""

    before: list[Pair]
    attacked: list[Pair]
    control: list[Pair]


def cases(
    circuit: CircuitOnModel, pairs: Sequence[Pair], attack: Attack, padding: Padding, least: int
) -> Iterator[tuple[int, Case]]:
    """Yield an attack at growing strength, as long as enough attacked pairs fit the context.

    Args:
        circuit: the circuit with its model.
        pairs: the pairs to attack.
        attack: the attack.
        padding: neutral code for the controls.
        least: fewest pairs that must fit.

    Yields:
        Strength 1, 2, 4, ..., and the pairs that fit at this strength.
    """
    strength = 1
    while len((case := case_of(circuit, pairs, attack, strength, padding)).before) >= least:
        yield strength, case
        strength *= 2


def case_of(
    circuit: CircuitOnModel, pairs: Sequence[Pair], attack: Attack, strength: int, padding: Padding
) -> Case:
    """Return the pairs to which an attack applies and that fit, together with their controls."""
    case = Case([], [], [])
    for number, pair in enumerate(pairs):
        rng = Random(f"{attack.name} {strength} {number}")
        after = attack(pair, strength, rng)
        if after is None or not fits(after, circuit.model):
            continue
        control = padding.control(pair, after, rng)
        if fits(control, circuit.model):
            case.before.append(pair)
            case.attacked.append(after)
            case.control.append(control)
    return case


def hardest(
    circuit: CircuitOnModel, pairs: Sequence[Pair], attack: Attack, padding: Padding, least: int
) -> Case | None:
    """Return the case of the largest strength that fits; None if none fits."""
    last: Case | None = None
    for _, case in cases(circuit, pairs, attack, padding, least):
        last = case
    return last


def point(
    circuit: CircuitOnModel, attack: Attack, strength: int, side: int, case: Case
) -> AttackPoint:
    """Measure one attack at one strength on the model and on the circuit."""
    batches = [encode(pairs, circuit.model) for pairs in (case.attacked, case.before, case.control)]
    transformer = circuit.model.transformer
    by_model = [differences(transformer, batch).view(-1, 2) for batch in batches]
    by_circuit = [circuit.logit_diffs(batch) for batch in batches]
    lengths = [float((batch.last_positions[side::2] + 1).double().mean()) for batch in batches]
    return AttackPoint(
        attack=attack.name,
        strength=strength,
        side=side,
        n_pairs=len(case.before),
        tokens=lengths[0],
        before_tokens=lengths[1],
        control_tokens=lengths[2],
        model=_compared(by_model, side),
        circuit=_compared(by_circuit, side),
    )


def _compared(logit_diffs: Sequence[Tensor], side: int) -> Comparison:
    """Compare logit differences (P, 2) of attacked prompts, unchanged prompts and control."""
    attacked, before, control = logit_diffs
    p, p_before, p_control = (diffs[:, side].double().sigmoid() for diffs in logit_diffs)
    return Comparison(
        attacked=Measure.of(attacked, side),
        before=Measure.of(before, side),
        control=Measure.of(control, side),
        fall=float((p_before - p).mean()),
        fall_se=standard_error(p_before - p),
        beyond=float((p_control - p).mean()),
        beyond_se=standard_error(p_control - p),
    )


def weak_side(circuit: CircuitOnModel, case: Case) -> int:
    """Return the prompt of a pair (0 or 1) whose logit difference in the circuit drops more."""
    attacked, before = (
        circuit.logit_diffs(encode(pairs, circuit.model)) for pairs in (case.attacked, case.before)
    )
    return int((before - attacked).mean(0).argmax())


def all_points(
    circuit: CircuitOnModel,
    attack: Attack,
    side: int | None,
    read: Sequence[Pair],
    choosing: Sequence[Pair],
    padding: Padding,
) -> list[AttackPoint]:
    """Measure an attack at all strengths that fit.

    Args:
        circuit: the circuit with its model.
        attack: the attack.
        side: which prompt of a pair is attacked; None to choose with the circuit on `read`.
        read: pairs on which the circuit is read.
        choosing: pairs on which to measure.
        padding: neutral code for the controls.
    """
    if side is None:
        case = hardest(circuit, read, attack, padding, 1)
        if case is None:
            return []
        side = weak_side(circuit, case)
    least = min(LEAST_PAIRS, len(choosing))
    fitting_cases = cases(circuit, choosing, attack, padding, least)
    return [point(circuit, attack, strength, side, case) for strength, case in fitting_cases]
