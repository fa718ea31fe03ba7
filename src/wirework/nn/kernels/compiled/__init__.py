"""Kernels compiled by numba on first use: loops over plain arrays, without the interpreter's lock.

Python threads run them side by side (`nn/kernels/pieces.py`), so numba needs no threads of its own.
The modules of this package import numba, which takes half a second: import them where
`is_available()` says that it can be used, and not before a kernel is needed.
"""

import importlib.util
import os
from functools import cache

VARIABLE = "WIREWORK_COMPILED"
"""Environment variable that switches compiled kernels off, if 0."""


def is_available() -> bool:
    """Return whether compiled kernels can be used; if not, the plain references are."""
    return why_not() is None


@cache
def why_not() -> str | None:
    """Return why compiled kernels cannot be used, or None."""
    if os.environ.get(VARIABLE) == "0":
        return f"{VARIABLE} is 0"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    try:
        importlib.import_module("numba")
    except Exception as error:  # of a numpy or LLVM that does not fit
        return f"numba cannot be imported: {' '.join(str(error).split())[:200]}"
    return None
