"""Checks of values on a device, made at once or deferred to the end of a training step.

A value on a device is read by waiting for all work queued before it, and the device is idle until
the host has queued more. A training step therefore checks its tokens on the CPU before it copies
them, and reads whether there was a NaN together with its losses.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_state = threading.local()


@contextmanager
def device_reads_deferred() -> Iterator[list[Tensor]]:
    """Defer checks of values on a device in the block; those on the CPU are made.

    Yields:
        List to which each check for NaN adds a scalar on the device that is NaN if it would fail.
        Checks of tokens are left out: the caller makes them.
    """
    before = getattr(_state, "scalars", None)
    scalars: list[Tensor] = []
    _state.scalars = scalars
    try:
        yield scalars
    finally:
        _state.scalars = before


def may_read(x: Tensor) -> bool:
    """Return whether a check may read values of `x`: on the CPU, or where none is deferred."""
    if torch.compiler.is_compiling():  # a compiled graph cannot raise an error for a value
        return False
    return x.device.type == "cpu" or getattr(_state, "scalars", None) is None


def check_nan(x: Tensor, refuse_nan: Callable[[bool], None]) -> None:
    """Look for a NaN in `x`, at once or deferred; a compiled graph does not look."""
    if may_read(x):
        refuse_nan(bool(x.isnan().any()))
    elif x.numel() and not torch.compiler.is_compiling():
        _state.scalars.append(x.detach().amax())  # one pass, and NaN if there is one
