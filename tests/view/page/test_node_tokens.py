"""Names of nodes by tokens: what the example activations of a circuit made by hand show."""

import numpy as np
import pytest
from numpy.typing import NDArray

from wirework.view.page.node_tokens import ActiveAt, active_tokens, answers_before, token_label

PROMPTS = [["a", "b", "c"], ["a", "d"], ["c", "c", "c", "e"]]


def activations(**values: float) -> NDArray[np.float32]:
    """(3, 4, 1): the given value wherever that token is, 0 elsewhere."""
    made = np.zeros((3, 4, 1), np.float32)
    for p, prompt in enumerate(PROMPTS):
        for t, token in enumerate(prompt):
            made[p, t] = values.get(token, 0.0)
    return made


def name_of(**values: float) -> ActiveAt:
    return active_tokens(PROMPTS, activations(**values))[0]


class TestActiveTokens:
    def test_one_token_with_four_fifths_of_the_activation_is_a_name(self) -> None:
        assert name_of(a=2, b=1) == [("a", 0.8)]  # a twice: 4 of 5

    def test_a_second_token_is_added_if_it_is_needed(self) -> None:
        assert name_of(a=2, b=1.5) == [
            ("a", pytest.approx(4 / 5.5)),
            ("b", pytest.approx(1.5 / 5.5)),
        ]

    def test_three_tokens_are_no_name(self) -> None:
        assert name_of(a=1, b=2, d=2) == []  # any two have 4 of 6

    def test_just_below_four_fifths_is_no_name(self) -> None:
        assert name_of(a=1, b=2, d=1) == [("a", 0.4), ("b", 0.4)]
        assert name_of(a=1, b=2, d=1.01) == []

    def test_a_share_is_negative_where_the_activation_is(self) -> None:
        assert name_of(a=-2, b=4) == [("a", -0.5), ("b", 0.5)]

    def test_a_token_at_which_a_node_is_active_only_sometimes_is_no_name(self) -> None:
        values = activations(a=1)
        values[1, 0] = 0.0
        assert active_tokens(PROMPTS, values) == [[]]  # at one of two places
        values[1, 0] = 0.4
        assert active_tokens(PROMPTS, values) == [[("a", 1.0)]]  # half of the mean, 0.7, is 0.35

    def test_tokens_that_are_more_than_half_of_all_are_no_name(self) -> None:
        assert name_of(a=1, c=1) == []  # a and c are 6 of 9 tokens
        assert name_of(c=1) == [("c", 1.0)]  # 4 of 9

    def test_padding_and_silent_nodes_count_for_nothing(self) -> None:
        values = activations(b=1)
        values[1, 2:] = 9.0  # beyond the end of the second prompt
        assert active_tokens(PROMPTS, values) == [[("b", 1.0)]]
        assert name_of() == []
        assert active_tokens([], np.zeros((0, 0, 2), np.float32)) == [[], []]

    def test_each_node_has_its_own_name(self) -> None:
        both = np.concatenate([activations(a=1), activations(d=-1)], axis=2)
        assert active_tokens(PROMPTS, both) == [[("a", 1.0)], [("d", -1.0)]]


def test_labels_show_white_space_and_signs_that_differ() -> None:
    assert token_label([(" x", 0.7), ("\n", -0.2)]) == "·x \u2212⏎"
    assert token_label([(" x", -0.7), ("\n", -0.2)]) == "·x ⏎"


def before(*last: float, other: float = 0.0) -> ActiveAt:
    """Name by the answer of a node with these values at the last tokens of four prompts."""
    values = np.array([[[other], [value]] for value in last], np.float32)
    return answers_before([["x", "y"]] * 4, ["one", "two", "one", "two"], values)[0]


class TestAnswersBefore:
    def test_an_answer_with_four_fifths_of_the_last_activation_is_a_name(self) -> None:
        assert before(2, 1, 2, 0) == [("one", 0.8)]
        assert before(2, 1.1, 2, 0) == []
        assert before(0, -3, 0, 1) == [("two", -1.0)]

    def test_a_node_that_is_less_active_at_the_end_has_no_answer(self) -> None:
        assert before(2, 0, 2, 0, other=1) == [
            ("one", 1.0)
        ]  # 1 on the mean, at the end as elsewhere
        assert before(2, 0, 2, 0, other=1.1) == []

    def test_an_answer_of_more_than_half_of_the_prompts_is_no_name(self) -> None:
        values = np.ones((3, 2, 1), np.float32)
        prompts = [["x", "y"]] * 3
        assert answers_before(prompts, ["one"] * 3, values) == [[]]
        values[2] = 0.0
        assert answers_before(prompts, ["one", "one", "two"], values) == [[]]
        assert answers_before([], [], np.zeros((0, 0, 2), np.float32)) == [[], []]
