import json
import os
import socket

import pytest
import torch

from wirework.errors import InputError
from wirework.tasks import Pair, Task, load_task
from wirework.tasks.load import draw_pairs

QUOTE = Pair(("print('hello", 'print("hello'), ("')", '")'))
LOOP = Pair(("for name", "while name"), (" in", ":"))


class TestEncodeTask:
    def test_a_pair_becomes_two_rows_with_the_right_answer_first(self, tokenizer) -> None:
        rows = Task("mine", (QUOTE, LOOP)).encode(tokenizer, 64)
        prompts = [tokenizer.encode(p) for pair in (QUOTE, LOOP) for p in pair.prompts]
        assert rows.last_positions.tolist() == [len(prompt) - 1 for prompt in prompts]
        for row, prompt in zip(rows.tokens.tolist(), prompts, strict=True):
            assert row[: len(prompt)] == prompt
            assert set(row[len(prompt) :]) <= {tokenizer.eot}
        single, double = (tokenizer.encode(QUOTE.prompts[0] + a)[-1] for a in QUOTE.answers)
        assert rows.answers[:2].tolist() == [[single, double], [double, single]]
        assert rows.n_pairs == 2

    def test_selected_pairs_are_cut_to_their_longest_prompt(self, tokenizer) -> None:
        rows = Task("mine", (QUOTE, LOOP)).encode(tokenizer, 64)
        loop = rows.select(torch.tensor([1]))
        assert torch.equal(loop.answers, rows.answers[2:])
        assert loop.tokens.shape == (2, int(rows.last_positions[2:].max()) + 1)

    def test_an_answer_of_several_tokens_names_prompt_answer_and_tokens(self, tokenizer) -> None:
        task = Task("mine", (QUOTE, Pair(("a = 1", "b = 2"), (" xylophone", ":"))))
        with pytest.raises(
            InputError, match=r"task mine, pair 2: answer ' xylophone'.*'a = 1', but is \d+: ' "
        ):
            task.encode(tokenizer, 64)

    def test_an_answer_that_melts_into_its_prompt_is_refused(self, tokenizer) -> None:
        task = Task("mine", (Pair(("x = retur", "x = whil"), ("n", "e")),))
        with pytest.raises(InputError, match=r"prompt and the answer become .* together"):
            task.encode(tokenizer, 64)

    def test_a_prompt_over_the_context_is_refused(self, tokenizer) -> None:
        with pytest.raises(InputError, match=r"pair 1: prompt .* tokens, the model takes 2"):
            Task("mine", (QUOTE,)).encode(tokenizer, 2)

    def test_a_task_without_pairs_is_refused(self, tokenizer) -> None:
        with pytest.raises(InputError, match="has no pairs"):
            Task("mine", ()).encode(tokenizer, 64)

    def test_a_prompt_far_over_the_context_is_not_tokenised(self, tokenizer, monkeypatch) -> None:
        asked: list[int] = []
        whole = type(tokenizer).encode_batch

        def counted(self, texts):
            asked.extend(map(len, texts))
            return whole(self, texts)

        monkeypatch.setattr(type(tokenizer), "encode_batch", counted)
        long = Pair(("x" * 100_000, "b"), (" c", " d"))
        with pytest.raises(
            InputError, match=r"pair 2: prompt or answer .*'x*' has 100,000 characters"
        ):
            Task("mine", (QUOTE, long, LOOP)).encode(tokenizer, 64)
        assert max(asked) < 100
        generated = Task("mine", (long, *load_task("for_while", n=40).pairs), generated=True)
        assert long not in generated.fitted(tokenizer, 64).pairs


class TestFittedTask:
    def test_built_in_pairs_that_do_not_fit_are_left_out_and_counted(self, tokenizer) -> None:
        task = load_task("for_while", n=64)
        lengths = sorted(
            (task.encode(tokenizer, 256).last_positions.view(-1, 2).amax(1) + 1).tolist()
        )
        fitted = task.fitted(tokenizer, lengths[39])
        assert 40 <= len(fitted.pairs) < 64
        with pytest.raises(InputError, match=r"64 of 64 pairs skipped; the first: prompt"):
            task.fitted(tokenizer, 3)

    def test_a_users_pair_that_does_not_fit_is_an_error(self, tokenizer) -> None:
        task = Task("mine", (QUOTE, Pair(("a", "b"), (" xylophone", ":"))))
        with pytest.raises(InputError, match="pair 2"):
            task.fitted(tokenizer, 64)
        assert task.take((QUOTE,)).fitted(tokenizer, 64).pairs == (QUOTE,)


