"""Text files read in pieces of bounded size, so that a file may be larger than memory.

If one of the first lines of a file is `<|endoftext|>` alone, as in the released TinyStories, that
line separates documents.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wirework.errors import InputError, reason
from wirework.file_system import open_ordinary

SNIFF_BYTES = 8192
"""Bytes at the beginning of a file in which a NUL byte makes it binary."""
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\xfd7zXZ": "xz",
    b"PK": "zip",
}
"""First bytes of compressed files and archives."""
UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""First bytes of UTF-16 files."""
MARK = re.compile(r"^<\|endoftext\|>[ \t]*\r?\n?", re.MULTILINE)
"""Line that separates two documents of one file."""
MARK_BYTES = 1 << 16
"""Bytes within which the first separator must occur. A separated file is read in such pieces."""


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn a system error about a file into an `InputError` that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error


def stat_of(path: Path) -> os.stat_result:
    """Return size and times of a file.

    Raises:
        InputError: it is missing or cannot be accessed.
    """
    with reading(path):
        return path.stat()


def text_pieces(path: Path, piece_bytes: int) -> Iterator[str]:
    """Yield a UTF-8 file in pieces, which together are its text without the byte order mark.

    Args:
        path: the file.
        piece_bytes: most bytes of a piece. It ends after a line if it contains a line end, else
            between two characters.

    Raises:
        InputError: the file is unreadable, binary (it has a NUL byte early on) or not UTF-8; the
            message names the byte offset.
    """
    start, unread = 0, b""
    with reading(path), open_ordinary(path) as file:
        while chunk := file.read(piece_bytes - len(unread)):
            block = unread + chunk
            if start == 0:
                _refuse_binary(path, block)
            cut = _cut(block) if len(block) >= piece_bytes else len(block)
            unread = block[cut:]
            yield _decode(path, block[:cut], start)
            start += cut
    if unread:
        yield _decode(path, unread, start)


def is_separated(path: Path) -> bool:
    """Return whether a file has a line `<|endoftext|>` among its first 65,536 bytes.

    Raises:
        InputError: the file is unreadable.
    """
    with reading(path), open_ordinary(path) as file:
        head = file.read(MARK_BYTES)
    return MARK.search(head.decode(errors="replace")) is not None


def separated(path: Path) -> Iterator[str]:
    """Yield the texts between the separators of a file, without blank lines around them.

    One document is in memory at a time.

    Raises:
        InputError: the file is unreadable, binary or not UTF-8.
    """
    parts: list[str] = []
    for piece in text_pieces(path, MARK_BYTES):  # pieces end after a line, so no separator is cut
        for number, text in enumerate(MARK.split(piece)):
            if number:
                yield from _document(parts)
                parts.clear()
            parts.append(text)
    yield from _document(parts)


def _document(parts: list[str]) -> Iterator[str]:
    """Yield the parts as one document, unless it is blank."""
    if text := "".join(parts).strip():
        yield text


def read_text(path: Path, piece_bytes: int) -> Iterator[str] | None:
    """Return the pieces of a file, or None if it is binary or not UTF-8.

    The whole file is checked before its first piece is returned.

    Args:
        path: the file.
        piece_bytes: most bytes of a piece.

    Raises:
        InputError: the file is unreadable.
    """
    try:
        for _ in text_pieces(path, piece_bytes):
            pass
    except InputError as error:
        if isinstance(error.__cause__, OSError):  # not a fault of the content
            raise
        return None
    return text_pieces(path, piece_bytes)


def _cut(block: bytes) -> int:
    """Return the length of the next piece: to the last line end, else the last whole character."""
    line_end = block.rfind(b"\n") + 1
    if line_end:
        return line_end
    cut = len(block)
    while cut > len(block) - 4 and cut > 1 and block[cut - 1] & 0xC0 == 0x80:
        cut -= 1
    # block[cut - 1] begins the last character, which may continue in the next block.
    return cut - 1 if cut > 1 and block[cut - 1] >= 0xC0 else len(block)


def _decode(path: Path, block: bytes, start: int) -> str:
    """Decode a piece that begins at byte `start` of a file."""
    try:
        text = block.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text: byte 0x{block[error.start]:02x} "
            f"at offset {start + error.start}"
        ) from None
    return text.removeprefix("\ufeff") if start == 0 else text


def _refuse_binary(path: Path, block: bytes) -> None:
    if block.startswith(UTF16):
        raise InputError(f"{path} is not UTF-8 text but UTF-16: save it as UTF-8")
    for first, method in COMPRESSED.items():
        if block.startswith(first) and b"\0" in block[:SNIFF_BYTES]:
            raise InputError(f"{path} is compressed ({method}): unpack it first")
    nul = block.find(b"\0", 0, SNIFF_BYTES)
    if nul >= 0:
        raise InputError(f"{path} is binary, not text: it has a NUL byte at offset {nul}")
