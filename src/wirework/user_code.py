"""A user's Python function by its name: `module:function` or `file.py:function`.

Its code runs without restriction, like that of an imported module. So only functions that the user
names are loaded: on the command line, in a `--config` file or in Python. A function that only a
file of results (a circuit, a run) names is refused, because the folder may be untrusted.
"""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from wirework.errors import InputError, nearest, quoted
from wirework.files import exists

OURS = frozenset({"wirework.tasks:practice_texts", "wirework.tasks:ioi_practice_texts"})
"""Functions of wirework that recipes use as a corpus; saved settings may name these."""

_PATH_LENGTH = 300
_FUNCTION = re.compile(r"(?P<place>.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


def is_function(name: str) -> bool:
    """Return whether `name` has the form `module:function` or `file.py:function`, not a file."""
    return _FUNCTION.fullmatch(name) is not None and not exists(name)


def refuse_saved_function(name: str | None, where: str, flag: str) -> None:
    """Refuse to run a function that a file of results names and the user does not.

    Every reader of such a file calls this before it uses a task or corpus that the file names.

    Args:
        name: the task or corpus; None and names of other kinds are accepted.
        where: the file and the role of the function in it, for the message.
        flag: the option by which the user can name the function.

    Raises:
        InputError: it is a function that is not part of wirework.
    """
    if name is not None and name not in OURS and is_function(name):
        shown = quoted(name)
        whole = repr(name) if len(name) <= _PATH_LENGTH else shown  # in full, to be copied
        raise InputError(
            f"{where} the function {shown}, and code that a file names is not run. "
            f"If you trust it, name it yourself: {flag} {whole}"
        )


def load_function(name: str, role: str) -> Callable[..., Any]:
    """Return the function with this name (syntax: `is_function`).

    Args:
        name: `module:function` or `file.py:function`.
        role: role of the function, for the messages: "task", "corpus".

    Raises:
        InputError: no such module, file or function, or the module raises.
    """
    match = _FUNCTION.fullmatch(name)
    assert match is not None
    place, title = match["place"], match["name"]
    module = guarded(lambda: _module(place), f"{role} {name}: {place}")
    function = getattr(module, title, None)
    if function is None:
        known = [key for key, value in vars(module).items() if callable(value)]
        raise InputError(f"{role} {name}: {place} has no function {title!r}{nearest(title, known)}")
    if not callable(function):
        kind = type(function).__name__
        raise InputError(f"{role} {name}: {title!r} is of type {kind}, wanted a function")
    loaded: Callable[..., Any] = function
    return loaded


def guarded(call: Callable[[], Any], caller: str) -> Any:
    """Call a user's code; turn every error that it raises into an `InputError`."""
    try:
        return call()
    except InputError as error:
        raise InputError(f"{caller}: {error}") from None
    except (Exception, SystemExit) as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{caller} raised {message}") from error


def function_files(function: Callable[..., Any]) -> list[Path]:
    """Return the source file of a function and, in a package, the files beside it."""
    source = inspect.getsourcefile(inspect.unwrap(function))
    if source is None:
        return []
    path = Path(source)
    in_package = (path.parent / "__init__.py").exists()
    return sorted(path.parent.glob("*.py")) if in_package else [path]


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return _imported(place)
    if not Path(place).is_file():
        raise InputError(f"no file {place}")
    spec = importlib.util.spec_from_file_location(f"wirework_user_{Path(place).stem}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their annotations there
    spec.loader.exec_module(module)
    return module


def _imported(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # found, but one of its imports is missing
        raise InputError(
            f"no module {error.name!r} on Python's path; a file is named {place}.py:function"
        ) from None
