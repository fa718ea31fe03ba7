"""What a language model is asked, to the letter where it matters, and how its answers are read."""

import math

import pytest

from wirework.measures.explain.prompts import (
    ServerAnswer,
    Shown,
    detect_messages,
    explain_messages,
    read_activations,
    read_detection,
    read_explanation,
    simulate_messages,
)


class TestPromptMessages:
    def test_the_request_for_an_explanation(self) -> None:
        excerpt = Shown(("a", " b", "\n\t", "c", "d", "e"), (0, 10, 0, 0, 0, 0))
        messages = explain_messages([excerpt, excerpt])
        assert [one["role"] for one in messages] == ["system"] + ["user", "assistant"] * 2 + [
            "user"
        ]
        block = "<start>\na\t0\n b\t10\n\\n\\t\t0\nc\t0\nd\t0\ne\t0\n<end>"
        assert messages[-1]["content"] == (
            f"Neuron 3\nActivations:\n{block}\n{block}\n"
            "The same, without the zeros:\n<start>\n b\t10\n<end>\n<start>\n b\t10\n<end>\n"
            "Explanation of neuron 3: the main thing this neuron does is find"
        )
        dense = explain_messages([Shown(("a", "b"), (5, 0))])
        assert "without the zeros" not in dense[-1]["content"]

    def test_the_request_for_a_simulation_and_a_detection(self) -> None:
        messages = simulate_messages("cats", ("a", " b"))
        assert [one["role"] for one in messages] == ["system"] + ["user", "assistant"] * 2 + [
            "user"
        ]
        assert messages[-1]["content"] == (
            "Neuron 3\nExplanation of neuron 3: the main thing this neuron does is find cats\n"
            "Activations:\n<start>\na\tunknown\n b\tunknown\n<end>"
        )
        # The worked examples answer in the form that is read.
        asked, answered = messages[1]["content"], messages[2]["content"]
        tokens = tuple(line.split("\t")[0] for line in asked.split("\n") if "\t" in line)
        assert max(read_activations(ServerAnswer(answered), tokens) or []) == 10
        assert detect_messages("cats", ("a", " b"))[-1]["content"].endswith(
            "find cats\n\nText:\na b"
        )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" cats.", "cats"),
        ("The main thing this neuron does is find cats\nand dogs.", "cats and dogs"),
        (" \n", None),
        (".", None),
    ],
)
def test_explanations_are_read(text: str, found: str | None) -> None:
    assert read_explanation(ServerAnswer(text)) == found


TOKENS = ("a", " b", "\n", "7", "c")


class TestReadActivations:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("<start>\na\t0\n b\t10\n\\n\t3\n7\t1\nc\t0\n<end>", [0, 10, 3, 1, 0]),
            ("a\t0\nb\t10\n\\n\t2.5\n7\t99\nc 4", [0, 10, 2.5, 10, 4]),
            ("a\t0\r\n b\t10\r\n\\n\t3\r\n7\t1\r\nc\t0\r\n", [0, 10, 3, 1, 0]),
            ("a\t1\n b\t10\n\\n\t3\nc\t2", [1, 10, 3, 0, 2]),  # one left out
            ("a\t1\n b\t10\nc\t2", None),  # two
            ("Sure! Here it is:\na\t1\n b\t1\nx\t9\n\\n\t1\n7\t1\nc\t1", [1, 1, 1, 1, 1]),
            ("0\n10\n3", None),
            ("", None),
        ],
    )
    def test_activations_are_read(self, text: str, found: list[float] | None) -> None:
        assert read_activations(ServerAnswer(text), TOKENS) == found

    def test_expected_values_are_over_the_levels_among_the_likely_tokens(self) -> None:
        """Token 7 is text and no activation; `x` is no level; the last is two tokens, 1 and 0."""
        pieces = logprobs(
            ("7", {"7": 1.0}), ("\t", {}), ("4", {"4": 0.5, "0": 0.25, "x": 0.25}), ("\n", {}),
            ("b", {}), ("\t", {}), ("1", {"1": 0.9, "2": 0.1}), ("0", {"0": 1.0}), ("\n", {}),
        )  # fmt: skip
        answer = ServerAnswer("7\t4\nb\t10\n", pieces)
        assert read_activations(answer, ("7", "b")) == [pytest.approx(4 * 2 / 3), 10]

    @pytest.mark.parametrize(
        "text", [" " * 100_000, "\t1\n" * 30_000, "1 " * 50_000, "a\t" + "9" * 9000]
    )
    def test_odd_answers_are_read_in_time_that_grows_with_their_length(self, text: str) -> None:
        levels = read_activations(ServerAnswer(text), TOKENS)
        assert levels is None or max(levels) <= 10


def logprobs(*pieces: tuple[str, dict[str, float]]) -> tuple[dict, ...]:
    return tuple(
        {"token": piece, "top": {token: math.log(p) for token, p in top.items()}}
        for piece, top in pieces
    )


class TestReadDetection:
    def test_detections_are_read(self) -> None:
        assert read_detection(ServerAnswer("1")) == 1
        assert read_detection(ServerAnswer(" 0.\n")) == 0
        assert read_detection(ServerAnswer("10")) is None
        assert read_detection(ServerAnswer("yes")) is None
        sure = ServerAnswer("1", logprobs(("1", {"1": 0.6, "0": 0.2, "x": 0.2})))
        assert read_detection(sure) == pytest.approx(0.75)

    def test_a_token_of_thousands_of_digits_is_no_level(self) -> None:
        digits = "1" * 5000
        top = {"token": digits, "top": {digits: 0.0, "3": math.log(0.5)}}
        assert read_detection(ServerAnswer("1", (top,))) == 1
