"""What this machine has, and what of it wirework will use."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from wirework import __version__

_EXTRAS = {
    "explain": ("openai",),
    "hub": ("datasets", "transformers", "huggingface_hub"),
    "parquet": ("pyarrow",),
    "sae": ("sae_lens",),
    "track": ("tensorboard", "wandb"),
}


def examine() -> dict[str, Any]:
    """Return names to facts: versions, device, threads, the faster precision, extras, free disk."""
    from wirework.config import TrainConfig
    from wirework.training.precision import faster_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "wirework": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "free_disk_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "precision": faster_precision(TrainConfig(), device),
        **{f"extra_{name}": _missing(modules) for name, modules in _EXTRAS.items()},
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = (line for line in file if line.startswith("model name"))
            return next(names).partition(":")[2].strip()
    except (OSError, StopIteration):
        return platform.machine()


def _missing(modules: tuple[str, ...]) -> str:
    absent = [module for module in modules if find_spec(module) is None]
    if absent:
        return "missing " + ", ".join(absent)
    return " ".join(f"{module} {_version(module)}" for module in modules)


def _version(module: str) -> str:
    try:
        return version(module)
    except PackageNotFoundError:
        return "of unknown version"
