"""Every figure by name. Each module measures one subject and returns numbers; none prints."""

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from benchmarks.figure import Figure
from benchmarks.settings import Settings

NAMES = (
    "step",
    "memory",
    "selection",
    "inference",
    "projection",
    "self_ablation",
    "acdc",
    "pruning",
    "products",
    "startup",
    "threads",
)
"""Modules of this package, in the order in which they run; `measure` of each returns figures."""

EXTRA = ("self_ablation_reference",)
"""Modules that run only when they are named, because they take minutes."""


def measure(name: str, settings: Settings) -> Iterable[Figure]:
    """Return the figures of a module; some come one by one, as they are measured."""
    function: Callable[[Settings], Iterable[Figure]] = _module(name).measure
    return function(settings)


def subject(name: str) -> str:
    """Return the first line of a module's docstring."""
    return (_module(name).__doc__ or "").splitlines()[0]


def _module(name: str) -> Any:
    return import_module(f"benchmarks.figures.{name}")
