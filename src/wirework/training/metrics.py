"""The log of a run, `metrics.jsonl`: one JSON object a line.

`kind` is `train`, `eval` or `final`. Everything except the inner object `timing` and the checksum
`sum` depends on settings and data only, so that the logs of two runs can be compared. A resume cuts
the log back to the checkpoint, so that it holds every line once.
"""

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from wirework.console import warn
from wirework.errors import DamagedError, cannot_write
from wirework.file_system import sync_file
from wirework.files import is_file, read_bytes
from wirework.json_lines import Sealer, open_lines


class Tracker(Protocol):
    """Another destination of the numbers (TensorBoard, Weights & Biases)."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the numbers of a step, by name."""
        ...

    def close(self) -> None:
        """Write buffered numbers and close."""
        ...


class MetricsLog:
    """Appends lines to `metrics.jsonl` and passes their numbers to trackers.

    Args:
        path: the file.
        position: size in bytes to which the file is cut back first.
        trackers: other destinations of the numbers.

    Raises:
        InputError: the file cannot be read or written, or is damaged.
    """

    def __init__(self, path: Path, position: int, trackers: Iterable[Tracker] = ()) -> None:
        self.path = path
        self.trackers = tuple(trackers)
        size, self._sealer = checked_log(path, position)
        if size < position:
            warn(f"{path} is {position - size} bytes shorter than its checkpoint says")
        try:
            self._file = path.open("ab", buffering=0)
            self._file.truncate(size)
        except OSError as error:
            raise cannot_write(path, error) from error

    def write(
        self, step: int, kind: str, values: Mapping[str, Any], timing: Mapping[str, float]
    ) -> None:
        """Append a line without buffering, so that only a crash of the machine can lose it."""
        record = {"step": step, "kind": kind, **values, "timing": dict(timing)}
        line = self._sealer.seal(record) + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise cannot_write(self.path, error) from error
        numbers = {f"{kind}/{k}": v for k, v in {**values, **timing}.items() if _is_number(v)}
        for tracker in self.trackers:
            tracker.log(step, numbers)

    def sync(self) -> int:
        """Flush the file to the disk; return its size in bytes."""
        try:
            sync_file(self._file, self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file and the trackers."""
        self._file.close()
        for tracker in self.trackers:
            tracker.close()


def checked_log(path: Path, position: int) -> tuple[int, Sealer]:
    """Verify the checksums of the log lines that a resume keeps.

    Args:
        path: the log; it may be absent.
        position: size of the log in bytes at the checkpoint.

    Returns:
        The size in bytes of the complete lines up to there, and the sealer of the next line.

    Raises:
        InputError: the file cannot be read, or one of these lines is damaged.
    """
    kept = read_bytes(path)[:position] if is_file(path) else b""
    if len(kept) < position:
        kept = kept[: kept.rfind(b"\n") + 1]
    sealer = Sealer()
    try:
        open_lines(kept, path, sealer)
    except DamagedError as error:
        raise DamagedError(
            f"{error}: move the file away, and --resume continues without its lines"
        ) from error
    return len(kept), sealer


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `metrics.jsonl`; of a run in progress, the complete ones.

    Raises:
        InputError: the file is missing or cannot be read, or a line in it is damaged.
    """
    return open_lines(read_bytes(path), path)


def last_step(run: Path) -> int:
    """Return the step of the last line of a run's log, or 0 if there is none."""
    path = run / "metrics.jsonl"
    lines = read_metrics(path) if is_file(path) else []
    return int(lines[-1]["step"]) if lines else 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
