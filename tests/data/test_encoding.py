import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

from wirework.data import Tokenizer, train_tokenizer
from wirework.data.encoding import Encode, encode_chunks, encode_documents
from wirework.errors import InputError

TEXTS = ["one two", "three\n", "", "ünï 🐍", "four five six"]


def ids_of(encode: Encode, texts: list[str]) -> list[int]:
    return encode(texts).tolist()


def killed(encode: Encode, texts: list[str]) -> list[str]:
    os.kill(os.getpid(), signal.SIGKILL)
    return texts


def modules_and_threads(encode: Encode, names: list[str]) -> list[str]:
    return [*(name for name in names if name in sys.modules), os.environ["TOKENIZERS_PARALLELISM"]]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(["one two three four five"], 260, answers=()).save(path)
    return path


def test_end_of_text_follows_each_document(tokenizer_file: Path):
    tokenizer = Tokenizer.load(tokenizer_file)
    ids = encode_documents(tokenizer, ["ab", "c"]).tolist()
    assert ids == [*tokenizer.encode("ab"), 259, *tokenizer.encode("c"), 259]
    assert encode_documents(tokenizer, []).tolist() == []


def process_of(encode: Encode, texts: list[str]) -> int:
    return os.getpid()


# No main guard: processes that imported the script would start processes themselves, and fail.
SCRIPT = """
import sys, time
from pathlib import Path
from multiprocessing import active_children
from encoder import ids_of
from wirework.data.encoding import encode_chunks
def chunks():
    while True:
        yield ["x"]
for chunk in encode_chunks(Path(sys.argv[1]), ids_of, chunks(), 2):
    print(*[child.pid for child in active_children()], flush=True)
    time.sleep(60)
"""


class TestEncodeChunks:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_processes_encode_as_this_one_does(self, tokenizer_file: Path, workers: int):
        expected = encode_documents(Tokenizer.load(tokenizer_file), TEXTS)
        first, second, empty = encode_chunks(tokenizer_file, ids_of, [TEXTS, TEXTS, []], workers)
        assert np.array_equal(first, expected)
        assert np.array_equal(second, expected)
        assert empty == []
        assert not active_children()

    def test_a_process_that_dies_is_reported(self, tokenizer_file: Path):
        said = r"^one of 2 processes died, perhaps for want of memory: set data\.workers to 1$"
        with pytest.raises(InputError, match=said):
            list(encode_chunks(tokenizer_file, killed, [["x"], ["y"]], 2))

    @pytest.mark.parametrize("n_chunks", [0, 1, 2])
    def test_a_single_chunk_is_encoded_in_this_process(self, tokenizer_file: Path, n_chunks: int):
        processes = list(encode_chunks(tokenizer_file, process_of, [TEXTS] * n_chunks, 2))
        assert len(processes) == n_chunks
        assert (os.getpid() in processes) == (n_chunks == 1)

    def test_few_chunks_are_read_ahead(self, tokenizer_file: Path):
        n_read = 0

        def chunks() -> Iterator[list[str]]:
            nonlocal n_read
            for n_read in range(1, 31):
                yield [f"text {n_read}"]

        encode = Tokenizer.load(tokenizer_file).encode
        for number, ids in enumerate(encode_chunks(tokenizer_file, ids_of, chunks(), 3), 1):
            assert ids == [*encode(f"text {number}"), 259]
            assert n_read - number <= 6
        assert number == 30

    def test_an_error_of_the_reader_ends_the_processes(self, tokenizer_file: Path):
        def chunks() -> Iterator[list[str]]:
            yield from (["one"], ["two"])
            raise InputError("line 3 is bad")

        with pytest.raises(InputError, match="line 3 is bad"):
            list(encode_chunks(tokenizer_file, ids_of, chunks(), 2))
        assert not active_children()

    def test_no_process_outlives_a_killed_parent(self, tokenizer_file: Path, tmp_path: Path):
        """The script has no main guard, so this also shows that no process imports it."""
        (tmp_path / "script.py").write_text(SCRIPT)
        (tmp_path / "encoder.py").write_text(
            "def ids_of(encode, texts):\n    return encode(texts).tolist()\n"
        )
        with subprocess.Popen(
            [sys.executable, str(tmp_path / "script.py"), str(tokenizer_file)],
            stdout=subprocess.PIPE,
            text=True,
        ) as parent:
            assert parent.stdout is not None
            children = [Path(f"/proc/{pid}") for pid in parent.stdout.readline().split()]
            assert len(children) == 2
            assert all(child.exists() for child in children)
            parent.kill()
        deadline = time.monotonic() + 10
        while any(map(_runs, children)):
            assert time.monotonic() < deadline, "a child is still there after its parent was killed"
            time.sleep(0.05)

    def test_processes_import_no_torch_and_use_one_thread(self, tokenizer_file: Path):
        names = ["torch", "wirework.parallel"]
        for state in encode_chunks(tokenizer_file, modules_and_threads, [names, names], 2):
            assert state == ["wirework.parallel", "false"]

    def test_modules_in_the_working_folder_are_not_imported(
        self, tokenizer_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        for name in ("wirework", "json", "queue", "numpy"):
            (tmp_path / f"{name}.py").write_text("open('ran', 'w')\n")
        monkeypatch.chdir(tmp_path)
        for ids in encode_chunks(tokenizer_file, ids_of, [TEXTS, TEXTS], 2):
            assert ids
        assert not (tmp_path / "ran").exists()


def _runs(process: Path) -> bool:
    try:
        return "\nState:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
