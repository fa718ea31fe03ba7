"""Hardware and software of this machine, and the parts that wirework uses."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from wirework import __version__, fastest
from wirework.console import say
from wirework.fastest import processor
from wirework.nn.kernels import compiled

_EXTRAS = {
    "explain": ("openai",),
    "hub": ("datasets", "transformers", "huggingface_hub"),
    "parquet": ("pyarrow",),
    "sae": ("sae_lens",),
    "track": ("tensorboard", "wandb"),
    "triton": ("triton",),
}


def examine() -> dict[str, Any]:
    """Return versions, device, threads, precisions, extras and free disk by name.

    `precision` says in words what `precision: auto` is for dense and for weight-sparse runs.
    `compiled_kernels` is the version of numba, or why the slower plain kernels are used. `products`
    has a row for each shape class of float32 products that was measured on this machine with this
    number of threads: the chosen library, and the milliseconds of every library.
    """
    from wirework.training.precision import auto_precision

    say("timing a layer in bfloat16 and float32, and its products by each library")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "wirework": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "free_disk_gib": round(shutil.disk_usage(".").free / 2**30, 1),
        "compiled_kernels": compiled.why_not() or f"numba {version('numba')}",
        "precision": auto_precision(device),
        "products": _products(),
        **{f"extra_{name}": _missing(modules) for name, modules in _EXTRAS.items()},
    }


def _products() -> list[dict[str, Any]]:
    """Return a row for each measured shape class: the chosen library, milliseconds of each."""
    return [
        {"product": question, "library": way, **{f"{name}_ms": took for name, took in ms.items()}}
        for question, (way, ms) in fastest.remembered().items()
    ]


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
