"""What a mutation is, and those that fit any file.

A mutation changes one file below a folder; it is drawn from a seed, so that each case can be
replayed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

Change = Callable[[Path, Random], None]

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00"
ZIP = b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + bytes(range(64))
HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>404</body></html>\n"
LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


class DoesNotApply(Exception):  # noqa: N818
    """The mutation cannot be made of this file, such as a JSON one of a file that is no JSON."""


@dataclass(frozen=True)
class Mutation:
    """A way to spoil a file."""

    name: str
    change: Change
    loud: bool
    """Whether what it leaves is damage that a reader can see: it must not load as something else
    without a word. The others may make another valid file."""


def rewritten(change: Callable[[bytes, Random], bytes]) -> Change:
    """Return a change of a file's bytes."""

    def apply(path: Path, generator: Random) -> None:
        before = path.read_bytes()
        after = change(before, generator)
        if after == before:
            raise DoesNotApply
        path.write_bytes(after)

    return apply


def _cut(content: bytes, generator: Random) -> bytes:
    return content[: generator.randrange(len(content))]


def _cut_the_end(content: bytes, generator: Random) -> bytes:
    return content[: -generator.randint(1, min(9, len(content)))]


def _extended(content: bytes, generator: Random) -> bytes:
    return content + generator.randbytes(generator.randint(1, 64))


def _bit_flipped(first: int, content: bytes, generator: Random) -> bytes:
    """Flip a bit in the first 64 bytes (`first`), or anywhere (0)."""
    at = generator.randrange(min(first, len(content)) if first else len(content))
    return content[:at] + bytes([content[at] ^ 1 << generator.randrange(8)]) + content[at + 1 :]


def _zeroed(content: bytes, generator: Random) -> bytes:
    at, size = generator.randrange(len(content)), generator.randint(1, 512)
    return content[:at] + bytes(min(size, len(content) - at)) + content[at + size :]


def _shuffled(content: bytes, generator: Random) -> bytes:
    """Swap two blocks, as a bad copy does."""
    size = max(1, len(content) // 8)
    a, b = sorted(generator.sample(range(8), 2))
    blocks = [content[i * size : (i + 1) * size] for i in range(8)] + [content[8 * size :]]
    blocks[a], blocks[b] = blocks[b], blocks[a]
    return b"".join(blocks)


def _to_folder(path: Path, _: Random) -> None:
    path.unlink()
    path.mkdir()


def _to_pipe(path: Path, _: Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _linked(target: str) -> Change:
    def apply(path: Path, _: Random) -> None:
        path.unlink()
        path.symlink_to(path.name if target == "itself" else target)

    return apply


def _utf16(content: bytes, _: Random) -> bytes:
    try:
        return content.decode().encode("utf-16")
    except UnicodeDecodeError:
        raise DoesNotApply from None


def _with_windows_line_ends(content: bytes, _: Random) -> bytes:
    return content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


GENERIC = (
    Mutation("cut", rewritten(_cut), loud=True),
    Mutation("cut_the_end", rewritten(_cut_the_end), loud=True),
    Mutation("empty", rewritten(lambda *_: b""), loud=True),
    Mutation("one_line_end", rewritten(lambda *_: b"\n"), loud=True),
    Mutation("extended", rewritten(_extended), loud=True),
    Mutation("bit_in_head", rewritten(lambda c, d: _bit_flipped(64, c, d)), loud=False),
    Mutation("bit_anywhere", rewritten(lambda c, d: _bit_flipped(0, c, d)), loud=False),
    Mutation("zeroed_block", rewritten(_zeroed), loud=False),
    Mutation("swapped_blocks", rewritten(_shuffled), loud=False),
    Mutation("noise", rewritten(lambda c, d: d.randbytes(len(c))), loud=False),
    Mutation("png", rewritten(lambda *_: PNG), loud=True),
    Mutation("zip", rewritten(lambda *_: ZIP), loud=True),
    Mutation("html", rewritten(lambda *_: HTML), loud=True),
    Mutation("lfs_pointer", rewritten(lambda *_: LFS_POINTER), loud=True),
    Mutation("byte_order_mark", rewritten(lambda c, _: b"\xef\xbb\xbf" + c), loud=True),
    Mutation("windows_line_ends", rewritten(_with_windows_line_ends), loud=False),
    Mutation("utf16", rewritten(_utf16), loud=True),
    Mutation("folder", _to_folder, loud=True),
    Mutation("pipe", _to_pipe, loud=True),
    Mutation("endless", _linked("/dev/zero"), loud=True),
    Mutation("link_to_itself", _linked("itself"), loud=True),
    Mutation("removed", lambda path, _: path.unlink(), loud=True),
)
