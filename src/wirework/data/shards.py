"""Token shards: the ids of one split in fixed-size, memory-mapped files.

A split is a folder with `shard-00000.bin`, ... (little-endian uint16, or uint32 above 65,536
tokens; all but the last hold the same number of tokens) and `index.json` (dtype, counts,
checksums), which is written last: without it the split is incomplete.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wirework.errors import InputError, cannot_write
from wirework.file_system import sync_dir, sync_file
from wirework.files import cannot_read, is_file, opened, read_json, sha256, write_json

DType = Literal["uint16", "uint32"]
Ids = NDArray[np.unsignedinteger[Any]]

FORMAT = "wirework-tokens"
VERSION = 1
INDEX = "index.json"
_PART = 1 << 20  # bytes of a shard that are checked at once
OPEN_SHARDS = 64  # each mapped file uses a file descriptor; the usual limit is 1024


def dtype_for(vocab_size: int) -> DType:
    """Return the smallest stored type that holds ids below `vocab_size`."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def _storage(dtype: DType) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.bin"


class ShardWriter:
    """Appends ids to a split; a kill loses only ids after the last `flush`.

    The split is complete once `finish` has written its index. To continue after a kill, create a
    writer with `n_tokens` from the last `flush`: ids written after it are dropped.
    """

    def __init__(self, folder: str | Path, dtype: DType, shard_tokens: int, n_tokens: int = 0):
        """Open a split for appending.

        Args:
            folder: the split's folder, created if missing.
            dtype: stored type of an id.
            shard_tokens: tokens per shard file; the last may hold fewer.
            n_tokens: number of tokens to keep from an earlier writer.

        Raises:
            InputError: the folder has fewer than `n_tokens`, or cannot be written to.
        """
        self._folder = Path(folder)
        self._storage = _storage(dtype)
        self._dtype = dtype
        self._shard_tokens = shard_tokens
        self._buffer: list[Ids] = []
        self._dirty: set[Path] = set()
        self.n_tokens = n_tokens
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._keep(n_tokens)
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def append(self, ids: Ids) -> None:
        """Add ids, shape (n,), at the end.

        Raises:
            InputError: an id does not fit the stored type, or the disk is full.
        """
        if ids.size and int(ids.max()) > np.iinfo(self._storage).max:
            raise InputError(f"token id {int(ids.max())} does not fit {self._dtype}")
        try:
            while ids.size:
                number, inside = divmod(self.n_tokens, self._shard_tokens)
                room = self._shard_tokens - inside
                part, ids = ids[:room], ids[room:]
                self._write(self._folder / _shard_name(number), part)
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def flush(self) -> int:
        """Flush all appended ids to the disk; return the number of tokens so far."""
        try:
            for path in sorted(self._dirty):
                with path.open("rb") as file:
                    sync_file(file, path)
            sync_dir(self._folder)
        except OSError as error:
            raise cannot_write(self._folder, error) from error
        self._dirty.clear()
        return self.n_tokens

    def finish(self, n_documents: int) -> None:
        """Write the index with the checksums; the split is complete.

        Args:
            n_documents: number of documents of the split, recorded in the index.
        """
        self.flush()
        shards = [
            {"name": path.name, "n_tokens": path.stat().st_size // self._storage.itemsize}
            | {"sha256": sha256(path)}
            for path in sorted(self._folder.glob("shard-*.bin"))
        ]
        index = {
            "format": FORMAT,
            "version": VERSION,
            "dtype": self._dtype,
            "n_tokens": self.n_tokens,
            "n_documents": n_documents,
            "shard_tokens": self._shard_tokens,
            "shards": shards,
        }
        write_json(self._folder / INDEX, index)

    def _write(self, path: Path, part: Ids) -> None:
        with path.open("ab") as file:
            file.write(part.astype(self._storage).tobytes())
        self._dirty.add(path)
        self.n_tokens += part.size

    def _keep(self, n_tokens: int) -> None:
        """Drop everything after the first `n_tokens`."""
        size = self._storage.itemsize
        full, inside = divmod(n_tokens, self._shard_tokens)
        wanted = [self._shard_tokens * size] * full + ([inside * size] if inside else [])
        for number, length in enumerate(wanted):
            path = self._folder / _shard_name(number)
            if not is_file(path) or path.stat().st_size < length:
                raise InputError(f"{path} is damaged: it should hold {length} bytes")
            os.truncate(path, length)
        kept = {_shard_name(number) for number in range(len(wanted))}
        for path in self._folder.glob("shard-*.bin"):
            if path.name not in kept:
                path.unlink()


class Tokens:
    """The ids of a split as one long sequence, mapped from its shards.

    `len(tokens)` and `tokens.n_tokens` are its length; `tokens.name` names the split (`train`).
    """

    def __init__(self, folder: str | Path, verify: bool = True, vocab_size: int | None = None):
        """Open a split.

        Args:
            folder: the split's folder.
            verify: compare every shard with its checksum (reads all shards once). Sizes are always
                compared.
            vocab_size: with `verify`, refuse ids of this size or above; None accepts all ids.

        Raises:
            InputError: there is no split, it is of a newer version, or a shard is missing,
                truncated, altered or has an id outside the vocabulary.
        """
        self.path = Path(folder)
        self.name = self.path.name
        index = _read_index(self.path)
        self._storage = _storage(index["dtype"])
        self._shard_tokens: int = index["shard_tokens"]
        self._shards: list[dict[str, Any]] = index["shards"]
        self.n_tokens: int = index["n_tokens"]
        self.n_documents: int = index["n_documents"]
        for shard in self._shards:
            self._check_size(shard)
            if verify:
                self._check_content(shard, vocab_size)
        self._map = lru_cache(maxsize=OPEN_SHARDS)(self._map_shard)

    def __len__(self) -> int:
        return self.n_tokens

    def __repr__(self) -> str:
        return f"Tokens({str(self.path)!r}, n_tokens={self.n_tokens:,})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path only."""
        return type(self), (self.path, False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the index, which has the checksum of every shard, as hex."""
        return sha256(self.path / INDEX)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type of an id, little-endian uint16 or uint32."""
        return self._storage

    def slice(self, start: int, length: int) -> Ids:
        """Return a copy of the ids at start .. start + length - 1, shape (length,).

        Raises:
            InputError: the range is not inside the split.
        """
        if start < 0 or length < 0 or start + length > self.n_tokens:
            raise InputError(
                f"tokens {start} .. {start + length} are not inside {self.name}, "
                f"which has {self.n_tokens}"
            )
        ids = np.empty(length, self._storage)
        n_copied = 0
        while n_copied < length:
            number, inside = divmod(start + n_copied, self._shard_tokens)
            part = self._part(number, inside, length - n_copied)
            ids[n_copied : n_copied + part.size] = part
            n_copied += part.size
        return ids

    def _part(self, number: int, start: int, length: int) -> Ids:
        """Return at most `length` ids of a shard, mapped if the file system can, else read."""
        path = self.path / self._shards[number]["name"]
        try:
            return self._map(path)[start : start + length]
        except OSError:
            pass  # not every file system can map files
        offset = start * self._storage.itemsize
        try:
            return np.fromfile(path, self._storage, length, offset=offset)
        except OSError as error:
            raise cannot_read(path, error) from error

    def _map_shard(self, path: Path) -> Ids:
        return np.memmap(path, dtype=self._storage, mode="r")

    def _check_size(self, shard: dict[str, Any]) -> None:
        path = self.path / shard["name"]
        expected = shard["n_tokens"] * self._storage.itemsize
        if not is_file(path):
            raise InputError(f"{path} is missing: delete {self.path.parent} and prepare again")
        if path.stat().st_size != expected:
            raise InputError(
                f"{path} is damaged: {path.stat().st_size} bytes, its index says {expected}; "
                f"delete {self.path.parent} and prepare again"
            )

    def _check_content(self, shard: dict[str, Any], vocab_size: int | None) -> None:
        path = self.path / shard["name"]
        digest, largest = _scanned(path, self._storage)
        if digest != shard["sha256"]:
            raise InputError(
                f"{path} is damaged: it does not match its checksum; "
                f"delete {self.path.parent} and prepare again"
            )
        if vocab_size is not None and largest >= vocab_size:
            raise InputError(
                f"{path} is damaged: it holds token id {largest}, and its tokeniser has "
                f"{vocab_size:,} tokens; delete {self.path.parent} and prepare again"
            )


def _scanned(path: Path, storage: np.dtype[Any]) -> tuple[str, int]:
    """Return a shard's SHA-256 as hex and its largest id, in one pass."""
    digest, largest = hashlib.sha256(), -1
    with opened(path) as file:
        while part := file.read(_PART):
            digest.update(part)
            largest = max(largest, int(np.frombuffer(part, storage).max()))
    return digest.hexdigest(), largest


def _read_index(folder: Path) -> dict[str, Any]:
    """Read and check a split's index."""
    path = folder / INDEX
    index = read_json(path)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise InputError(f"{path} is not an index of token shards")
    if not isinstance(index.get("version"), int) or index["version"] > VERSION:
        raise InputError(
            f"{path} has version {index.get('version')}, this wirework reads up to {VERSION}"
        )
    if not _consistent(index):
        raise InputError(f"{path} is damaged: its counts do not fit together")
    return index


def _consistent(index: dict[str, Any]) -> bool:
    """Return whether the counts of an index agree, so that offsets can be computed from them."""
    try:
        counts = [int(shard["n_tokens"]) for shard in index["shards"]]
        named = all(Path(shard["name"]).name == shard["name"] for shard in index["shards"])
        full, total, per_shard = counts[:-1], index["n_tokens"], index["shard_tokens"]
        return (
            named
            and index["dtype"] in ("uint16", "uint32")
            and all(isinstance(index[name], int) for name in ("n_documents", "n_tokens"))
            and sum(counts) == total
            and all(count == per_shard for count in full)
            and all(0 < count <= per_shard for count in counts[-1:])
        )
    except (KeyError, TypeError, ValueError):
        return False
