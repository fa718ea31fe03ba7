"""Find adversarial inputs: read a circuit's weak points and use them to attack the whole model.

1. On judging pairs, find the tokens that lower the circuit's logit difference most, in a comment or
   in the open string,
   and whether its heads average over the context.
2. Try these and task-independent attacks on the whole model, on held-out pairs.
3. Choose the worst attack on one half of the held-out pairs and report it on the other half: the
   worst of many measurements is partly due to chance.

Source: Gao et al. 2025, Fig. 8 and the bracket circuit.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wirework.circuits.adversarial.attacks import GENERIC, NEUTRAL, Attack
from wirework.circuits.adversarial.heads import HeadReading, read_heads
from wirework.circuits.adversarial.padding import Padding
from wirework.circuits.adversarial.reading import (
    CircuitOnModel,
    TokenReading,
    read_tokens,
    with_held_out_drop,
)
from wirework.circuits.adversarial.strongest import (
    BreakingAttack,
    Choice,
    PairSplit,
    report_worst,
    split_pairs,
    worst_by_length,
    worst_by_tokens,
)
from wirework.circuits.adversarial.sweep import AttackPoint, all_points, hardest
from wirework.circuits.circuit import Circuit
from wirework.circuits.held_out import pairs_of
from wirework.circuits.loading import load_inputs
from wirework.console import Progress, counted, warn
from wirework.errors import InputError, number_of, quoted
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.summaries import html_table, short, shown_as
from wirework.tasks import Pair, Task, tokenizer_of

if TYPE_CHECKING:
    from wirework.model import Model

_READ_PAIRS = 4
"""Judging pairs on which tokens are read, the shortest ones."""
_TOKENS_PER_SIDE = 3
"""Tokens that are tried at each place of each prompt of a pair."""


@dataclass(frozen=True)
class AttackReport:
    """Weak points read from a circuit, and the effect of attacks on the whole model."""

    task: str
    answers: tuple[str, str]
    """Right answer of the first and of the second prompt of a pair; `...` if it varies."""
    tokens: list[TokenReading]
    heads: list[HeadReading]
    points: list[AttackPoint]
    """All attacks at all strengths, measured on the choosing pairs."""
    by_tokens: BreakingAttack | None
    """Attack whose inserted tokens lower the accuracy most, compared with neutral code of equal
    length; one that the circuit follows is preferred. None if none does by 3 standard errors."""
    by_length: BreakingAttack | None
    """Attack that lowers the accuracy most where neutral code of equal length has at least half of
    the effect."""
    n_read: int
    """Number of judging pairs on which tokens were read."""
    n_choosing: int
    """Number of held-out pairs on which `points` were measured and the worst attack chosen."""
    n_reporting: int
    """Number of pairs on which the chosen attacks, the heads and the held-out drops of tokens are
    measured, if they fit the context."""
    held_out: bool
    """Whether the reporting pairs are disjoint from the choosing pairs."""

    def __repr__(self) -> str:
        about = self.summary()
        parts = (f"{name}: {short(about[name])}" for name in ("by_tokens", "by_length"))
        return shown_as("AttackReport", quoted(self.task), *parts)

    def _repr_html_(self) -> str:
        return html_table("AttackReport", self.summary())

    def summary(self) -> dict[str, Any]:
        """Return the task, the strongest attacks with an example, and what the heads do."""
        nothing = "nothing lowers P(correct) clearly"
        return {
            "task": self.task,
            "by_tokens": nothing if self.by_tokens is None else self.by_tokens.description,
            "example": None if self.by_tokens is None else self.by_tokens.example.to_dict(),
            "by_length": nothing if self.by_length is None else self.by_length.description,
            "heads": [head.words() for head in self.heads],
            "pairs": self.pairs_in_words(),
        }

    def pairs_in_words(self) -> str:
        """Return in words which pairs the numbers come from."""
        if not self.held_out:
            chosen = (
                "attacks chosen and measured on the same "
                f"{number_of(self.n_choosing, 'pair')}: NOT held out"
            )
        else:
            chosen = (
                f"attacks chosen on {number_of(self.n_choosing, 'held-out pair')}, measured on "
                f"{self.n_reporting} others"
            )
        return f"tokens read on {number_of(self.n_read, 'pair')} that judged the circuit; {chosen}"

    def to_json(self) -> dict[str, Any]:
        """Return all results for JSON; `measured_on` says which pairs each number comes from."""
        reporting = "held out" if self.held_out else "choosing"
        worst = {"point": reporting, "inserted": reporting, "example": reporting}
        return {
            **asdict(self),
            "heads": [head.to_json() for head in self.heads],
            "by_tokens": None if self.by_tokens is None else self.by_tokens.to_json(),
            "by_length": None if self.by_length is None else self.by_length.to_json(),
            "measured_on": {
                "tokens": {"drop": "read", "held_out_drop": "held out"},
                "heads": reporting,
                "points": "choosing",
                "by_tokens": {**worst, "chosen": "choosing"},
                "by_length": {**worst, "chosen": "choosing"},
            },
        }


@torch.no_grad()
@unchanged_weights()
def find_attacks(
    circuit: Circuit | str | Path,
    model: "Model | str | Path | None" = None,
    task: Task | str | Path | None = None,
    *,
    pairs: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> AttackReport:
    """Find inputs on which the whole model fails, by reading one of its circuits.

    Args:
        circuit: circuit whose task can still be loaded; a path is loaded.
        model: its model or the path; None to load it from the path saved in the circuit.
        task: the task of its search, or what `ww.task` takes. Required for a task of a user's
            function, because a function that only the circuit's file names is not run.
        pairs: maximum number of held-out pairs to choose the worst attack on, and of further ones
            to measure it on. If there are too few, the same pairs are used, with a warning.
        seed: seed of the neutral code.
        progress: show a progress bar on standard error.

    Raises:
        InputError: the circuit is of another model, its pairs cannot be determined, `pairs` is
            below 2, or no attack fits the model's context.
    """
    if pairs < 2:
        raise InputError(f"attacks are tried on two pairs or more, got {pairs}")
    circuit, model, task = load_inputs(circuit, model, task)
    on_model = CircuitOnModel(model, *circuit.edge_masks(model))
    full_task, judge, held_out, *_ = pairs_of(circuit.document, model, None, task)
    padding = Padding(tokenizer_of(model), seed)
    split = _split(held_out, pairs)
    read = sorted((judge or held_out).pairs, key=lambda pair: len(pair.prompts[0]))[:_READ_PAIRS]
    with Progress("tokens that flip the circuit", None, shown=progress):
        readings = read_tokens(on_model, read, _TOKENS_PER_SIDE)
        tokens = [with_held_out_drop(on_model, token, split.reporting) for token in readings]
    attacks: list[tuple[Attack, int | None]] = [(attack, None) for attack in GENERIC]
    attacks += [(reading.attack, reading.side) for reading in tokens]
    points: list[AttackPoint] = []
    with Progress(f"attacks {full_task.name}", len(attacks), shown=progress, count=counted) as bar:
        for attack, side in attacks:
            points += all_points(on_model, attack, side, read, split.choosing, padding)
            bar.advance()
    if not points:
        raise _no_attack_fits(full_task, split.choosing, model)
    by_name = {attack.name: attack for attack, _ in attacks}
    answers = _answers(full_task.pairs)

    def worst(choose: Choice) -> BreakingAttack | None:
        return report_worst(choose, points, by_name, on_model, split, padding, answers)

    return AttackReport(
        task=full_task.name,
        answers=answers,
        tokens=tokens,
        heads=_heads(on_model, split.reporting, padding),
        points=points,
        by_tokens=worst(worst_by_tokens),
        by_length=worst(worst_by_length),
        n_read=len(read),
        n_choosing=len(split.choosing),
        n_reporting=len(split.reporting),
        held_out=split.held_out,
    )


def _split(held_out: Task, most: int) -> PairSplit:
    """Split the held-out pairs of a task; warn if the same pairs must choose and report.

    Args:
        held_out: the task with its held-out pairs.
        most: most pairs to choose on, and most pairs to report on.
    """
    split = split_pairs(held_out.pairs, most)
    if not split.held_out:
        warn(
            f"task {held_out.name} has too few held-out pairs ({len(held_out.pairs)}) to choose "
            "the worst attack on some and measure it on others: the same pairs do both, so its "
            "effect may be due to chance; give the task more pairs"
        )
    return split


def _no_attack_fits(task: Task, pairs: Sequence[Pair], model: "Model") -> InputError:
    """Return the error of a task whose prompts leave no room for an attack."""
    longest = max(len(tokenizer_of(model).encode(pair.prompts[0])) for pair in pairs)
    return InputError(
        f"no attack fits task {task.name}: its prompts have up to "
        f"{number_of(longest, 'token')}, the model takes {model.config.n_ctx}"
    )


def _answers(pairs: Sequence[Pair]) -> tuple[str, str]:
    """Return the right answers of first and second prompts; `...` where they vary."""

    def common_answer(side: int) -> str:
        texts = {pair.answers[side] for pair in pairs}
        return min(texts) if len(texts) == 1 else "..."

    return common_answer(0), common_answer(1)


def _heads(circuit: CircuitOnModel, pairs: Sequence[Pair], padding: Padding) -> list[HeadReading]:
    """Read the heads on pairs and on the same ones with the most neutral code that fits."""
    last = hardest(circuit, pairs, NEUTRAL, padding, min(2, len(pairs)))
    return [] if last is None else read_heads(circuit, last.before, last.attacked)
