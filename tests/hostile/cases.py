"""Which files are mutated how: every mutation that fits a file once, then more seeds."""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import foreign_formats
import own_formats
from loader import Loader
from mutation import GENERIC, Mutation
from tensor_mutations import PT, SAFETENSORS
from text_mutations import JSON, JSON_LINES, YAML

LOADERS = {one.name: one for one in (*own_formats.LOADERS, *foreign_formats.LOADERS)}
LEAST = 60
"""Cases of a loader, if there are not more to begin with."""

_BY_SUFFIX: dict[str, tuple[Mutation, ...]] = {
    ".json": JSON,
    ".jsonl": JSON_LINES,
    ".log": JSON_LINES,
    ".yaml": YAML,
    ".safetensors": SAFETENSORS,
    ".pt": PT,
    ".bin": PT,
}
MUTATIONS = {one.name: one for kind in (GENERIC, *_BY_SUFFIX.values()) for one in kind}


@dataclass(frozen=True)
class Case:
    """One file spoiled in one way and then read."""

    loader: str
    file: str
    mutation: str
    seed: int
    sealed: bool = False
    """Whether the checksums are recomputed afterwards."""

    def __str__(self) -> str:
        """Return what `--replay` takes."""
        return json.dumps([self.loader, self.file, self.mutation, self.seed, self.sealed])

    @classmethod
    def of(cls, text: str) -> "Case":
        """Return the case that `str` gave."""
        return cls(*json.loads(text))

    @property
    def generator(self) -> Random:
        """The case's own source of chance."""
        return Random(zlib.crc32(str(self).encode()))


def cases_of(loader: Loader, folder: Path) -> list[Case]:
    """Return the cases of a loader whose good input lies in a folder."""
    first = [
        Case(loader.name, file, mutation.name, 0, sealed)
        for file in _files(loader, folder)
        for mutation in _fitting(file)
        for sealed in ((False, True) if _can_seal(loader, file) else (False,))
    ]
    return first + list(_more(first, LEAST - len(first)))


def _files(loader: Loader, folder: Path) -> list[str]:
    found = {path for pattern in loader.files for path in folder.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _fitting(file: str) -> tuple[Mutation, ...]:
    if file.endswith("shard-00000.bin"):
        return GENERIC
    return GENERIC + _BY_SUFFIX.get(Path(file).suffix, ())


def _can_seal(loader: Loader, file: str) -> bool:
    return loader.seal is not None and not file.endswith("checksums.json")


def _more(first: Sequence[Case], count: int) -> Iterator[Case]:
    """Yield cases with other seeds, of mutations that chance decides."""
    for number in range(max(0, count)):
        like = first[number % len(first)]
        yield Case(like.loader, like.file, like.mutation, 1 + number // len(first), like.sealed)
