"""Keep libraries that read foreign files from asking questions on the terminal.

A prompt ("Do you wish to run the custom code? [y/N]") would block an unattended job, and one wrong
key would run untrusted code.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def no_prompts() -> Iterator[None]:
    """Replace standard input in the block by one that is at its end and not a terminal.

    A library that still asks gets an `EOFError`, which the caller translates. Git is told not to
    ask for names and passwords. Not for generators: code that runs between their values would have
    no input either.
    """
    before, asks = sys.stdin, os.environ.get("GIT_TERMINAL_PROMPT")
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        sys.stdin = nothing
        os.environ["GIT_TERMINAL_PROMPT"] = "0"
        try:
            yield
        finally:
            sys.stdin = before
            if asks is None:
                del os.environ["GIT_TERMINAL_PROMPT"]
            else:
                os.environ["GIT_TERMINAL_PROMPT"] = asks
