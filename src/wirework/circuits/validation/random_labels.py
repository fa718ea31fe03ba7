"""Random-label control: real prompts whose "right" answer is set by a rule unrelated to the task.

The rule is a property of the prompt that does not affect the behaviour. The model was not trained
on it, but learned masks can fit such labels and generalise to held-out prompts; then the masks, not
the model, solve the task (a 2026 replication of Gao et al. saw this, with about 3 times the nodes).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from wirework.circuits.circuit import tokenize_task
from wirework.circuits.masking.masked_circuit import passes
from wirework.errors import InputError, number_of
from wirework.tasks import Pair, Task, TokenizedPairs, tokenizer_of
from wirework.tasks.task import LEAST_PAIRS

if TYPE_CHECKING:
    from wirework.model import Model

Rule = Callable[[Sequence[int]], bool]
"""Maps the tokens of a prompt to its label: which of the two answers counts as right."""

_N_TOKEN_RULES = 8
"""Number of rules "token occurs", for tokens that occur in nearly half of the prompts."""
_LEAST_SHARE = 0.75
"""A rule must give at least this share of the pairs that the best rule gives."""
_RIDGE = 1e-3
"""Ridge penalty of the probe, relative to the mean square of a channel."""


class _Prompt(NamedTuple):
    """A prompt of the real task."""

    text: str
    ids: list[int]
    """Its tokens."""
    right: str
    """Right answer in the real task."""
    state: Tensor
    """(D,) float64, residual stream at the last token."""


_Match = tuple[_Prompt, _Prompt]
"""A prompt for which the rule holds, and one for which it does not."""


def random_labels(task: Task, model: "Model", seed: int) -> Task:
    """Return a task with fixed labels that are computable from the prompts but meaningless.

    One prompt of each original pair is drawn. A new pair consists of two prompts with the same
    right answer in the real task but different labels, so the real answer carries no information:
    predicting from it gives chance (0.693 nats) on every pair. Among the balanced rules, the one
    that a linear probe decodes best from the model is used, so that masks get the best chance. The
    two most frequent answers of the task are the answers.

    Args:
        task: the real task.
        model: model whose tokeniser and context the prompts must fit.
        seed: draws the prompts and matches them to pairs.

    Raises:
        InputError: the task does not fit the model, or no rule gives enough pairs.
    """
    generator = Random(f"nonsense {seed}")  # another text would draw other prompts
    prompts = _drawn(task, model, generator)
    label_rules = rules([prompt.ids for prompt in prompts], tokenizer_of(model).token)
    matches = {name: _matched(prompts, rule, generator) for name, rule in label_rules.items()}
    most_pairs = max(len(pairs) for pairs in matches.values())
    if most_pairs < LEAST_PAIRS:
        raise InputError(
            f"no random-label task can be made of {task.name}: random labels give at most "
            f"{number_of(most_pairs, 'pair')} of its {len(task.pairs)}, at least {LEAST_PAIRS} are "
            "needed"
        )
    least_pairs = _LEAST_SHARE * most_pairs
    balanced = {name: pairs for name, pairs in matches.items() if len(pairs) >= least_pairs}
    name = max(balanced, key=lambda name: _probe_accuracy(balanced[name]))
    answers = _most_frequent_answers(task)
    pairs = tuple(
        Pair((with_label.text, without.text), answers) for with_label, without in balanced[name]
    )
    random_task = Task(f"{task.name} (random labels: {name})", pairs, generated=True, seed=seed)
    return random_task.fitted(tokenizer_of(model), model.config.n_ctx)


def rules(prompts: Sequence[Sequence[int]], spell: Callable[[int], str]) -> Mapping[str, Rule]:
    """Return the label rules by name: parities, and whether a certain token occurs.

    Args:
        prompts: tokens of each prompt.
        spell: returns the text of a token.
    """
    counts = Counter(token for ids in prompts for token in set(ids))
    by_balance = sorted(counts, key=lambda token: (abs(2 * counts[token] - len(prompts)), token))
    return {f"{spell(token)!r} occurs": _occurs(token) for token in by_balance[:_N_TOKEN_RULES]} | {
        "last token's number odd": lambda ids: ids[-1] % 2 == 1,
        "first token's number odd": lambda ids: ids[0] % 2 == 1,
        "second token's number odd": lambda ids: len(ids) > 1 and ids[1] % 2 == 1,
        "number of tokens odd": lambda ids: len(ids) % 2 == 1,
    }


def _occurs(token: int) -> Rule:
    return lambda ids: token in ids


def _drawn(task: Task, model: "Model", generator: Random) -> list[_Prompt]:
    """Return one prompt of each pair in random order, alternately the first and the second."""
    fitted = task.fitted(tokenizer_of(model), model.config.n_ctx)
    batch = tokenize_task(fitted, model)
    states = _states(model, batch)
    order = list(range(batch.n_pairs))
    generator.shuffle(order)
    drawn = []
    for turn, number in enumerate(order):
        pair, side = fitted.pairs[number], turn % 2
        row = 2 * number + side
        ids = batch.tokens[row, : int(batch.last_positions[row]) + 1].tolist()
        drawn.append(_Prompt(pair.prompts[side], ids, pair.answers[side], states[row]))
    return drawn


@torch.no_grad()
def _states(model: "Model", batch: TokenizedPairs) -> Tensor:
    """Return (2P, D) float64, the residual stream at each prompt's last token."""
    last_states = torch.zeros(len(batch.last_positions), model.config.d_model, dtype=torch.float64)
    for rows, part in passes(batch):
        states = model.transformer.state(part.tokens)
        prompts = torch.arange(len(part.last_positions), device=part.last_positions.device)
        last_states[rows] = states[prompts, part.last_positions].double().cpu()
    return last_states


def _matched(prompts: Sequence[_Prompt], rule: Rule, generator: Random) -> list[_Match]:
    """Match prompts of the same right answer: one for which the rule holds, one for which not."""
    by_answer: dict[str, tuple[list[_Prompt], list[_Prompt]]] = {}
    for prompt in prompts:
        holds, fails = by_answer.setdefault(prompt.right, ([], []))
        (holds if rule(prompt.ids) else fails).append(prompt)
    matches = [
        match for holds, fails in by_answer.values() for match in zip(holds, fails, strict=False)
    ]
    generator.shuffle(matches)
    return matches


def _probe_accuracy(matches: Sequence[_Match]) -> float:
    """Return the held-out accuracy of a linear probe fitted on half of the pairs."""
    state_differences = torch.stack(
        [with_label.state - without.state for with_label, without in matches]
    )
    half = len(state_differences) // 2
    train, held_out = state_differences[:half], state_differences[half:]
    second_moment = train.T @ train / len(train)
    ridge = _RIDGE * second_moment.diagonal().mean().clamp(min=1e-12)
    penalty = ridge * torch.eye(len(second_moment)).double()
    direction = torch.linalg.solve(second_moment + penalty, train.mean(0))
    return float((held_out @ direction > 0).double().mean())


def _most_frequent_answers(task: Task) -> tuple[str, str]:
    """Return the two most frequent answers of a task."""
    counts = Counter(answer for pair in task.pairs for answer in pair.answers)
    (first, _), (second, _) = counts.most_common(2)
    return first, second
