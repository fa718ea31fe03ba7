from collections.abc import Sequence

import pytest
import torch

from wirework.circuit_format import TokenGroup
from wirework.tasks import TokenizedPairs
from wirework.tasks.token_groups import MOST_GROUPS, token_class, token_groups

TEXTS = ["'", '"', "print", "(", " x", " y", "7", "\n", " for", ")", "+", "never", "8"]
SINGLE, DOUBLE, PRINT, OPEN, X, Y, SEVEN, LINE, FOR, CLOSE, PLUS, NEVER, EIGHT = range(13)


def pairs_of(*prompts: Sequence[int]) -> TokenizedPairs:
    """Return pairs of prompts, two after each other, with the answers 0 and 1."""
    width = max(map(len, prompts))
    tokens = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
    last = torch.tensor([len(prompt) - 1 for prompt in prompts])
    answers = torch.tensor([[0, 1], [1, 0]] * (len(prompts) // 2))
    return TokenizedPairs(tokens, last, answers)


def groups_of(*prompts: Sequence[int]) -> dict[str, TokenGroup]:
    found = token_groups([pairs_of(*prompts)], len(TEXTS), TEXTS.__getitem__)
    return {group.name: group for group in found}


class TestTokenGroups:
    def test_tokens_that_one_prompt_of_a_pair_has_decide(self):
        groups = groups_of([PRINT, OPEN, SINGLE, X], [PRINT, OPEN, DOUBLE, X])
        assert groups['deciding tokens before "\'"'].token_ids == (SINGLE,)
        assert groups["deciding tokens before '\"'"].token_ids == (DOUBLE,)
        assert groups["last tokens"].token_ids == (X,)
        assert groups["opening brackets"].token_ids == (OPEN,)

    def test_tokens_in_another_order_decide_for_both_contexts(self):
        groups = groups_of([X, PLUS, Y, OPEN], [Y, PLUS, X, OPEN])
        assert groups["deciding tokens of both contexts"].token_ids == (X, Y, PLUS)

    def test_a_prompt_with_fewer_tokens_has_no_deciding_token(self):
        groups = groups_of([PRINT, SEVEN, OPEN], [PRINT, OPEN])
        assert groups['deciding tokens before "\'"'].token_ids == (SEVEN,)
        assert [name for name in groups if name.startswith("deciding")] == [
            'deciding tokens before "\'"'
        ]

    def test_a_token_that_rarely_ends_a_prompt_is_no_last_token(self):
        prompts = [[X, SINGLE, Y], [X, DOUBLE, Y], [Y, SINGLE, X], [Y, DOUBLE, X]]
        more = [[X, Y, SINGLE, PLUS], [X, Y, DOUBLE, PLUS]]
        groups = groups_of(*prompts, *more, *more)
        assert groups["last tokens"].token_ids == (PLUS,)

    def test_tokens_in_no_prompt_join_their_class(self):
        groups = groups_of([SEVEN, SINGLE, X, OPEN], [SEVEN, DOUBLE, X, OPEN])
        assert groups["names and words"].token_ids == (X,)
        assert groups["names and words"].unseen_ids == (PRINT, Y, NEVER)
        assert groups["numbers"].tokens == ("7",)
        assert groups["numbers"].unseen_ids == (EIGHT,)

    def test_every_token_is_in_one_of_ten_groups_and_the_smallest_classes_join_the_others(self):
        every = [PRINT, OPEN, X, Y, SEVEN, LINE, FOR, CLOSE, PLUS]
        prompts = [[*every, SINGLE, PRINT], [*every, DOUBLE, PRINT]]
        found = token_groups([pairs_of(*prompts)], len(TEXTS), TEXTS.__getitem__)
        ids = [token for group in found for token in (*group.token_ids, *group.unseen_ids)]
        assert sorted(ids) == list(range(len(TEXTS)))
        assert len(found) == MOST_GROUPS
        assert (found[-1].name, found[-1].token_ids) == ("other tokens", (LINE,))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("('", "quotes"), (" for", "keywords"), ("](", "opening brackets"),
        ("()", "closing brackets"), (" self.", "names and words"), ("_", "names and words"),
        (" 12", "numbers"), (" +=", "operators and punctuation"),
        (":\n", "operators and punctuation"),
        ("\n   ", "white space and line breaks"), ("", "white space and line breaks"),
        ("<|endoftext|>", "other tokens"), ("\ufffd", "other tokens"),
    ],
)  # fmt: skip
def test_the_class_of_a_token_is_that_of_its_text(text: str, name: str):
    assert token_class(text) == name
