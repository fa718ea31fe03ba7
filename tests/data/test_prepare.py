import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from marks import slow_cases

from wirework import console
from wirework.config import DataConfig
from wirework.data import Prepared, Tokenizer, open_prepared, prepare, train_tokenizer
from wirework.data import tokenise as tokenise_module
from wirework.data.corpora import documents as read_documents
from wirework.errors import InputError, UnreadableError
from wirework.files import locked, read_record, write_record, write_sums

SETTINGS = {"vocab_size": 400, "shard_tokens": 3000, "val_fraction": 0.1, "workers": 1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 small documents of made-up code, 150 kB."""
    path = tmp_path_factory.mktemp("corpus") / "code.jsonl"
    source = random.Random(0)
    words = ["alpha", "beta", "value", "index", "print('x')", "[1, 2]", "self.name", "return"]
    with path.open("w") as file:
        for i in range(300):
            lines = [f"{source.choice(words)} = {source.choice(words)}" for _ in range(25)]
            file.write(json.dumps({"text": f"# {i}\n" + "\n".join(lines)}) + "\n")
    return path


def config(corpus: Path, **changes: object) -> DataConfig:
    return DataConfig.of({"corpus": str(corpus), **SETTINGS, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


@pytest.fixture(scope="module")
def prepared(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(config(corpus), tmp_path_factory.mktemp("cache"), progress=False)


def split_documents(prepared: Prepared, split: str) -> list[str]:
    tokens = getattr(prepared, split)
    ids = tokens.slice(0, len(tokens)).tolist()
    assert ids[-1] == prepared.tokenizer.eot
    text = prepared.tokenizer.decode(ids)
    return text.split("<|endoftext|>")[:-1]


class TestPrepare:
    def test_every_document_comes_back_once_in_one_split(self, corpus: Path, prepared: Prepared):
        texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
        train, val = split_documents(prepared, "train"), split_documents(prepared, "val")
        assert sorted(train + val) == sorted(texts)
        assert train == [text for text in texts if text in set(train)]  # in the order of the corpus
        assert 10 <= len(val) <= 60
        assert (prepared.train.n_documents, prepared.val.n_documents) == (len(train), len(val))
        assert prepared.tokenizer.vocab_size == 400
        assert len(list((prepared.path / "train").glob("shard-*.bin"))) > 5

    def test_a_corpus_of_the_longest_name_is_prepared(self, corpus: Path, tmp_path: Path):
        path = tmp_path / ("x" * 249 + ".jsonl")
        path.write_bytes(corpus.read_bytes())
        assert prepare(config(path), tmp_path / "cache", progress=False).train.n_tokens > 0

    def test_the_folder_is_as_documented(self, prepared: Prepared):
        assert prepared.path.name.startswith("code-")
        assert len(prepared.path.name) == len("code-") + 12
        names = {Path(name).name for name in contents(prepared.path)}
        assert {"tokenizer.json", "checksums.json", "index.json", "shard-00000.bin"} <= names
        assert not any("progress" in name for name in names)
        left = sorted(path.name for path in prepared.path.parent.iterdir())
        assert left == [prepared.path.name]

    @pytest.mark.parametrize("workers", [2, *slow_cases(3)])
    def test_any_number_of_workers_gives_the_same_bytes(
        self,
        corpus: Path,
        prepared: Prepared,
        tmp_path: Path,
        workers: int,
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setattr(tokenise_module, "CHUNK_BYTES", 5000)
        other = prepare(config(corpus, workers=workers), tmp_path, progress=False)
        assert contents(other.path) == contents(prepared.path)
        assert other.path.name == prepared.path.name
        assert other.fingerprint == prepared.fingerprint

    def test_a_document_goes_where_its_hash_says_whatever_the_order(
        self, corpus: Path, prepared: Prepared, tmp_path: Path
    ):
        lines = corpus.read_text().splitlines(keepends=True)
        (tmp_path / "turned.jsonl").write_text("".join(reversed(lines)))
        turned = prepare(config(tmp_path / "turned.jsonl"), tmp_path / "cache", progress=False)
        assert sorted(split_documents(turned, "val")) == sorted(split_documents(prepared, "val"))

    def test_a_given_tokeniser_is_used(self, corpus: Path, tmp_path: Path):
        train_tokenizer(["alpha beta value"], 260, answers=()).save(tmp_path / "mine.json")
        made = prepare(
            config(corpus, tokenizer=str(tmp_path / "mine.json")), tmp_path, progress=False
        )
        assert made.tokenizer.fingerprint == Tokenizer.load(tmp_path / "mine.json").fingerprint
        assert made.tokenizer.vocab_size == 260

    @pytest.mark.parametrize("workers", [1, 2])
    def test_documents_end_with_the_end_token_of_the_tokeniser_given(
        self, corpus: Path, tmp_path: Path, workers: int
    ):
        train_tokenizer(["alpha beta value"], 260, answers=()).save(tmp_path / "tokenizer.json")
        text = (tmp_path / "tokenizer.json").read_text().replace("<|endoftext|>", "[EOS]")
        (tmp_path / "tokenizer.json").write_text(text)
        (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "[EOS]"}')
        settings = config(corpus, tokenizer=str(tmp_path / "tokenizer.json"), workers=workers)
        made = prepare(settings, tmp_path / "cache", progress=False)
        ids = made.val.slice(0, len(made.val)).tolist()
        assert made.tokenizer.decode(ids[-1:]) == "[EOS]"
        assert ids.count(ids[-1]) == made.tokenizer.decode(ids).count("[EOS]") > 1
        (made.path / "tokenizer_config.json").write_text('{"eos_token": "a"}')
        with pytest.raises(InputError, match=r"tokenizer_config\.json does not match its checksum"):
            open_prepared(made.path)

    def test_the_tokeniser_never_sees_what_is_held_out(self, prepared: Prepared):
        again = train_tokenizer(split_documents(prepared, "train"), 400, answers=())
        assert again.fingerprint == prepared.tokenizer.fingerprint

    def test_progress_goes_to_standard_error(
        self,
        corpus: Path,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setattr(console, "EVERY", 0.001)
        prepare(config(corpus, workers=2), tmp_path)
        out, err = capfd.readouterr()
        assert out == ""
        assert "tokeniser" in err
        assert "tokens" in err
        assert "Warning" not in err

    def test_a_second_writer_waits_for_the_first(
        self, corpus: Path, prepared: Prepared, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ):
        found: list[Prepared] = []
        second = threading.Thread(target=lambda: found.append(prepare(config(corpus), tmp_path)))
        with locked(tmp_path / f".{prepared.path.name}.lock", "the corpus"):
            second.start()
            said = ""
            while second.is_alive() and not said.endswith("\n"):
                said += capfd.readouterr().err
                time.sleep(0.01)
            second.join(0.3)
            assert second.is_alive()
            assert f"waiting for another process that prepares {tmp_path}" in said
            assert not (tmp_path / prepared.path.name).exists()
        second.join()
        assert contents(found[0].path) == contents(prepared.path)


class TestPreparedFolders:
    def test_what_is_there_is_used_again(self, corpus: Path, tmp_path: Path):
        first = prepare(config(corpus), tmp_path, progress=False)
        times = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
        # A lock held by another would stop any work; nothing is done, so it does not matter.
        with locked(tmp_path / f".{first.path.name}.lock", "the corpus"):
            second = prepare(config(corpus, workers=2), tmp_path, progress=False)
        assert second.fingerprint == first.fingerprint
        assert times == {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}

    @pytest.mark.parametrize(
        "change",
        [
            {"max_bytes": 100_000},
            {"vocab_size": 401},
            {"tokenizer_bytes": 50_000},
            {"val_fraction": 0.2},
            {"shard_tokens": 2000},
        ],
    )
    def test_settings_that_matter_make_another_folder(
        self, corpus: Path, prepared: Prepared, change: dict[str, object]
    ):
        other = prepare(config(corpus, **change), prepared.path.parent, progress=False)
        assert other.path != prepared.path
        assert other.fingerprint != prepared.fingerprint

    def test_a_changed_file_makes_another_folder(self, corpus: Path, tmp_path: Path):
        copy = tmp_path / "code.jsonl"
        copy.write_bytes(corpus.read_bytes())
        first = prepare(config(copy), tmp_path, progress=False)
        with copy.open("a") as file:
            file.write('{"text": "one more"}\n')
        assert prepare(config(copy), tmp_path, progress=False).path != first.path

    def test_a_mix_is_part_of_what_a_folder_is_named_after(
        self, corpus: Path, prepared: Prepared, tmp_path: Path
    ):
        place = tmp_path / "mine.py"
        place.write_text("def more():\n    return [f'number {i}' for i in range(99)]\n")
        settings = config(corpus, mix=f"{place}:more", tokenizer=prepared.path / "tokenizer.json")
        mixed = prepare(settings, tmp_path / "cache", progress=False)
        texts = split_documents(mixed, "train") + split_documents(mixed, "val")
        assert {f"number {i}" for i in range(99)} < set(texts)
        assert len(texts) == 399
        place.write_text("def more():\n    return ['other']\n")
        assert prepare(settings, tmp_path / "cache", progress=False).path != mixed.path


CODE = """
import signal, sys
from pathlib import Path
from wirework.config import DataConfig
from wirework.data import prepare, tokenise
tokenise.CHUNK_BYTES, tokenise.RECORD_SECONDS = 3000, 0.0
signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored here
prepare(DataConfig.of({**SETTINGS, "corpus": sys.argv[1]}), Path(sys.argv[2]), progress=False)
"""


def start(corpus: Path, cache: Path, workers: int = 2) -> subprocess.Popen[bytes]:
    settings = {**SETTINGS, "workers": workers}
    code = CODE.replace("**SETTINGS", f"**{settings}")
    return subprocess.Popen(
        [sys.executable, "-c", code, str(corpus), str(cache)],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def recorded(cache: Path) -> int:
    """How many documents the record in the cache counts."""
    for path in cache.glob(".*.partial/progress.json"):
        try:
            return sum(json.loads(path.read_text())["n_documents"].values())
        except FileNotFoundError:
            return 0
    return 0


def stop_after_next_record(process: subprocess.Popen[bytes], cache: Path, how: int) -> bool:
    """Send a signal as soon as the work is further than before; False: it was done first."""
    before = recorded(cache)
    while process.poll() is None:
        if recorded(cache) > before:
            process.send_signal(how)
            return True
        time.sleep(0.001)
    return False


def interrupted(corpus: Path, cache: Path, documents: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare in this process and stop after some documents."""

    class StopError(Exception):
        pass

    def some(settings: DataConfig):
        for i, text in enumerate(read_documents(settings)):
            if i == documents:
                raise StopError
            yield text

    with monkeypatch.context() as patch:
        patch.setattr(tokenise_module, "documents", some)
        patch.setattr(tokenise_module, "CHUNK_BYTES", 1)
        patch.setattr(tokenise_module, "RECORD_SECONDS", 0.0)
        with pytest.raises(StopError):
            prepare(config(corpus), cache, progress=False)
    assert recorded(cache) == documents


class TestInterruptedPreparation:
    @pytest.mark.slow
    def test_killed_again_and_again_it_gives_the_same_bytes(
        self, corpus: Path, prepared: Prepared, tmp_path: Path
    ):
        moments = random.Random(1)
        kills, progress = 0, [0]
        for attempt in range(8):
            process = start(corpus, tmp_path, workers=1 + attempt % 2)
            with process:
                if attempt % 3:
                    killed = stop_after_next_record(process, tmp_path, signal.SIGKILL)
                else:
                    time.sleep(moments.uniform(0, 1.2))
                    killed = process.poll() is None
                    process.kill()
            kills += killed
            progress.append(recorded(tmp_path))
            if (tmp_path / prepared.path.name).exists():
                break
            assert progress[-1] >= progress[-2]  # nothing recorded is ever lost
        final = prepare(config(corpus), tmp_path, progress=False)
        assert contents(final.path) == contents(prepared.path)
        assert kills >= 3
        assert len(set(progress)) >= 3
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == [final.path.name]

    @pytest.mark.parametrize("how", [signal.SIGTERM, *slow_cases(signal.SIGINT)])
    def test_a_signal_leaves_what_can_be_resumed(
        self, corpus: Path, prepared: Prepared, tmp_path: Path, how: int
    ):
        process = start(corpus, tmp_path)
        with process:
            assert stop_after_next_record(process, tmp_path, how)
            assert process.wait(timeout=20) == -how
            assert process.stderr is not None
            errors = process.stderr.read().decode()
        # Python's own last words at Ctrl-C, once; the command turns them into a line. No worker's.
        assert errors.count("Traceback") == (how == signal.SIGINT)
        assert recorded(tmp_path) > 0
        final = prepare(config(corpus), tmp_path, progress=False)
        assert contents(final.path) == contents(prepared.path)

    def test_it_goes_on_and_does_not_begin_again(
        self, corpus: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        interrupted(corpus, tmp_path, 30, monkeypatch)
        partial = next(tmp_path.glob(".*.partial"))
        (partial / "train" / ".index.json.123.partial").write_text("torn by a kill")
        encoded: list[int] = []
        real = tokenise_module._encode

        def counting(encode, chunk):
            encoded.append(sum(map(len, chunk.texts.values())))
            return real(encode, chunk)

        monkeypatch.setattr(tokenise_module, "_encode", counting)
        final = prepare(config(corpus), tmp_path, progress=False)
        assert sum(encoded) == 270
        assert contents(final.path) == contents(prepared.path)

    def test_a_corpus_that_changed_under_the_record_is_begun_again(
        self, corpus: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        interrupted(corpus, tmp_path, 20, monkeypatch)
        record = next(tmp_path.glob(".*.partial/progress.json"))
        write_record(record, read_record(record) | {"chain": "00" * 32})
        shard = record.parent / "train" / "shard-00000.bin"
        shard.write_bytes(bytes(shard.stat().st_size))  # the other corpus's tokens
        final = prepare(config(corpus), tmp_path, progress=False)
        assert contents(final.path) == contents(prepared.path)

    @pytest.mark.parametrize("content", ["{}", "{", "[]", '{"n_bytes": 1, "more": 2}', "altered"])
    def test_a_record_that_was_altered_is_named_and_not_gone_on_from(
        self,
        corpus: Path,
        prepared: Prepared,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        content: str,
    ):
        interrupted(corpus, tmp_path, 20, monkeypatch)
        record = next(tmp_path.glob(".*.partial/progress.json"))
        tokens = read_record(record)["n_tokens"]["train"]
        altered = record.read_text().replace(f'"train": {tokens}', f'"train": {tokens - 5}')
        record.write_text(altered if content == "altered" else content)
        final = prepare(config(corpus), tmp_path, progress=False)
        assert contents(final.path) == contents(prepared.path)
        assert (
            capsys.readouterr().err.count("progress.json is damaged, or of an older version") == 1
        )

    def test_a_corpus_that_cannot_be_read_does_not_lose_the_tokeniser(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def fail(*_: Any) -> Any:
            raise UnreadableError("cannot read it: Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(tokenise_module, "documents", fail)
            with pytest.raises(UnreadableError):
                prepare(config(corpus), tmp_path, progress=False)
        assert len(list(tmp_path.glob(".*.partial/tokenizer.json"))) == 1


class TestPrepareErrors:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.txt", b"", "is empty: it holds no text"),
            ("a.txt", b"abc\0", "is binary, not text"),
            ("a.txt", b"abc\xff", "is not UTF-8 text: byte 0xff at offset 3"),
            ("a.txt", b"only one document", "is too small: it takes two different"),
            ("a.jsonl", b'{"text": "a"}\n{"text": "b"}\n{', "line 3 is not JSON"),
        ],
    )
    def test_unusable_corpora_leave_nothing(
        self, tmp_path: Path, name: str, content: bytes, message: str
    ):
        (tmp_path / name).write_bytes(content)
        mine = tmp_path / "mine.json"
        train_tokenizer(["alpha beta value"], 260, answers=()).save(mine)
        cache = tmp_path / "cache"
        with pytest.raises(InputError, match=message):
            prepare(config(tmp_path / name, tokenizer=str(mine)), cache, progress=False)
        assert not cache.exists()

    def test_a_missing_corpus_makes_no_cache(self, tmp_path: Path):
        with pytest.raises(InputError, match="does not exist"):
            prepare(config(tmp_path / "nowhere"), tmp_path / "cache", progress=False)
        assert not (tmp_path / "cache").exists()

    def test_a_cache_that_cannot_be_written_is_refused(self, corpus: Path, tmp_path: Path):
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(InputError, match=r"cache is a file: it should be a folder"):
            prepare(config(corpus), tmp_path / "cache", progress=False)

    def test_a_full_disk_ends_in_one_line(self, corpus: Path, prepared: Prepared, tmp_path: Path):
        """A limit on the size of files gives the same error from the same call as a full disk."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        settings = config(corpus, shard_tokens=10**6)
        size = 40_000  # more than the tokeniser's file, less than the shard
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            with pytest.raises(InputError, match=r"cannot write .*train: File too large"):
                prepare(settings, tmp_path, progress=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        assert not list(tmp_path.glob("code-*"))
        made = prepare(settings, tmp_path, progress=False)
        assert split_documents(made, "train") == split_documents(prepared, "train")


class TestOpenPrepared:
    @pytest.mark.parametrize("name", ["tokenizer.json", "train/index.json", "val/shard-00000.bin"])
    def test_damage_in_the_cache_is_found(self, corpus: Path, tmp_path: Path, name: str):
        made = prepare(config(corpus), tmp_path, progress=False)
        file = made.path / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises(InputError, match="is damaged"):
            prepare(config(corpus), tmp_path, progress=False)
        file.unlink()
        with pytest.raises(InputError, match="is missing"):
            open_prepared(made.path)

    def test_text_of_another_tokeniser_is_refused(
        self, corpus: Path, prepared: Prepared, tmp_path: Path
    ):
        copy = shutil.copytree(prepared.path, tmp_path / "copy")
        train_tokenizer(["abc"], 257, ()).save(copy / "tokenizer.json")
        write_sums(copy, json.loads((copy / "checksums.json").read_text()))
        with pytest.raises(InputError, match=r"bin is damaged: it holds token id .* 257 tokens"):
            open_prepared(copy)

    def test_opening_nothing_is_refused(self, tmp_path: Path):
        with pytest.raises(InputError, match=r"cannot read .*checksums"):
            open_prepared(tmp_path)


def test_nothing_heavy_is_imported():
    code = "import sys, wirework.data; print({'torch', 'rich', 'pyarrow'} & set(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert out.stdout.strip() == "set()"
