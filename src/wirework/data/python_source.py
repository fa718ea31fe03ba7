"""The corpus `python`: the source code installed with the running Python.

It consists of the standard library and the installed packages of the running interpreter. Files
that teach a model little about code are left out: tests, generated and minified files, tables,
copies.
"""

import hashlib
import os
import re
import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from wirework.file_system import open_ordinary

TEST_FOLDERS = frozenset({"test", "tests", "testing", "idle_test", "_test", "_tests"})
OTHER_ROOTS = frozenset({"site-packages", "dist-packages", "__pycache__"})
"""Folders of the standard library that are roots of their own, and compiled files."""
NAMES_LEFT_OUT = re.compile(r"(test_.*|.*_test|conftest|.*_pb2|.*_pb2_grpc)\.py")
GENERATED = re.compile(r"\bgenerated\b|\bauto-?generated\b|\bdo not edit\b", re.IGNORECASE)
GENERATED_LINES = 5
"""Number of first lines in which `GENERATED` is looked for."""
PROSE = re.compile(r'"""(?:.|\n)*?"""|\'\'\'(?:.|\n)*?\'\'\'|^[ \t]*#.*$', re.MULTILINE)
"""Docstrings and comment lines, in which quotes are not counted."""
MAX_BYTES = 500_000
"""Largest size of a file, in bytes; larger ones are mostly tables."""
MIN_BYTES = 200
"""Smallest size of a file, in bytes."""
MAX_MEAN_LINE = 150
"""Mean characters per line above which a file counts as minified or as a table."""


def roots() -> list[Path]:
    """Return the folders of the standard library and of the installed packages.

    In a virtual environment the standard library is the base interpreter's.
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = dict.fromkeys(Path(sysconfig.get_path(name)).resolve() for name in names)
    return [root for root in folders if root.is_dir()]


def candidate_files() -> list[tuple[Path, str]]:
    """Return candidate files with their path below their root, in the order of that path's hash.

    Tests and generated code are left out by name, tiny and huge files by size.
    """
    names: dict[Path, str] = {}
    for root in roots():
        for path in _walk(root):
            names.setdefault(path, path.relative_to(root).as_posix())
    return sorted(names.items(), key=lambda item: (_scatter(item[1]), item[0]))


def source_documents(min_quotes: float | None = None) -> Iterator[str]:
    """Yield each file once as a document, with line feeds as line ends.

    Args:
        min_quotes: files with a smaller share of quotes are left out; None keeps all.
    """
    digests: set[bytes] = set()
    for path, _ in candidate_files():
        text = _read(path)
        if text is None or not is_hand_written(text):
            continue
        if min_quotes is not None and quote_share(text) < min_quotes:
            continue
        digest = hashlib.sha256(text.encode()).digest()[:16]
        if digest not in digests:
            digests.add(digest)
            yield text


def is_hand_written(text: str) -> bool:
    """Return whether a file is neither generated (according to its first lines) nor minified."""
    head = "\n".join(text[:2000].split("\n", GENERATED_LINES)[:GENERATED_LINES])
    n_lines = text.count("\n") + 1
    return not GENERATED.search(head) and len(text) / n_lines <= MAX_MEAN_LINE


def quote_share(text: str) -> float:
    """Return the share of characters that are quotes outside comment lines and triple quotes."""
    code = PROSE.sub("", text)
    return (code.count("'") + code.count('"')) / max(1, len(text))


def _walk(root: Path) -> Iterator[Path]:
    """Yield the Python files below a root whose name and size may be those of hand-written code."""
    for parent, folders, names in os.walk(root):
        folders[:] = [
            name for name in folders if name not in TEST_FOLDERS and name not in OTHER_ROOTS
        ]
        for name in names:
            if name.endswith(".py") and not NAMES_LEFT_OUT.fullmatch(name):
                path = Path(parent) / name
                if MIN_BYTES <= _size(path) <= MAX_BYTES:
                    yield path


def _size(path: Path) -> int:
    """Return the size of a regular file; 0 for anything else or if it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _read(path: Path) -> str | None:
    """Return a file's text, or None if it cannot be read as UTF-8."""
    try:
        with open_ordinary(path) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    return None if "\0" in text else text.replace("\r\n", "\n")


def _scatter(name: str) -> bytes:
    """Return the key by which files are ordered, so that neighbours come from many packages."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()
