"""Whether to use the Triton kernels; this module does not import triton.

On CUDA they are timed against torch's operations, once per machine and class of shapes. The
environment variable WIREWORK_TRITON decides without measuring: 1 uses them, 0 does not.
A kernel that has not been timed is used with 1 only, and not with `auto`: `is_forced` in place of
`use_triton`.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from wirework import fastest
from wirework.errors import InputError

VARIABLE = "WIREWORK_TRITON"


def use_triton(
    operation: str, x: Tensor, ways: Callable[[], Mapping[str, Callable[[], Any]]]
) -> bool:
    """Return whether to compute an operation with Triton.

    Args:
        operation: operation and class of shapes; a choice is kept for each.
        x: its input; the choice depends on its device.
        ways: returns functions `torch` and `triton` that compute the operation, to be timed.

    Raises:
        InputError: WIREWORK_TRITON is not 0, 1 or auto, or it is 1 and triton is not installed.
    """
    if torch.compiler.is_compiling():  # torch.compile makes kernels of its own
        return False
    wanted = _forced()
    if wanted is None:
        if x.device.type != "cuda" or not installed():
            return False
        question = f"{operation} on {_gpu(x.device)}"
        finished = partial(_finished, x.device, ways)
        return fastest.choose(question, "torch", finished, time.perf_counter) == "triton"
    return is_forced() and can_run(x.device)


def is_forced() -> bool:
    """Return whether WIREWORK_TRITON is 1.

    Raises:
        InputError: as `use_triton`.
    """
    wanted = _forced() is True
    if wanted and not installed():
        raise InputError(f"{VARIABLE}=1 needs triton: pip install wirework[triton]")
    return wanted


def can_run(device: torch.device) -> bool:
    """Return whether Triton's kernels take tensors on a device."""
    return device.type == "cuda" or interpreted()


def interpreted() -> bool:
    """Return whether Triton's interpreter runs kernels, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def installed() -> bool:
    """Return whether triton can be imported."""
    return importlib.util.find_spec("triton") is not None


@cache
def _gpu(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def _forced() -> bool | None:
    value = os.environ.get(VARIABLE, "auto")
    if value not in ("0", "1", "auto"):
        raise InputError(f"{VARIABLE} must be 0, 1 or auto, got {value!r}")
    return None if value == "auto" else value == "1"


def _finished(
    device: torch.device, ways: Callable[[], Mapping[str, Callable[[], Any]]]
) -> dict[str, Callable[[], None]]:
    """Return the functions with a wait for the device at their end."""

    def finish(way: Callable[[], Any]) -> None:
        way()
        torch.cuda.synchronize(device)

    return {name: partial(finish, way) for name, way in ways().items()}
