"""Free memory of this machine and process, to refuse early what does not fit."""

import os
from collections.abc import Iterator
from pathlib import Path

from wirework.errors import InputError

_CGROUPS = Path("/sys/fs/cgroup")


def require_memory(needed: int, purpose: str, why: str = "") -> None:
    """Raise an error if less memory is available than needed.

    Args:
        needed: bytes.
        purpose: purpose of the memory, the beginning of the message.
        why: the reason for the size, the end of the message.

    Raises:
        InputError: less is available; the message has both numbers.
    """
    available = available_bytes()
    if needed > available:
        raise InputError(
            f"{purpose} needs {gigabytes(needed)} of memory, {gigabytes(available)} are available"
            f"{f': {why}' if why else ''}"
        )


def available_bytes() -> int:
    """Return the bytes of memory that this process can still allocate.

    This is the minimum of the machine's free memory, the limits of the process's cgroups and its
    limit of address space (`ulimit -v`). If the system reports none of them (macOS), it is the
    total memory of the machine.
    """
    limits = [*_free_on_machine(), *_free_in_cgroups(), *_free_addresses()]
    return min(limits, default=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def gigabytes(n_bytes: int) -> str:
    """Return a number of bytes in GB; a huge one as a power of ten."""
    size = n_bytes / 1e9
    return f"{size:,.1f} GB" if size < 1e6 else f"{size:.1e} GB"


def _free_on_machine() -> Iterator[int]:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])


def _free_in_cgroups() -> Iterator[int]:
    """Yield the free memory of each cgroup of this process; its page cache counts as free."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        new = not controllers
        root = _CGROUPS if new else _CGROUPS / "memory"
        limit, used = (
            ("memory.max", "memory.current")
            if new
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            numbers = [_number(group / name) for name in (limit, used)]
            if numbers[0] is not None and numbers[1] is not None:
                yield max(numbers[0] - numbers[1] + _page_cache(group), 0)


def _page_cache(group: Path) -> int:
    fields = (line.split() for line in _lines(group / "memory.stat"))
    return sum(int(words[1]) for words in fields if words[0] in ("file", "total_cache"))


def _free_addresses() -> Iterator[int]:
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = next(iter(_lines(Path("/proc/self/statm"))), None)
    if limit != resource.RLIM_INFINITY and taken is not None:
        yield max(limit - int(taken.split()[0]) * os.sysconf("SC_PAGE_SIZE"), 0)


def _number(path: Path) -> int | None:
    text = next(iter(_lines(path)), "")
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
