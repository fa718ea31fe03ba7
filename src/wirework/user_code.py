"""A user's Python function by its name: `module:function` or `file.py:function`.

Its code runs here with all that it may do, as an imported module's does. So only functions that the
user names, on the command line, in a `--config` file or in Python, are loaded. A function that is
named in a file of results (a circuit, a run) is refused: the folder may be a stranger's.
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
"""Functions of wirework that recipes name as a corpus; a run's settings may name them again."""

_PATH_LENGTH = 300
_FUNCTION = re.compile(r"(?P<place>.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


def is_function(name: str) -> bool:
    """Return whether `name` has the form `module:function` or `file.py:function` and is no file."""
    return _FUNCTION.fullmatch(name) is not None and not exists(name)


def refuse_saved_function(name: str | None, where: str, flag: str) -> None:
    """Refuse to run a function that a file of results names and the user does not.

    Every reader of such a file calls this before it uses a task or corpus that the file names.

    Args:
        name: the task or corpus; None, or anything but a function, passes.
        where: the file and the role that it gives the function, for the message.
        flag: the option by which the user can name the function.

    Raises:
        InputError: it is a function, and none of wirework's own.
    """
    if name is not None and name not in OURS and is_function(name):
        shown = quoted(name)
        whole = repr(name) if len(name) <= _PATH_LENGTH else shown  # to be copied as it is
        raise InputError(
            f"{where} the function {shown}, and code that a file names is not run. "
            f"If you trust it, name it yourself: {flag} {whole}"
        )


def load_function(name: str, role: str) -> Callable[..., Any]:
    """Return the function that `name` (see `is_function`) stands for.

    Args:
        name: `module:function` or `file.py:function`.
        role: of the function, for the messages: "task", "corpus".

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
    """Call a user's code; every error that it raises becomes an `InputError`."""
    try:
        return call()
    except InputError as error:
        raise InputError(f"{caller}: {error}") from None
    except (Exception, SystemExit) as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{caller} raised {message}") from error


def source_files(function: Callable[..., Any]) -> list[Path]:
    """Return the file that a function is written in and, in a package, those beside it."""
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
    sys.modules[spec.name] = module  # dataclasses look there for what their annotations name
    spec.loader.exec_module(module)
    return module


def _imported(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # found, but it imports something that is not there
        raise InputError(
            f"no module {error.name!r} on Python's path; a file is named {place}.py:function"
        ) from None
