"""Documents to token ids, in this process or in several."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wirework.data.tokenizer import Tokenizer
from wirework.parallel import map_in_processes

UInt32 = NDArray[np.uint32]
Encode = Callable[[Sequence[str]], UInt32]
_Chunk = TypeVar("_Chunk")

_CHUNKS_PER_PROCESS = 2
"""Chunks per process: one being encoded and one queued, so that no process waits for input."""


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> UInt32:
    """Return the ids of all `texts`, end-of-text after each, shape (n,)."""
    if not texts:
        return np.empty(0, np.uint32)
    end = [tokenizer.eot]
    batch = tokenizer.encode_batch(texts)
    return np.concatenate([np.array(ids + end, dtype=np.uint32) for ids in batch])


def encode_chunks(
    tokenizer_file: Path,
    encode_chunk: Callable[[Encode, _Chunk], _Chunk],
    chunks: Iterable[_Chunk],
    workers: int,
) -> Generator[_Chunk, None, None]:
    """Yield `encode_chunk(encode, chunk)` for each chunk, in order and in bounded memory.

    One worker, or one chunk in all, encodes in this process with the library's threads: processes
    take longer to start than to encode a chunk. Several workers are processes of one thread each,
    which import neither torch nor the user's script.

    Args:
        tokenizer_file: a `tokenizer.json`.
        encode_chunk: a module-level function; its first argument is a function from texts to ids.
        chunks: at most two per process are read before their results are yielded.
        workers: number of workers.

    Raises:
        InputError: a process died, most likely because memory ran out.
    """
    first = list(islice(chunks := iter(chunks), 2)) if workers > 1 else []
    chunks = chain(first, chunks)
    if len(first) < 2:
        encode = partial(encode_documents, Tokenizer.load(tokenizer_file))
        yield from (encode_chunk(encode, chunk) for chunk in chunks)
        return
    yield from map_in_processes(
        partial(_encode_in_process, tokenizer_file, encode_chunk),
        chunks,
        workers,
        "set data.workers to 1",
        _use_one_thread,
        ahead=_CHUNKS_PER_PROCESS * workers,
        import_script=False,
        saving_seconds=0,
    )


def _use_one_thread() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _encode_in_process(
    tokenizer_file: Path, encode_chunk: Callable[[Encode, _Chunk], _Chunk], chunk: _Chunk
) -> _Chunk:
    return encode_chunk(partial(encode_documents, _loaded(tokenizer_file)), chunk)


@cache
def _loaded(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_file)
