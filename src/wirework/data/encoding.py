"""Documents to ids in several processes, in order and in bounded memory.

The processes are plain children on pipes, not `multiprocessing`: they import no more than this
folder (a spawned process would import the caller's script, and torch with it, and fail where the
script has no main guard), and they end by themselves when the pipe closes, so that a killed parent
leaves none behind. Messages are a length (8 bytes, little-endian) and as many bytes: texts as a
JSON list one way, uint32 ids the other.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray

from wirework.data.tokenizer import Tokenizer
from wirework.errors import InputError
from wirework.signals import kept_from_children

UInt32 = NDArray[np.uint32]
Encode = Callable[[Sequence[str]], UInt32]
T = TypeVar("T")

LENGTH_BYTES = 8
_CHILD = "import sys; from wirework.data.encoding import serve; serve(sys.argv[1])"
IN_FLIGHT = 2
"""Pieces of work held per process, so that none waits for the reader."""


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> UInt32:
    """Return the ids of all `texts`, end-of-text after each, shape (n,)."""
    if not texts:
        return np.empty(0, np.uint32)
    end = [tokenizer.eot]
    batch = tokenizer.encode_batch(texts)
    return np.concatenate([np.array(ids + end, dtype=np.uint32) for ids in batch])


@contextlib.contextmanager
def encoders(tokenizer_file: Path, workers: int) -> Iterator[list[Encode]]:
    """Yield `workers` functions from texts to ids that can run side by side.

    One worker encodes in this process, on all cores (the library's own threads); more are
    processes of one thread each, ended when the block ends, whatever ends it.

    Args:
        tokenizer_file: a `tokenizer.json`.
        workers: how many.

    Raises:
        InputError: (from a function) its process ended, most likely for want of memory.
    """
    if workers == 1:
        tokenizer = Tokenizer.load(tokenizer_file)
        yield [lambda texts: encode_documents(tokenizer, texts)]
        return
    processes: list[EncodingProcess] = []
    try:
        for _ in range(workers):
            processes.append(EncodingProcess(tokenizer_file))
        yield [process.encode for process in processes]
    finally:
        for process in processes:
            process.close()


def map_in_order(
    work: Callable[[Encode, T], T], items: Iterable[T], workers: Sequence[Encode]
) -> Iterator[T]:
    """Yield `work(encode, item)` for each item, in the order of the items.

    Reads at most `IN_FLIGHT` items per worker ahead of what was yielded. With one worker all
    happens in this thread.
    """
    if len(workers) == 1:
        yield from (work(workers[0], item) for item in items)
        return
    idle: queue.SimpleQueue[Encode] = queue.SimpleQueue()
    for encode in workers:
        idle.put(encode)

    def run(item: T) -> T:
        encode = idle.get()
        try:
            return work(encode, item)
        finally:
            idle.put(encode)

    threads = ThreadPoolExecutor(len(workers), thread_name_prefix="encode")
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(run, item))
            if len(waiting) >= IN_FLIGHT * len(workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # No wait: a thread ends when its process does, which the caller sees to.
        threads.shutdown(wait=False, cancel_futures=True)


class EncodingProcess:
    """A child process that encodes what it is sent, one list of texts at a time."""

    def __init__(self, tokenizer_file: Path):
        """Start the process; it loads the tokeniser on its own time."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TOKENIZERS_PARALLELISM": "false",
        }
        with kept_from_children():
            self._process = subprocess.Popen(
                # -P: a module in the working folder must not take the place of one of these.
                [sys.executable, "-P", "-c", _CHILD, str(tokenizer_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def encode(self, texts: Sequence[str]) -> UInt32:
        """Return the ids of all `texts`, end-of-text after each, shape (n,).

        Raises:
            InputError: the process has ended.
        """
        if not texts:
            return np.empty(0, np.uint32)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, json.dumps(texts).encode())
            reply = receive(self._process.stdout)
        except (OSError, ValueError):  # a broken pipe, or one that `close` has closed
            reply = None
        if reply is None:
            raise InputError(
                f"a process that tokenises ended early (exit code {self._process.wait()}); "
                "if memory ran out, set data.workers to 1"
            )
        return np.frombuffer(reply, dtype="<u4").astype(np.uint32)

    def close(self) -> None:
        """End the process and wait for it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def send(pipe: IO[bytes], message: bytes) -> None:
    """Write one message."""
    pipe.write(len(message).to_bytes(LENGTH_BYTES, "little"))
    pipe.write(message)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes | None:
    """Read one message; None: the other side has ended, maybe in the middle of one."""
    header = pipe.read(LENGTH_BYTES)
    if len(header) < LENGTH_BYTES:
        return None
    length = int.from_bytes(header, "little")
    message = pipe.read(length)
    return message if len(message) == length else None


def serve(tokenizer_file: str) -> None:
    """Encode what comes on standard input until it closes: the whole life of a child process."""
    tokenizer = Tokenizer.load(tokenizer_file)
    with contextlib.suppress(BrokenPipeError):  # the parent was killed
        while (request := receive(sys.stdin.buffer)) is not None:
            ids = encode_documents(tokenizer, json.loads(request))
            send(sys.stdout.buffer, ids.astype("<u4").tobytes())