def test_a_split_is_disjoint_complete_and_decided_by_the_seed() -> None:
    task = load_task("for_while", n=50)
    left, right = task.split(1, 0.3)
    assert len(left.pairs) == 15
    assert set(left.pairs) | set(right.pairs) == set(task.pairs)
    assert not set(left.pairs) & set(right.pairs)
    assert task.split(1, 0.3) == (left, right)
    assert task.split(2, 0.3)[0] != left
    with pytest.raises(InputError, match="a split needs two"):
        task.take(task.pairs[:1]).split(0)


@pytest.mark.parametrize(
    ("prompts", "answers", "problem"),
    [
        (("", "b"), ("x", "y"), "prompts must not be empty"),
        (("a", "b"), ("x", ""), "answers must not be empty"),
        (("a", "b", "c"), ("x", "y"), "needs two prompts, got 3"),
        (("a", "b"), ("x",), "needs two answers, got 1"),
        (("a", "b"), ("x", "x"), "two answers of a pair must differ"),
        (("a", "a"), ("x", "y"), "two prompts of a pair must differ"),
        (("a", "b\ud800"), ("x", "y"), "prompts must be Unicode text, got half a character"),
    ],
)
def test_impossible_pairs_are_refused(prompts, answers, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Pair(prompts, answers)


def write(path, *lines: str):
    path.write_text("\n".join(lines) + "\n")
    return path


GOOD = json.dumps({"prompts": ["a b", "b b"], "answers": [" c", " d"]})


LONG = "x" * 20_000_000


class TestLoadTask:
    def test_a_users_file_is_read_in_order(self, tmp_path) -> None:
        path = write(tmp_path / "mine.jsonl", GOOD, "", GOOD.replace("a b", "e b"))
        task = load_task(path)
        assert task.name == "mine"
        assert task.path == str(path)
        assert [pair.prompts[0] for pair in task.pairs] == ["a b", "e b"]
        assert task.answers == (" c", " d")
        assert len(load_task(path, n=1).pairs) == 1

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("{", r"line 2: not JSON"),
            ("[" * 100_000, r"line 2: not JSON"),
            ("9" * 6000, r"line 2: not JSON"),
            ("[1]", r"line 2: a pair has the keys .* got list"),
            ('{"prompts": ["a", "b"]}', r"line 2: a pair has the keys"),
            ('{"prompts": ["a", "b"], "answers": ["x"]}', r"line 2: answers must be a list of two"),
            (
                '{"prompts": ["a", 1], "answers": ["x", "y"]}',
                r"line 2: prompts must be a list of two",
            ),
            ('{"prompts": ["a", "b"], "answers": ["x", "x"]}', r"line 2: the two answers"),
            (
                r'{"prompts": ["a", "\ud83d"], "answers": ["x", "y"]}',
                r"line 2: prompts must be Unicode",
            ),
        ],
    )
    def test_a_bad_line_is_named_by_its_number(self, tmp_path, line: str, problem: str) -> None:
        with pytest.raises(InputError, match=problem):
            load_task(write(tmp_path / "mine.jsonl", GOOD, line))

    def test_the_same_pair_twice_is_named(self, tmp_path) -> None:
        turned = json.dumps({"prompts": ["b b", "a b"], "answers": [" d", " c"]})
        for again in (GOOD, turned):
            with pytest.raises(InputError, match="line 3: the same pair as in line 1"):
                load_task(write(tmp_path / "mine.jsonl", GOOD, "", again))

    def test_files_that_cannot_be_used(self, tmp_path) -> None:
        with pytest.raises(InputError, match="cannot read task"):
            load_task(tmp_path / "absent.jsonl")
        with pytest.raises(InputError, match="has no pairs"):
            load_task(write(tmp_path / "empty.jsonl", ""))
        with pytest.raises(InputError, match="has 1 pair, 2 were asked for"):
            load_task(write(tmp_path / "short.jsonl", GOOD), n=2)
        (tmp_path / "binary.jsonl").write_bytes(b"abc\xff\xfe")
        with pytest.raises(InputError, match="not UTF-8 text: byte 3"):
            load_task(tmp_path / "binary.jsonl")

    def test_an_unknown_name_gets_the_nearest_one(self) -> None:
        with pytest.raises(InputError, match="did you mean 'for_while'"):
            load_task("for_whale")
        with pytest.raises(InputError, match="at least one pair"):
            load_task("for_while", n=0)

    @pytest.mark.parametrize("text", [LONG, " " * 20_000_000])
    def test_a_prompt_of_millions_of_characters_is_refused_unread(
        self, tmp_path, tokenizer, text
    ) -> None:
        path = tmp_path / "mine.jsonl"
        path.write_text(json.dumps({"prompts": [text, "b"], "answers": [" c", " d"]}) + "\n")
        with pytest.raises(InputError, match="line 1: too long for a file of pairs") as caught:
            load_task(path)
        assert len(str(caught.value)) < 300
        with pytest.raises(InputError, match="prompts have at most 1,000,000 characters, got 20,0"):
            Pair((text, "b"), (" c", " d"))

    def test_of_many_pairs_only_those_asked_for_are_read(self, tmp_path) -> None:
        path = tmp_path / "mine.jsonl"
        path.write_text(f"{GOOD}\n{GOOD.replace('a b', 'e b')}\n" + "this is no pair\n" * 10)
        assert len(load_task(path, n=2).pairs) == 2
        with pytest.raises(InputError, match="line 3: not JSON"):
            load_task(path)

    def test_more_pairs_than_any_task_has_are_refused(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr("wirework.tasks.pairs_file.MOST_PAIRS", 3)
        lines = [GOOD.replace("a b", f"{i} b") for i in range(4)]
        with pytest.raises(InputError, match="has more than 3 pairs: give fewer"):
            load_task(write(tmp_path / "mine.jsonl", *lines))
        assert len(load_task(write(tmp_path / "mine.jsonl", *lines[:3])).pairs) == 3

    @pytest.mark.parametrize("kind", ["pipe", "device", "folder", "socket"])
    def test_what_is_no_file_is_refused_at_once(self, tmp_path, kind: str) -> None:
        path = tmp_path / "mine.jsonl"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "folder":
            path.mkdir()
        else:
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(path))
        with pytest.raises(InputError, match=r"cannot read task .*mine\.jsonl"):
            load_task(path)

    def test_a_byte_order_mark_is_left_out(self, tmp_path) -> None:
        path = tmp_path / "mine.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n")
        assert load_task(path).pairs[0].prompts == ("a b", "b b")
        path.write_bytes(b"\xef\xbb\xbfabc\xff")
        with pytest.raises(InputError, match="not UTF-8 text: byte 6"):
            load_task(path)

    @pytest.mark.parametrize(
        "line",
        [
            json.dumps({"prompts": ["x" * 900_000] * 2, "answers": ["x", "y"]}),
            json.dumps({"prompts": ["a", "b"], "answers": ["x", ["y"] * 100_000]}),
            json.dumps({"prompts": ["a", "b"], "k" * 100_000: 1}),
            '{"prompts": ["a", "b"], "answers": ' + "[" * 900 + "]" * 900 + "}",
        ],
    )
    def test_a_bad_line_is_quoted_in_part(self, tmp_path, line: str) -> None:
        with pytest.raises(InputError, match="line 1: ") as caught:
            load_task(write(tmp_path / "mine.jsonl", line))
        assert len(str(caught.value)) < 400


def test_a_generator_that_runs_dry_says_so() -> None:
    with pytest.raises(InputError, match="5 distinct pairs were asked for, there are about 1"):
        draw_pairs(lambda rng: QUOTE, "seed", 5)
