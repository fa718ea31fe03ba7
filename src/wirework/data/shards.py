"""Token shards: the token ids of one split, in files that are mapped into memory.

A split is a folder with

- `shard-00000.bin`, `shard-00001.bin`, ...: ids as little-endian uint16, or uint32 for a vocabulary
  above 65,536 tokens. All shards but the last hold the same number of tokens.
- `index.json`: dtype, counts and checksums. It is written last; a folder without it is incomplete.
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
_READ_BYTES = 1 << 20
"""Bytes of a shard that are read at a time to verify it."""
OPEN_SHARDS = 64
"""Shards that are mapped at a time. Each uses a file descriptor; the usual limit is 1024."""


def dtype_for(vocab_size: int) -> DType:
    """Return the smallest type that can store all ids below `vocab_size`."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def _storage(dtype: DType) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.bin"


class ShardWriter:
    """Appends ids to a split.

    The split is complete once `finish` has written its index. A kill loses only ids that were
    appended after the last `flush`. To continue after a kill, create a writer with the `n_tokens`
    that this `flush` returned: later ids are dropped.
    """

    def __init__(self, folder: str | Path, dtype: DType, shard_tokens: int, n_tokens: int = 0):
        """Open a split for appending.

        Args:
            folder: the split's folder, created if missing.
            dtype: stored type of an id.
            shard_tokens: tokens per shard file; the last may hold fewer.
            n_tokens: number of tokens of an earlier writer to keep; all others are dropped.

        Raises:
            InputError: the folder holds fewer than `n_tokens`, or cannot be written to.
        """
        self._folder = Path(folder)
        self._storage = _storage(dtype)
        self._dtype = dtype
        self._shard_tokens = shard_tokens
        self._dirty: set[Path] = set()
        self.n_tokens = n_tokens
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._truncate(n_tokens)
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def append(self, ids: Ids) -> None:
        """Add ids at the end.

        Args:
            ids: (n,), unsigned integers.

        Raises:
            InputError: an id does not fit the stored type, or the disk is full.
        """
        if ids.size and int(ids.max()) > np.iinfo(self._storage).max:
            raise InputError(f"token id {int(ids.max())} does not fit {self._dtype}")
        try:
            while ids.size:
                number, n_in_shard = divmod(self.n_tokens, self._shard_tokens)
                n_free = self._shard_tokens - n_in_shard
                part, ids = ids[:n_free], ids[n_free:]
                self._write(self._folder / _shard_name(number), part)
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def flush(self) -> int:
        """Flush all appended ids to the disk; return the number of tokens of the split so far.

        Raises:
            InputError: the disk is full or cannot be written to.
        """
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
        """Complete the split: write the index, with the checksum of every shard.

        Args:
            n_documents: number of documents of the split, recorded in the index.

        Raises:
            InputError: the disk is full or cannot be written to.
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

    def _truncate(self, n_tokens: int) -> None:
        """Drop everything after the first `n_tokens`.

        Raises:
            InputError: a shard is missing or too short.
        """
        n_full, n_in_last = divmod(n_tokens, self._shard_tokens)
        counts = [self._shard_tokens] * n_full + ([n_in_last] if n_in_last else [])
        for number, count in enumerate(counts):
            path, n_bytes = self._folder / _shard_name(number), count * self._storage.itemsize
            if not is_file(path) or path.stat().st_size < n_bytes:
                raise InputError(f"{path} is damaged: it should hold {n_bytes} bytes")
            os.truncate(path, n_bytes)
        kept_names = {_shard_name(number) for number in range(len(counts))}
        for path in self._folder.glob("shard-*.bin"):
            if path.name not in kept_names:
                path.unlink()


class Tokens:
    """The token ids of a split as one long sequence, mapped from its shards.

    Attributes:
        path: folder of the split.
        name: name of the split, such as `train`.
        n_tokens: number of tokens, also `len(tokens)`.
        n_documents: number of documents.
    """

    def __init__(self, folder: str | Path, verify: bool = True, vocab_size: int | None = None):
        """Open a split.

        Args:
            folder: the split's folder.
            verify: compare every shard with its checksum, which reads all shards once. Sizes are
                always compared.
            vocab_size: with `verify`, ids of this size or above are refused; None accepts all ids.

        Raises:
            InputError: the folder has no complete split or one of a newer version, or a shard is
                missing, truncated or altered, or has an id outside the vocabulary.
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
        """Pickle the path only: another process opens the files itself, without verifying them."""
        return type(self), (self.path, False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the index, as hex; the index has the checksum of every shard."""
        return sha256(self.path / INDEX)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type of an id, little-endian uint16 or uint32."""
        return self._storage

    def slice(self, start: int, length: int) -> Ids:
        """Return a copy of consecutive ids.

        Args:
            start: position of the first id.
            length: number of ids.

        Returns:
            (length,), in the stored type.

        Raises:
            InputError: the range is not inside the split, or a shard cannot be read.
        """
        if start < 0 or length < 0 or start + length > self.n_tokens:
            raise InputError(
                f"tokens {start} .. {start + length} are not inside {self.name}, "
                f"which has {self.n_tokens}"
            )
        ids = np.empty(length, self._storage)
        n_copied = 0
        while n_copied < length:
            number, start_in_shard = divmod(start + n_copied, self._shard_tokens)
            part = self._read(number, start_in_shard, length - n_copied)
            ids[n_copied : n_copied + part.size] = part
            n_copied += part.size
        return ids

    def _read(self, number: int, start: int, length: int) -> Ids:
        """Return at most `length` ids of one shard, mapped if possible, else read."""
        try:
            return self._map(number)[start : start + length]
        except OSError:
            pass  # not every file system can map files
        path = self.path / self._shards[number]["name"]
        offset = start * self._storage.itemsize
        try:
            return np.fromfile(path, self._storage, length, offset=offset)
        except OSError as error:
            raise cannot_read(path, error) from error

    def _map_shard(self, number: int) -> Ids:
        path = self.path / self._shards[number]["name"]
        # Slices of a plain array take a fifth of the time of a memmap's.
        return np.asarray(np.memmap(path, dtype=self._storage, mode="r"))

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
        digest, largest = _digest_and_largest(path, self._storage)
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


def _digest_and_largest(path: Path, storage: np.dtype[Any]) -> tuple[str, int]:
    """Return a shard's SHA-256 as hex and its largest id, in one pass."""
    digest, largest = hashlib.sha256(), -1
    with opened(path) as file:
        while part := file.read(_READ_BYTES):
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
    """Return whether the counts of an index agree, so that offsets can be computed from them.

    The name of a shard must be that of a file in the folder of the split.
    """
    try:
        counts = [int(shard["n_tokens"]) for shard in index["shards"]]
        are_in_folder = all(Path(shard["name"]).name == shard["name"] for shard in index["shards"])
        per_shard = index["shard_tokens"]
        return (
            are_in_folder
            and index["dtype"] in ("uint16", "uint32")
            and all(isinstance(index[name], int) for name in ("n_documents", "n_tokens"))
            and sum(counts) == index["n_tokens"]
            and all(count == per_shard for count in counts[:-1])
            and all(0 < count <= per_shard for count in counts[-1:])
        )
    except (KeyError, TypeError, ValueError):
        return False
