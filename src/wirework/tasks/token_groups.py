"""Token groups: the tokens of a vocabulary, grouped by what they mean for a task.

1. Deciding tokens: those that one prompt of a pair has and the other lacks, by context.
2. Last tokens: those that end most of the prompts in which they occur.
3. All others by class: names, numbers, quotes, brackets, signs, keywords, white space.

Tokens that no prompt has join the group of their class, so that a group also says what a circuit
does with a new name or number.
"""

import keyword
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from wirework.circuit_format import TokenGroup
from wirework.tasks.deciding_tokens import between
from wirework.tasks.task import TokenizedPairs

MOST_GROUPS = 10
"""Number of groups: the smallest classes beyond it join the other tokens."""

_OTHER = "other tokens"
_CLASSES = (
    "names and words",
    "numbers",
    "quotes",
    "opening brackets",
    "closing brackets",
    "operators and punctuation",
    "keywords",
    "white space and line breaks",
    _OTHER,
)
_QUOTES, _OPENING, _CLOSING = "'\"`", "([{", ")]}"


def token_groups(
    batches: Sequence[TokenizedPairs], vocab_size: int, spell: Callable[[int], str]
) -> list[TokenGroup]:
    """Group a vocabulary by the pairs of a task.

    Args:
        batches: tokenised pairs.
        vocab_size: number of tokens of the tokeniser.
        spell: returns the text of a token.

    Returns:
        At most 10 groups; every token is in one of them. Only the other tokens may have no token of
        the prompts.
    """
    prompts = [prompt for batch in batches for prompt in _prompts(batch)]
    deciding = _deciding(prompts)
    last = _last(prompts) - set(deciding)
    first_answer, second_answer = (_answer(batches, side, spell) for side in (0, 1))
    special = {
        f"deciding tokens {first_answer}": {t for t, sides in deciding.items() if sides == {0}},
        f"deciding tokens {second_answer}": {t for t, sides in deciding.items() if sides == {1}},
        "deciding tokens of both contexts": {t for t, sides in deciding.items() if len(sides) > 1},
        "last tokens": last,
    }
    groups = [_group(name, own, (), spell) for name, own in special.items() if own]
    seen = {token for prompt in prompts for token in prompt}
    rest = [token for token in range(vocab_size) if token not in last and token not in deciding]
    return groups + _classes(rest, seen, MOST_GROUPS - len(groups), spell)


def token_class(text: str) -> str:
    """Return the class of a token by its text; spaces around it do not count."""
    shown = text.strip()
    if not shown:
        return "white space and line breaks"
    if "\ufffd" in shown or shown.startswith("<|"):
        return _OTHER
    if any(sign in shown for sign in _QUOTES):
        return "quotes"
    if keyword.iskeyword(shown):
        return "keywords"
    brackets = [sign for sign in shown if sign in _OPENING + _CLOSING]
    if brackets:
        return "opening brackets" if brackets[-1] in _OPENING else "closing brackets"
    if any(sign.isalpha() or sign == "_" for sign in shown):
        return "names and words"
    return "numbers" if any(sign.isdigit() for sign in shown) else "operators and punctuation"


def _classes(
    tokens: Iterable[int], seen: set[int], most: int, spell: Callable[[int], str]
) -> list[TokenGroup]:
    """Return at most `most` classes of tokens; those without a token of `seen` join the others."""
    own: dict[str, list[int]] = {name: [] for name in _CLASSES}
    unseen: dict[str, list[int]] = {name: [] for name in _CLASSES}
    for token in tokens:
        (own if token in seen else unseen)[token_class(spell(token))].append(token)
    classes = [name for name in _CLASSES if name != _OTHER]
    by_size = sorted(classes, key=lambda name: -len(own[name]))
    kept = [name for name in by_size[: most - 1] if own[name]]
    for name in [name for name in classes if name not in kept]:
        own[_OTHER] += own[name]
        unseen[_OTHER] += unseen[name]
    return [
        _group(name, own[name], unseen[name], spell)
        for name in _CLASSES
        if name in (*kept, _OTHER) and own[name] + unseen[name]
    ]


def _group(
    name: str, own: Iterable[int], unseen: Iterable[int], spell: Callable[[int], str]
) -> TokenGroup:
    ids = tuple(sorted(own))
    texts = tuple(map(spell, ids))
    return TokenGroup(name=name, tokens=texts, token_ids=ids, unseen_ids=tuple(sorted(unseen)))


def _prompts(batch: TokenizedPairs) -> list[list[int]]:
    """Return the tokens of each prompt, the two prompts of a pair one after the other."""
    ends = (batch.last_positions + 1).tolist()
    return [ids[:end] for ids, end in zip(batch.tokens.tolist(), ends, strict=True)]


def _deciding(prompts: Sequence[Sequence[int]]) -> dict[int, set[int]]:
    """Return the deciding tokens with their contexts: 0, the first prompt of a pair, or 1.

    A token decides for a prompt that has it more often than the other prompt of the pair. If the
    two differ only in the order of some tokens, these decide for both.
    """
    contexts: dict[int, set[int]] = {}
    for first, second in zip(prompts[0::2], prompts[1::2], strict=True):
        counts = [
            Counter(ids[slice(*between(ids, other))])
            for ids, other in ((first, second), (second, first))
        ]
        is_order = counts[0] == counts[1]
        for side in (0, 1):
            for token in counts[side] if is_order else counts[side] - counts[1 - side]:
                contexts.setdefault(token, set()).add(side)
    return contexts


def _last(prompts: Sequence[Sequence[int]]) -> set[int]:
    """Return the tokens that end at least half of the prompts in which they occur."""
    in_prompts = Counter(token for prompt in prompts for token in set(prompt))
    ends = Counter(prompt[-1] for prompt in prompts)
    return {token for token, count in ends.items() if 2 * count >= in_prompts[token]}


def _answer(batches: Sequence[TokenizedPairs], side: int, spell: Callable[[int], str]) -> str:
    """Return `before X` if all prompts of a side have the answer X, else which prompts."""
    answers = {token for batch in batches for token in batch.answers[side::2, 0].tolist()}
    if len(answers) == 1:
        return f"before {spell(answers.pop())!r}"
    return f"of {('first', 'second')[side]} prompts"
