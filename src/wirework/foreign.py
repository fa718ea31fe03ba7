"""Libraries that read other people's files must not ask questions on the terminal.

A prompt ("Do you wish to run the custom code? [y/N]") would stop a job that nobody watches, and one
careless key would run a stranger's code.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def no_prompts() -> Iterator[None]:
    """Give libraries called in the block a standard input that has ended and is no terminal.

    A library that asks all the same gets an `EOFError`, which the caller translates. Git is told
    not to ask for names and passwords. Not for generators: what runs between their values would
    have no input either.
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
