"""Set the number of torch threads and how they wait, before torch is loaded.

torch's OpenMP library, GNU's on Linux, reads both from the environment when it is loaded.
"""

import math
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

SPIN = 300
"""Rounds that a thread waits for the next parallel pass before it sleeps, some 6 microseconds.

The library's own 300,000 are milliseconds: where another process needs the core, each pass then
waits for a thread that is waiting itself, and two processes are ten times as slow as one
(benchmarks/README.md)."""

_CGROUP = Path("/sys/fs/cgroup")


def settle_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set short waits, and no more threads than a container's quota has cores.

    What the user has set stays. Nothing is done once torch is loaded: it would come too late.
    What is set stays for the processes that this one starts, which run torch as often as not, and
    for numba's own OpenMP library, which is loaded after torch.
    """
    if "torch" in sys.modules:
        return
    if sys.platform == "linux" and "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPIN))
    quota = cpu_quota()
    if quota is not None and quota < _cores():
        environment.setdefault("OMP_NUM_THREADS", str(quota))


def cpu_quota(cgroup: Path = _CGROUP) -> int | None:
    """Return how many cores the control group of this process may use; None where any number.

    Args:
        cgroup: where the control groups are mounted; both versions of them are read.
    """
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        cores = math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # `max` is no number: no limit
        return None
    return cores if cores > 0 else None


def _cores() -> int:
    """Return how many cores the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
