"""The machine that figures belong to."""

import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wirework.fastest import processor

BF16_FLAGS = ("avx512_bf16", "amx_bf16")
"""Instructions without which products in bfloat16 are emulated, many times slower."""


@dataclass(frozen=True)
class Machine:
    """Facts on which figures depend."""

    processor: str
    instructions: str
    """Widest instruction set that torch uses."""
    bf16: str
    """Instructions for products in bfloat16, or `none`."""
    cores: int
    threads: int
    load: float
    """Programs that wanted to run, mean of the last minute."""
    torch: str
    numba: str
    python: str

    def line(self) -> str:
        """Return the machine as one line."""
        return (
            f"{self.processor}, {self.instructions}, bf16 instructions: {self.bf16}, "
            f"{self.cores} cores, {self.threads} thread{'s' * (self.threads > 1)}, "
            f"load {self.load:.1f}, torch {self.torch}, numba {self.numba}, Python {self.python}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the facts by name."""
        return asdict(self)


def this_machine() -> Machine:
    """Return the facts of this machine and process."""
    return Machine(
        processor=processor(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        bf16=" ".join(bf16_instructions()) or "none",
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=round(os.getloadavg()[0], 1),
        torch=torch.__version__,
        numba=version("numba"),
        python=platform.python_version(),
    )


def bf16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Return the instructions for bfloat16 that the processor has."""
    try:
        words = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return []
    return [flag for flag in BF16_FLAGS if flag in words]


def version(package: str) -> str:
    """Return the version of an installed package, or `none`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
