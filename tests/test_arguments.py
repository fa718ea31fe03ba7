"""What verbs say when a signal ends them."""

import os
import signal
from pathlib import Path

import pytest

from wirework.commands.arguments import not_resumable, resumable
from wirework.signals import Interrupted


def hidden_in_an_error_of_its_own() -> None:
    """As a C module does that is interrupted while it loads."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt as stop:
        raise ImportError("initialization failed") from stop


def test_a_signal_is_told_of_whatever_it_came_in() -> None:
    with pytest.raises(Interrupted, match="stopped; nothing was saved") as caught, not_resumable():
        hidden_in_an_error_of_its_own()
    assert caught.value.exit_code == 143
    with (
        pytest.raises(Interrupted, match="goes on from what was saved in here"),
        resumable(Path("here")),
    ):
        os.kill(os.getpid(), signal.SIGINT)


def test_training_within_another_command_does_not_name_its_own_way_on() -> None:
    with (
        pytest.raises(Interrupted, match=r"^stopped; the same command goes on") as caught,
        resumable(Path("here")),
    ):
        raise Interrupted(signal.SIGHUP, "stopped at step 3 of 9, saved: --resume continues run")
    assert caught.value.exit_code == 129


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ImportError, match="no such module"), not_resumable():
        raise ImportError("no such module")
