"""The tokens in which the two prompts of a pair differ."""

import pytest
import torch

from wirework.tasks import TokenizedPairs
from wirework.tasks.deciding_tokens import between, deciding_tokens


@pytest.mark.parametrize(
    ("one", "other", "place"),
    [
        ([1, 2, 3, 4], [1, 5, 3, 4], (1, 2)),
        ([1, 2, 2, 3], [1, 2, 3], (2, 3)),
        ([1, 2, 3], [1, 2, 2, 3], (2, 2)),
        ([9, 8, 1, 2], [1, 2], (0, 2)),
    ],
)
def test_between(one: list[int], other: list[int], place: tuple[int, int]):
    assert between(one, other) == place


def batch_of(*prompts: list[int]) -> TokenizedPairs:
    longest = max(map(len, prompts))
    return TokenizedPairs(
        torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]),
        torch.tensor([len(prompt) - 1 for prompt in prompts]),
        torch.tensor([[1, 2], [2, 1]] * (len(prompts) // 2)),
    )


def test_the_tokens_that_differ_are_marked_and_padding_is_not():
    batch = batch_of([5, 6, 7], [5, 8, 7], [5, 6], [5, 9, 9, 6])
    assert deciding_tokens(batch).int().tolist() == [
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 0],  # the token after the gap
        [0, 1, 1, 0],
    ]


def test_a_prompt_that_is_the_beginning_of_the_other_is_marked_at_its_last_token():
    assert deciding_tokens(batch_of([5, 6], [5, 6, 7])).int().tolist() == [[0, 1, 0], [0, 0, 1]]


def test_what_both_prompts_share_between_deciding_tokens_is_not_marked():
    batch = batch_of([5, 1, 2, 7, 8, 3, 6], [5, 3, 7, 8, 1, 2, 6])
    assert deciding_tokens(batch).int().tolist() == [[0, 1, 1, 0, 0, 1, 0], [0, 1, 0, 0, 1, 1, 0]]
    batch = batch_of([5, 1, 7, 2, 6], [5, 3, 7, 4, 6])
    assert deciding_tokens(batch).int().tolist() == [[0, 1, 0, 1, 0]] * 2
