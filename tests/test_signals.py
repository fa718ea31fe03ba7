import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from wirework.signals import Interrupted, kept_from_children, stopping


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_leaves_a_mark_and_the_first_counts():
    with stopping() as stop:
        assert not stop.requested
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert stop.number == signal.SIGTERM


def work_at_once(reached: list[str]) -> None:
    with stopping() as stop, stop.at_once("nothing lost"):
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGINT)  # must not disturb the way out
            reached.append("cleaned up")


def test_where_nothing_is_lost_it_raises_once():
    reached: list[str] = []
    with pytest.raises(Interrupted, match="nothing lost") as caught:
        work_at_once(reached)
    assert reached == ["cleaned up"]
    assert caught.value.exit_code == 130


class Loses:
    """Gets a signal where Python drops the exception that comes of it."""

    def __del__(self) -> None:
        send(signal.SIGTERM)


class Fails:
    def __del__(self) -> None:
        raise ZeroDivisionError


def work_on(reached: list[str]) -> None:
    with stopping() as stop, stop.at_once("nothing lost"):
        Loses()
        reached.append("the exception is lost")
        for _ in range(1000):
            time.sleep(0.01)
        reached.append("the signal is lost")


def test_a_signal_whose_exception_was_lost_comes_again():
    reached: list[str] = []
    with pytest.raises(Interrupted, match="nothing lost") as caught:
        work_on(reached)
    assert reached in ([], ["the exception is lost"])
    assert caught.value.exit_code == 143


def test_other_exceptions_that_python_drops_are_told_of():
    told: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda what: told.append(what.exc_type)
    try:
        with stopping():
            Fails()
    finally:
        sys.unraisablehook = before
    assert told == [ZeroDivisionError]


def items(reached: list[str]) -> Iterator[int]:
    try:
        yield 1
    finally:  # as the generator is dropped, not while the exception is handled
        send(signal.SIGTERM)
        time.sleep(0.1)
        reached.append("cleaned up")


def clean_up_long(reached: list[str]) -> None:
    with stopping() as stop, stop.at_once("nothing lost"):
        for _ in items(reached):
            send(signal.SIGINT)


def test_the_way_out_may_take_its_time():
    reached: list[str] = []
    with pytest.raises(Interrupted, match="nothing lost"):
        clean_up_long(reached)
    assert reached == ["cleaned up"]


def swallow(reached: list[str]) -> None:
    with stopping() as stop, stop.at_once("nothing lost"):
        with suppress(BaseException):  # as some libraries do, and C code that clears an error
            send(signal.SIGINT)
            reached.append("not heard")
        reached.append("swallowed")
        for _ in range(1000):
            time.sleep(0.01)
        reached.append("the signal is lost")


def test_a_signal_whose_exception_was_swallowed_comes_again():
    reached: list[str] = []
    with pytest.raises(Interrupted, match="nothing lost"):
        swallow(reached)
    assert reached == ["swallowed"]


def leave_an_inner_block(reached: list[str]) -> None:
    with stopping() as outer, outer.at_once("outer"):
        try:
            with stopping() as inner, inner.at_once("inner"):
                send(signal.SIGTERM)
        finally:
            send(signal.SIGINT)  # must not disturb the way out here either
            reached.append("cleaned up")


def test_the_way_out_of_an_inner_block_is_that_of_outer_ones_too():
    reached: list[str] = []
    with pytest.raises(Interrupted, match="inner") as caught:
        leave_an_inner_block(reached)
    assert reached == ["cleaned up"]
    assert caught.value.exit_code == 143


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU])
def test_signals_of_terminals_and_schedulers_are_heard_unless_ignored(number: signal.Signals):
    with stopping() as stop:
        send(number)
        assert stop.number == number
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stopping() as stop:
            send(number)
            assert not stop.requested
    finally:
        signal.signal(number, before)


def test_children_hear_nothing_but_sigterm():
    code = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
    with kept_from_children():
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    kept = [signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGXCPU]
    assert child.stdout.strip() == str(sorted(kept))
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_signal_just_before_they_are_blocked_leaves_none_blocked(
    monkeypatch: pytest.MonkeyPatch,
):
    real = signal.pthread_sigmask

    def block_and_raise(how: int, numbers: set[int]) -> set[int]:
        before = real(how, numbers)
        if how == signal.SIG_BLOCK and numbers:  # as for a signal that was pending
            raise KeyboardInterrupt
        return before

    monkeypatch.setattr(signal, "pthread_sigmask", block_and_raise)
    with pytest.raises(KeyboardInterrupt), kept_from_children():
        raise AssertionError("no process may start")
    assert not real(signal.SIG_BLOCK, ())


def test_a_signal_as_they_are_unblocked_leaves_none_blocked(monkeypatch: pytest.MonkeyPatch):
    real = signal.pthread_sigmask
    raised: list[int] = []

    def raise_first(how: int, numbers: set[int]) -> set[int]:
        if how == signal.SIG_SETMASK and not raised:  # as for a signal that another thread got
            raised.append(how)
            raise KeyboardInterrupt
        return real(how, numbers)

    monkeypatch.setattr(signal, "pthread_sigmask", raise_first)
    with pytest.raises(KeyboardInterrupt), kept_from_children():
        pass
    assert not real(signal.SIG_BLOCK, ())


def begin_after_a_signal() -> None:
    with stopping() as stop:
        send(signal.SIGTERM)
        with stop.at_once("later"):
            pytest.fail("the block must not begin")


def test_a_signal_that_came_before_is_not_forgotten():
    with pytest.raises(Interrupted, match="later"):
        begin_after_a_signal()


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stopping():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_another_thread_can_train_too():
    seen = []

    def work() -> None:
        with stopping() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
