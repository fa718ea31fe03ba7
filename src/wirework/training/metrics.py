"""The log of a run, `metrics.jsonl`: one JSON object a line.

`kind` is `train`, `eval` or `final`. All but the inner object `timing` depends on settings and data
alone, so that two runs can be compared by it. After a resume the log is cut back to where the
checkpoint was made and holds every line once.
"""

import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from wirework.errors import InputError
from wirework.console import warn


class Tracker(Protocol):
    """Another place that numbers go to (TensorBoard, Weights & Biases)."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step, by name."""
        ...

    def close(self) -> None:
        """Write out what is held back."""
        ...


class MetricsLog:
    """Appends lines to `metrics.jsonl` and hands their numbers to the trackers.

    Args:
        path: the file.
        position: size in bytes to cut it back to.
        trackers: who else gets the numbers.

    Raises:
        InputError: the file cannot be written to.
    """

    def __init__(self, path: Path, position: int, trackers: Iterable[Tracker] = ()) -> None:
        self.path = path
        self.trackers = tuple(trackers)
        try:
            self._file = path.open("ab", buffering=0)
            size = path.stat().st_size
            if size < position:
                warn(f"{path} has lost its last {position - size} bytes; going on at its end")
            self._file.truncate(min(position, size))
        except OSError as error:
            raise _cannot_write(path, error) from error

    def write(
        self, step: int, kind: str, values: Mapping[str, Any], timing: Mapping[str, float]
    ) -> None:
        """Append a line at once, so that only the death of the machine can lose it."""
        record = {"step": step, "kind": kind, **values, "timing": dict(timing)}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        numbers = {f"{kind}/{k}": v for k, v in {**values, **timing}.items() if _is_number(v)}
        for tracker in self.trackers:
            tracker.log(step, numbers)

    def settle(self) -> int:
        """Flush all to the disk; return the position in bytes."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file and the trackers."""
        self._file.close()
        for tracker in self.trackers:
            tracker.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `metrics.jsonl`; of a run that is being written, the whole ones.

    Raises:
        InputError: the file is missing, or a line in it is not JSON.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    lines = content.split(b"\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(f"{path} holds a line that is not JSON: {error}") from error


def last_step(run: Path) -> int:
    """Return the step of the last line of a run's log; 0 where there is none yet."""
    path = run / "metrics.jsonl"
    lines = read_metrics(path) if path.is_file() else []
    return int(lines[-1]["step"]) if lines else 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path}: {error.strerror or error}")
