"""The decorator of compiled kernels."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import event

from wirework.cache_folder import cache_folder

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function for this processor when it is first called, and save the code on disk.

    Sums keep their order. A product and a sum may be fused, as in torch's own kernels. The code is
    saved in the user's cache folder, or in `NUMBA_CACHE_DIR` if it is set. Without a folder that
    can be written, each process compiles the function anew.
    """
    return _compiled(function, {"contract"})


def compiled_with_any_order(function: _Function) -> _Function:
    """Compile a function like `compiled`; a sum may be split into the lanes of a register.

    The order depends on the processor only.
    """
    return _compiled(function, {"contract", "reassoc", "nsz"})


def _compiled(function: _Function, fastmath: set[str]) -> _Function:
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    _announce_first()
    try:
        with _saved_in_cache_folder():
            fast = numba.njit(**settings, cache=True)(function)
    except RuntimeError:  # no folder can be written
        fast = numba.njit(**settings)(function)
    return cast(_Function, fast)


@contextmanager
def _saved_in_cache_folder() -> Iterator[None]:
    """Make numba save the functions decorated in the block in wirework's cache folder."""
    config: Any = numba.config  # its names are set when numba is imported
    before, folder = config.CACHE_DIR, cache_folder()
    if not before and folder is not None:
        config.CACHE_DIR = os.fspath(folder / "compiled" / _source_hash())
    try:
        yield
    finally:
        config.CACHE_DIR = before


@cache
def _source_hash() -> str:
    """Return a hash of all kernels: numba looks for changes in the file of a kernel alone."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


@cache
def _announce_first() -> None:
    """Log a line when the first kernel is compiled, which takes some seconds."""
    event.register("numba:compile", _Announcement())  # type: ignore[no-untyped-call]


class _Announcement(event.Listener):
    def __init__(self) -> None:
        self._is_made = False

    def on_start(self, event: Any) -> None:
        """Log the line if a kernel of wirework is compiled, and not another library's."""
        function = event.data["dispatcher"].py_func
        if not self._is_made and function.__module__.startswith(__package__):
            self._is_made = True
            logging.getLogger(__name__).info(
                "compiling kernels for this processor, up to half a minute; later runs reuse them"
            )

    def on_end(self, event: Any) -> None:
        """Log nothing."""
