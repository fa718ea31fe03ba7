import hashlib
import json
import os
import signal
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from wirework.data import ANSWERS, END_OF_TEXT, Answer, Tokenizer, single_token, train_tokenizer
from wirework.data.bpe import GPT2_PATTERN, PATTERN, byte_level_bpe
from wirework.data.tokenizer import NoEndOfTextError
from wirework.errors import InputError

VOCAB = 2048
TASKS = {
    "single_double_quote",
    "bracket_counting",
    "set_or_string",
    "set_or_string_fixedvarname",
    "final_kwarg",
    "class_init",
    "with_as",
    "bracket_brace",
    "with_open",
    "for_while",
    "else_elif",
    "fstring_brace",
    "if_ternary",
    "var_swap",
    "indent_for",
    "lambda_func",
    "if_equals",
    "enumerate_range",
    "var_if",
    "while_return_true",
}


def library_text() -> list[str]:
    """Modules of the standard library, scattered."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in files]
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())[:120]


@pytest.fixture(scope="module")
def library() -> list[str]:
    return library_text()


@pytest.fixture(scope="module")
def tokenizer(library: list[str]) -> Tokenizer:
    return train_tokenizer(library[::2], VOCAB)


@pytest.fixture(scope="module")
def plain(library: list[str]) -> Tokenizer:
    return train_tokenizer(library[::2], VOCAB, answers=())


class TestAnswers:
    def test_the_table_covers_the_twenty_tasks_with_two_answers_each(self):
        assert sorted({answer.task for answer in ANSWERS}) == sorted(TASKS)
        for task in TASKS:
            assert len({answer.text for answer in ANSWERS if answer.task == task}) >= 2, task

    @pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: f"{answer.task}:{answer.text!r}")
    def test_every_answer_is_one_token_in_its_context(self, tokenizer: Tokenizer, answer: Answer):
        before = tokenizer.encode(answer.prompt)
        token = single_token(tokenizer, answer.prompt, answer.text)
        assert tokenizer.encode(answer.prompt + answer.text) == [*before, token]
        assert tokenizer.token(token) == answer.text

    def test_a_plain_bpe_lacks_some_answers(self, plain: Tokenizer):
        def is_one(answer: Answer) -> bool:
            return len(plain.encode(answer.text)) == 1

        assert not all(map(is_one, ANSWERS))

    def test_an_answer_that_melts_into_its_prompt_is_refused(self, tokenizer: Tokenizer):
        with pytest.raises(
            InputError,
            match=r"answer ':' must be one token after the prompt \.\.\.'x = \{\"a\"', but the end "
            r"of the prompt and the answer become '\":' together; let the prompt end elsewhere",
        ):
            single_token(tokenizer, 'x = {"a"', ":")


class DeafQueue(SimpleQueue):
    """Waits as if the signal arrived just before the wait, which it then does not end."""

    waits = threading.Event()

    def get(self, block: bool = True, timeout: float | None = None):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # may raise, and has blocked
            self.waits.set()
            return super().get(block, timeout)
        finally:
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            finally:  # the first call raises before it does anything
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


def train_interrupted(ready: Callable[[], object]) -> None:
    """Train on texts whose reader interrupts the process and then takes a minute."""
    released = threading.Event()

    def texts() -> Iterator[str]:
        yield "a text"
        ready()
        os.kill(os.getpid(), signal.SIGINT)
        released.wait(60)  # as the library's own work, which nothing ends

    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(texts(), 2048)
    learners = [thread for thread in threading.enumerate() if thread.name == "tokeniser"]
    assert learners
    released.set()
    for thread in learners:
        thread.join()


class TestTrainTokenizer:
    def test_ordinary_text_costs_at_most_one_percent_more(
        self, library: list[str], tokenizer: Tokenizer, plain: Tokenizer
    ):
        held_out = library[1::2]
        ours = sum(map(len, tokenizer.encode_batch(held_out)))
        theirs = sum(map(len, plain.encode_batch(held_out)))
        assert theirs > 100_000
        assert ours <= 1.01 * theirs

    def test_text_is_cut_as_the_pattern_says(self):
        tokenizer = train_tokenizer(["aaaa" * 50], 257 + 2, answers=())  # merges: aa, aaaa
        assert [tokenizer.token(i) for i in tokenizer.encode("x aaaa1234\n\n  y")] == (
            ["x", " ", "aaaa", "1", "2", "3", "4", "\n", "\n", " ", " ", "y"]
        )

    def test_the_same_texts_give_the_same_tokeniser_in_any_order(
        self, library: list[str], tokenizer: Tokenizer, tmp_path: Path
    ):
        again = train_tokenizer(iter(library[::2][::-1]), VOCAB)
        tokenizer.save(tmp_path / "a.json")
        again.save(tmp_path / "b.json")
        assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
        assert again.fingerprint == tokenizer.fingerprint

    def test_a_vocabulary_without_room_is_refused(self, library: list[str]):
        with pytest.raises(InputError, match=r"vocab_size 300 is too small: 256 bytes.* need 3"):
            train_tokenizer(library[:3], 300)

    def test_a_text_too_small_for_the_vocabulary_is_refused(self):
        with pytest.raises(
            InputError,
            match=r"at most 3\d\d tokens, vocab_size is 2048: give --data.vocab_size 3\d\d or",
        ):
            train_tokenizer(["a few words of text, no more"], 2048)

    def test_an_interrupt_does_not_wait_for_the_library(self):
        train_interrupted(ready=lambda: None)

    def test_an_interrupt_just_before_the_wait_does_not_wait_either(self, monkeypatch):
        monkeypatch.setattr("wirework.data.tokenizer.SimpleQueue", DeafQueue)
        train_interrupted(ready=lambda: DeafQueue.waits.wait(60))

    def test_an_error_in_the_texts_comes_through(self):
        def texts():
            yield "some text"
            raise InputError("line 2 is bad")

        with pytest.raises(InputError, match="line 2 is bad"):
            train_tokenizer(texts(), 2048)


class TestTokenizer:
    def test_end_of_text_is_the_last_id_and_never_comes_from_text(self, tokenizer: Tokenizer):
        assert tokenizer.vocab_size == VOCAB
        assert tokenizer.eot == VOCAB - 1
        ids = tokenizer.encode(f"a{END_OF_TEXT}b")
        assert tokenizer.eot not in ids
        assert tokenizer.decode(ids) == f"a{END_OF_TEXT}b"
        assert tokenizer.token(tokenizer.eot) == END_OF_TEXT

    @settings(max_examples=200)
    @given(text=st.text())
    def test_text_comes_back(self, tokenizer: Tokenizer, text: str):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_batch([text, text]) == [ids, ids]

    def test_the_library_reads_our_file_and_agrees(
        self, library: list[str], tokenizer: Tokenizer, tmp_path: Path
    ):
        tokenizer.save(tmp_path / "tokenizer.json")
        other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        assert other.encode(library[1]).ids == tokenizer.encode(library[1])
        assert other.token_to_id(END_OF_TEXT) == tokenizer.eot

    def test_tokens_that_are_no_characters_are_printable(self, tokenizer: Tokenizer):
        ids = tokenizer.encode("\U0001f40d")  # four bytes that no merge joins
        assert [tokenizer.token(i) for i in ids] == ["\\xf0", "\\x9f", "\\x90", "\\x8d"]
        assert tokenizer.decode(ids) == "\U0001f40d"

    def test_what_closes_a_string_stands_apart_from_what_follows(self, tokenizer: Tokenizer):
        for text in ("print('a')\n", 'print("a"),\n', "f('a')\n\n"):
            tokens = [tokenizer.token(i) for i in tokenizer.encode(text)]
            assert text[text.index("a") + 1 :][:2] in tokens

    @pytest.mark.parametrize("token_id", [-1, VOCAB])
    def test_ids_outside_the_vocabulary_are_refused(self, tokenizer: Tokenizer, token_id: int):
        with pytest.raises(InputError, match=f"token id {token_id} is outside 0 .. 2047"):
            tokenizer.decode([1, token_id])
        with pytest.raises(InputError, match="outside"):
            tokenizer.token(token_id)

    def test_text_of_any_length_is_tokenised_in_pieces(self, monkeypatch: pytest.MonkeyPatch):
        tokenizer = train_tokenizer(["name = 'abc'\n" * 50], 262, answers=())
        texts = ["name = 'abc'\n" * 3, "", "b" * 25, "name"]
        whole = [tokenizer.encode(text) for text in texts]
        monkeypatch.setattr("wirework.data.tokenizer._PIECE", 13)
        assert tokenizer.encode_batch(texts) == whole  # the cuts fall between tokens
        assert [tokenizer.encode(text) for text in texts] == whole
        again = train_tokenizer(["name = 'abc'\n" * 50], 262, answers=())
        assert again.fingerprint == tokenizer.fingerprint

    @pytest.mark.slow
    def test_a_text_on_which_the_library_gives_up_is_tokenised(self):
        tokenizer = train_tokenizer(["name = 'abc'\n" * 50], 262, answers=())
        blanks = " " * 12_000_000  # whole, the library gives up with a panic
        assert tokenizer.decode(tokenizer.encode(blanks)[:3]) == "   "

    def test_half_a_character_is_no_text(self):
        tokenizer = train_tokenizer(["name = 'abc'\n" * 50], 262, answers=())
        for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["a", text])):
            with pytest.raises(InputError, match="half a character"):
                encode("a\ud800")


def learnt(texts: list[str], pattern: str, folder: Path, size: int = 1200) -> Path:
    """Write `encoder.json` and `vocab.bpe` of a BPE that was learned with a split pattern."""
    learner = byte_level_bpe([], pattern=pattern, end_of_text=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    model = json.loads(learner.to_str())["model"]
    folder.mkdir(exist_ok=True)
    (folder / "encoder.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "vocab.bpe").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    return folder


class TestTokenizerLoad:
    def test_a_saved_tokeniser_loads_as_it_was(self, tokenizer: Tokenizer, tmp_path: Path):
        tokenizer.save(tmp_path / "tokenizer.json")
        for path in (tmp_path, tmp_path / "tokenizer.json"):
            loaded = Tokenizer.load(path)
            assert loaded.fingerprint == tokenizer.fingerprint
            assert loaded.encode(f"print('hello'){END_OF_TEXT}") == (
                tokenizer.encode(f"print('hello'){END_OF_TEXT}")
            )

    @pytest.mark.parametrize("listed", [True, False])
    def test_a_gpt2_style_folder_gives_the_same_tokens(
        self, library: list[str], plain: Tokenizer, tmp_path: Path, listed: bool
    ):
        plain.save(tmp_path / "t.json")
        model = json.loads((tmp_path / "t.json").read_text())["model"]
        vocab = model["vocab"] | ({END_OF_TEXT: VOCAB - 1} if listed else {})
        (tmp_path / "encoder.json").write_text(json.dumps(vocab))
        merges = "\n".join(" ".join(pair) for pair in model["merges"])
        (tmp_path / "vocab.bpe").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
        loaded = Tokenizer.load(tmp_path)
        assert (loaded.vocab_size, loaded.eot) == (VOCAB, VOCAB - 1)
        assert loaded.encode_batch(library[1:6]) == plain.encode_batch(library[1:6])
        assert loaded.encode(END_OF_TEXT) == plain.encode(END_OF_TEXT)

    def test_files_that_hold_no_tokeniser_are_refused(self, tokenizer: Tokenizer, tmp_path: Path):
        with pytest.raises(InputError, match=r"cannot read .*absent\.json"):
            Tokenizer.load(tmp_path / "absent.json")
        (tmp_path / "a.json").write_text('{"version": "1.0", "model": {"type": "Magic"}}')
        with pytest.raises(InputError, match=r"a\.json is not a tokeniser"):
            Tokenizer.load(tmp_path / "a.json")
        tokenizer.save(tmp_path / "b.json")
        whole = (tmp_path / "b.json").read_bytes()
        (tmp_path / "b.json").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=r"b\.json is not valid JSON"):
            Tokenizer.load(tmp_path / "b.json")

    def test_a_tokeniser_without_end_of_text_is_refused(self, tmp_path: Path):
        bare = tokenizers.Tokenizer(tokenizers.models.BPE())
        bare.save(str(tmp_path / "t.json"))
        with pytest.raises(InputError, match=r"has no <\|endoftext\|> token"):
            Tokenizer.load(tmp_path / "t.json")

    @pytest.mark.parametrize(
        ("vocab", "merges", "message"),
        [
            ({"a": 0, "b": 2}, "", "without gaps"),
            ({"a": 0, "b": "x"}, "", "without gaps"),
            ({"a": [0]}, "", "without gaps"),
            ([], "", "without gaps"),
            ({"a": 0}, "", "lacks the token"),
            ({"a": 0}, "a b c", "a merge is two tokens"),
        ],
    )
    def test_damaged_gpt2_folders_are_refused(
        self, vocab, merges: str, message: str, tmp_path: Path
    ):
        (tmp_path / "encoder.json").write_text(json.dumps(vocab))
        (tmp_path / "vocab.bpe").write_text(merges)
        with pytest.raises(InputError, match=message):
            Tokenizer.load(tmp_path)

    def test_a_gpt2_folder_without_merges_is_refused(self, tmp_path: Path):
        (tmp_path / "encoder.json").write_text("{}")
        with pytest.raises(InputError, match=r"cannot read .*vocab\.bpe"):
            Tokenizer.load(tmp_path)
        os.mkfifo(tmp_path / "vocab.bpe")
        with pytest.raises(InputError, match=r"vocab\.bpe: it is no ordinary file"):
            Tokenizer.load(tmp_path)

    def test_a_tokeniser_that_fails_on_text_is_refused(self, tmp_path: Path):
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"b": 0}, unk_token="<unk>"))
        words.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(InputError, match=r"tokenizer\.json is not a tokeniser: .*UNK"):
            Tokenizer.load(tmp_path)

    def test_a_byte_order_mark_is_read_over(self, tokenizer: Tokenizer, tmp_path: Path):
        tokenizer.save(tmp_path / "tokenizer.json")
        content = (tmp_path / "tokenizer.json").read_bytes()
        (tmp_path / "tokenizer.json").write_bytes(b"\xef\xbb\xbf" + content)
        assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint

    def test_vocabulary_and_merges_may_have_their_other_names(
        self, library: list[str], tmp_path: Path
    ):
        folder = learnt(library[:20], GPT2_PATTERN, tmp_path / "t")
        ids = Tokenizer.load(folder).encode(library[30])
        vocab = json.loads((folder / "encoder.json").read_text())
        (folder / "encoder.json").unlink()
        (folder / "vocab.json").write_text(json.dumps({**vocab, "</s>": len(vocab)}))
        (folder / "vocab.bpe").rename(folder / "merges.txt")
        (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
        loaded = Tokenizer.load(folder)
        assert loaded.eot == len(vocab) == loaded.vocab_size - 1
        assert loaded.encode(library[30]) == ids


def test_pattern_is_the_released_one_but_for_one_cut():
    assert PATTERN == (
        r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


def bpe_with(*specials: str) -> tokenizers.Tokenizer:
    """A byte-level BPE without merges whose special tokens come last."""
    inner = byte_level_bpe([], end_of_text=False)
    inner.add_special_tokens([tokenizers.AddedToken(name, special=True) for name in specials])
    return inner


class TestEndOfText:
    @pytest.mark.parametrize(
        ("file", "values"),
        [
            ("tokenizer_config.json", {"eos_token": "[EOS]"}),
            ("tokenizer_config.json", {"eos_token": {"content": "[EOS]", "special": True}}),
            ("special_tokens_map.json", {"eos_token": "[EOS]"}),
            ("generation_config.json", {"eos_token_id": 257}),
            ("generation_config.json", {"eos_token_id": [257, 1]}),
            ("config.json", {"eos_token_id": 257}),
        ],
    )
    def test_text_ends_with_the_token_that_the_files_name(self, file: str, values, tmp_path: Path):
        folder = tmp_path / "theirs"
        folder.mkdir()
        bpe_with("[PAD]", "[EOS]").save(str(folder / "tokenizer.json"))
        (folder / file).write_text(json.dumps(values))
        loaded = Tokenizer.load(folder)
        assert loaded.eot == 257
        assert loaded.decode(loaded.encode("a[EOS]")) == "a[EOS]"
        assert loaded.eot not in loaded.encode("a[EOS]")
        loaded.save(tmp_path / "tokenizer.json")  # which is then all that there is
        again = Tokenizer.load(tmp_path / "tokenizer.json")
        assert (again.eot, again.fingerprint) == (257, loaded.fingerprint)

    def test_an_id_of_zero_ends_text_like_any_other(self, tmp_path: Path):
        inner = tokenizers.Tokenizer(
            tokenizers.models.WordLevel({"</s>": 0, "a": 1}, unk_token="</s>")
        )
        inner.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "config.json").write_text('{"eos_token_id": 0}')
        assert Tokenizer.load(tmp_path).eot == 0

    def test_the_usual_token_ends_text_whatever_else_is_named(self, tmp_path: Path):
        bpe_with("[EOS]", END_OF_TEXT).save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "[EOS]"}')
        loaded = Tokenizer.load(tmp_path)
        assert loaded.token(loaded.eot) == END_OF_TEXT

    @pytest.mark.parametrize(
        "values", [{}, [], {"eos_token": None}, {"eos_token": "<gone>"}, {"eos_token_id": 999}]
    )
    def test_a_named_token_that_the_tokeniser_lacks_ends_nothing(self, values, tmp_path: Path):
        bpe_with("[EOS]").save(str(tmp_path / "tokenizer.json"))
        for file in ("tokenizer_config.json", "config.json"):
            (tmp_path / file).write_text(json.dumps(values))
        with pytest.raises(NoEndOfTextError, match=r"names another as eos_token"):
            Tokenizer.load(tmp_path)

    def test_a_broken_file_that_would_name_the_token_is_called_so(self, tmp_path: Path):
        bpe_with(END_OF_TEXT).save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text("{")
        with pytest.raises(InputError, match=r"tokenizer_config\.json is not valid JSON"):
            Tokenizer.load(tmp_path)


SPLIT_TEXTS = [" 12345", "\t\tx", "can't", "x = 10\n\n\nfoo(')", "I've 2023!\n", ".foo", "(self)"]


class TestSplitPattern:
    def test_the_vocabulary_shows_that_text_is_cut_as_gpt2_cuts_it(
        self, library: list[str], tmp_path: Path
    ):
        folder = learnt(library[:40], GPT2_PATTERN, tmp_path / "t")
        loaded = Tokenizer.load(folder)
        reference = tokenizers.Tokenizer(
            tokenizers.models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
        )
        reference.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        for text in (*SPLIT_TEXTS, library[50]):
            assert loaded.encode(text) == reference.encode(text).ids
        assert loaded.encode(" 12345") == Tokenizer.load(folder, "gpt2").encode(" 12345")
        assert loaded.encode(" 12345") != Tokenizer.load(folder, "tinypython").encode(" 12345")

    def test_the_vocabulary_shows_that_text_is_cut_as_tinypython_is(
        self, library: list[str], tmp_path: Path
    ):
        folder = learnt(library[:40], PATTERN, tmp_path / "t")
        loaded, said = Tokenizer.load(folder), Tokenizer.load(folder, "tinypython")
        assert loaded.fingerprint == said.fingerprint
        assert loaded.fingerprint != Tokenizer.load(folder, "gpt2").fingerprint

    def test_a_vocabulary_that_shows_no_split_asks_for_it(self, tmp_path: Path):
        folder = learnt(
            ["word " * 50], GPT2_PATTERN, tmp_path / "both", size=259
        )  # merges: wo, wor
        with pytest.raises(
            InputError, match=r"more than one split pattern: .* --split gpt2\|tinypython"
        ):
            Tokenizer.load(folder)
        assert Tokenizer.load(folder, "gpt2").encode(" 1") != []
        folder = learnt(["ab cd " * 50], r"\S+ \S+", tmp_path / "neither", size=290)
        with pytest.raises(InputError, match=r"fit no known split pattern"):
            Tokenizer.load(folder)
