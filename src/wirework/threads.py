"""Set the number of torch threads and how they wait, before torch is loaded.

torch's OpenMP library, GNU's on Linux, reads both from the environment when it is loaded.
"""

import math
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

SPIN = 300
"""Spin count: iterations that a thread waits for the next parallel pass before it sleeps.

This is some 6 microseconds. The library's default of 300,000 is milliseconds. If another process
needs the core, each pass then waits for a thread that spins elsewhere, and two processes are ten
times as slow as one (benchmarks/README.md)."""

_CGROUP = Path("/sys/fs/cgroup")


def settle_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set a short spin count, and at most as many threads as a container's quota has cores.

    Variables set by the user are kept. Once torch is loaded nothing is changed, because it would
    have no effect. Child processes inherit the variables, since many of them run torch. So does
    numba's own OpenMP library, which is loaded after torch.
    """
    if "torch" in sys.modules:
        return
    if sys.platform == "linux" and "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPIN))
    quota = cpu_quota()
    if quota is not None and quota < _cores():
        environment.setdefault("OMP_NUM_THREADS", str(quota))


def cpu_quota(cgroup: Path = _CGROUP) -> int | None:
    """Return the number of cores that the control group of this process may use; None if unlimited.

    Args:
        cgroup: mount point of the control groups, of version 1 or 2.
    """
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        cores = math.ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # `max` is not a number: no limit
        return None
    return cores if cores > 0 else None


def _cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
