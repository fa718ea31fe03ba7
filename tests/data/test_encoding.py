import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wirework.data import Tokenizer, train_tokenizer
from wirework.data.encoding import (
    EncodingProcess,
    encode_documents,
    encoders,
    map_in_order,
)
from wirework.errors import InputError

TEXTS = ["one two", "three\n", "", "ünï 🐍", "four five six"]


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


def test_a_process_encodes_as_we_do(tokenizer_file: Path):
    expected = encode_documents(Tokenizer.load(tokenizer_file), TEXTS)
    process = EncodingProcess(tokenizer_file)
    try:
        for _ in range(2):
            assert np.array_equal(process.encode(TEXTS), expected)
        assert process.encode([]).size == 0
    finally:
        process.close()


def test_a_process_that_dies_is_reported(tokenizer_file: Path):
    process = EncodingProcess(tokenizer_file)
    try:
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(InputError, match=r"ended early \(exit code -9\); if memory ran out"):
            process.encode(["x"])
    finally:
        process.close()


def test_results_come_in_order_and_few_are_read_ahead():
    read: list[int] = []

    def items():
        for i in range(30):
            read.append(i)
            yield i

    def slow_at_first(encode: object, i: int) -> int:
        time.sleep(0.02 if i % 3 == 0 else 0)
        return i

    workers = [lambda texts: np.empty(0, np.uint32)] * 3
    ahead = 0
    for done, result in enumerate(map_in_order(slow_at_first, items(), workers)):
        assert result == done
        ahead = max(ahead, len(read) - done)
    assert done == 29
    assert ahead <= 6


def test_an_error_of_the_reader_ends_the_workers(tokenizer_file: Path):
    def items():
        yield ["one"]
        raise InputError("line 2 is bad")

    def work(encode, texts):
        encode(texts)
        return texts

    pids: list[int] = []

    def run():
        with encoders(tokenizer_file, 2) as workers:
            pids.extend(encode.__self__.pid for encode in workers)
            list(map_in_order(work, items(), workers))

    with pytest.raises(InputError, match="line 2 is bad"):
        run()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_no_process_outlives_a_killed_parent(tokenizer_file: Path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from wirework.data.encoding import EncodingProcess\n"
        "process = EncodingProcess(Path(sys.argv[1]))\n"
        "process.encode(['x'])\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tokenizer_file)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = Path(f"/proc/{int(parent.stdout.readline())}")
        assert child.exists()
        parent.kill()
    for _ in range(200):
        if not child.exists() or "\nState:\tZ" in (child / "status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child is still there 10 seconds after its parent was killed")


def test_modules_in_the_working_folder_are_not_imported(
    tokenizer_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("wirework", "json", "queue", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    process = EncodingProcess(tokenizer_file)
    try:
        assert process.encode(TEXTS).size > 0
    finally:
        process.close()
    assert not (tmp_path / "ran").exists()
