import errno
import io
import logging
import math
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from present import present
from rich.console import Console

from wirework import console, renamed_flags
from wirework.console import Progress, TimeLeft, counted, duration, megabytes, rescaled
from wirework.live_bars import LiveBars

LIBRARY = """
import logging
from wirework.console import say, warn
{configured}
say("said")
warn("warned")
"""


class TestMessages:
    def test_warn_once_says_a_line_once(self, capsys, monkeypatch):
        monkeypatch.setattr(console, "_said_once", set())
        for line in ("a", "a", "b"):
            console.warn_once(line)
        assert capsys.readouterr().err == "warning: a\nwarning: b\n"

    def test_messages_are_logged_by_module_and_level(self, caplog, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh-12345678")
        monkeypatch.setattr(console, "_said_once", set())
        caplog.set_level(logging.INFO, "wirework")
        console.say("said")
        console.warn("a key: hf_abcdefgh-12345678")
        said, warned = caplog.records
        assert (said.levelname, said.getMessage()) == ("INFO", "said")
        assert warned.levelname == "WARNING"
        assert warned.getMessage() == "a key: ***"  # handlers of others get no secrets either
        assert {record.name for record in caplog.records} == {
            "wirework"
        }  # a test is no module of ours
        renamed_flags.with_new_names({"anyway": True})
        assert caplog.records[-1].name == "wirework.renamed_flags"

    @pytest.mark.parametrize(
        ("configured", "shown"),
        [
            ("", "said\nwarning: warned\n"),
            ("logging.getLogger('wirework').setLevel('WARNING')", "warning: warned\n"),
            ("logging.getLogger('wirework').addHandler(logging.NullHandler())", ""),
            ("logging.basicConfig(format='%(levelname)s %(message)s')", "WARNING warned\n"),
            (
                "logging.basicConfig(format='%(levelname)s %(message)s', level='INFO')",
                "INFO said\nWARNING warned\n",
            ),
        ],
    )
    def test_a_program_that_configures_logging_decides_where_messages_go(
        self, configured: str, shown: str
    ):
        code = LIBRARY.format(configured=configured)
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (ended.stdout, ended.stderr) == ("", shown)

    def test_names_cannot_steer_the_terminal(self, capsys):
        console.warn("weights has tensors left aside: a\x1b[2Jb\u202ec\nsecond line")
        assert capsys.readouterr().err == (
            "warning: weights has tensors left aside: a\\x1b[2Jb\\u202ec\nsecond line\n"
        )

    def test_say_escapes_what_standard_error_cannot_show(self, monkeypatch):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
        console.say("café")
        assert raw.getvalue() == b"caf\\xe9\n"

    def test_say_does_without_a_terminal_that_is_gone(self, monkeypatch):
        leader, follower = pty.openpty()
        stream = os.fdopen(follower, "w")
        monkeypatch.setattr(sys, "stderr", stream)
        os.close(leader)
        with pytest.raises(OSError) as error:
            print("x", file=stream, flush=True)
        assert error.value.errno == errno.EIO
        console.say("x")
        with suppress(OSError):
            stream.close()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def estimates(rate: Callable[[float], float], every: float = 20.0) -> list[tuple[float, float]]:
    """Times left as estimated, each with the true one, of work done at a rate per second."""
    clock = Clock()
    left, share, found = TimeLeft(clock=clock), 0.0, []
    while share < 1:
        clock.now += 1
        share += rate(share)
        if clock.now % every == 0 and share < 1:
            found.append((clock.now, present(left.at(share))))
    return [(guess, clock.now - when) for when, guess in found]


class TestTimeLeft:
    def test_an_estimate_is_rescaled_by_how_wrong_it_was_so_far(self):
        assert rescaled(left=60, done=20, elapsed=30) == 90  # half as long again
        assert rescaled(left=60, done=20, elapsed=20) == 60
        assert rescaled(left=0.75, done=0.25, elapsed=10) == 30

    def test_the_time_left_of_steady_work_is_right(self):
        for guess, true in estimates(lambda _: 1 / 600):
            assert guess == pytest.approx(true, abs=2)

    def test_a_slow_start_is_soon_forgotten(self):
        clock = Clock()
        left = TimeLeft(clock=clock)
        clock.now += 20
        assert left.at(0.02) == pytest.approx(980)  # then five times as fast
        clock.now += 20
        # 40 * 0.88 / 0.12 = 293.3; of the 960 - 293.3 above it remains exp(-20 / 10)
        assert left.at(0.12) == pytest.approx(293.3 + math.exp(-2) * (960 - 293.3), abs=0.1)

    @pytest.mark.parametrize("factor", [0.4, 2.5])
    def test_the_time_left_does_not_jump_where_work_turns_slower_or_faster(self, factor):
        found = estimates(lambda share: (1 if share < 0.6 else factor) / 900)
        for (before, _), (after, true) in pairwise(found):
            if before > 120:
                assert 3 / 4 < after / (before - 20) < 4 / 3
            if true > 90:
                assert 1 / 3 < after / true < 3

    def test_no_time_left_is_guessed_before_there_is_something_to_go_by(self):
        clock = Clock()
        left = TimeLeft(0.5, clock)
        assert left.at(0.5) is None
        clock.now += 1
        assert left.at(0.501) is None
        clock.now += 99
        assert left.at(0.75) == pytest.approx(100)


def lines(capsys: pytest.CaptureFixture[str], least: int) -> list[str]:
    """What is on standard error once so many lines have come."""
    text = ""
    for _ in range(1000):
        text += capsys.readouterr().err
        if text.count("\n") >= least:
            return text.splitlines()
        time.sleep(0.01)
    raise AssertionError(text)


class TestProgress:
    def test_what_was_done_before_says_nothing_of_the_rate(self):
        clock = Clock()
        work = Progress("work", 10, shown=False, count=counted, clock=clock)
        work.update(4)
        clock.now += 60
        work.update(5)
        work.skip(2)
        assert work.line() == "work: 7/10, about 3 min left"

    def test_long_work_without_a_terminal_writes_lines_though_nothing_moves(self, capsys):
        before = threading.active_count()
        with Progress("search [/x]", 4, count=counted, every=0.01) as work:
            work.update(1, "of [nothing]")
            assert "search [/x]: 1/4, of [nothing], 5 s so far" in lines(capsys, 2)
            assert threading.active_count() == before + 1
        assert threading.active_count() == before
        capsys.readouterr()
        time.sleep(0.05)
        assert capsys.readouterr().err == ""

    def test_work_within_work_is_a_part_of_its_line_and_of_what_is_done(self, capsys):
        with Progress("study", 4, count=counted, every=0.01) as study:
            study.update(1)
            with Progress("search", shown=None, part=2.0) as search:
                search.update(0.5)
                assert study.done == 2
                found = lines(capsys, 3)
                assert "study: 2/4, 5 s so far; search: 50%, 5 s so far" in found
                assert sum(line.startswith("search") for line in found) == 0
            assert study.done == 3
            assert "study: 3/4, 5 s so far" in lines(capsys, 3)

    def test_work_that_an_error_ended_is_no_part_that_is_done(self):
        with Progress("study", 4, count=counted, every=60) as study:
            study.update(1)
            with suppress(ValueError), Progress("search", shown=None, part=2.0) as search:
                search.update(0.5)
                raise ValueError
            assert study.done == 1
            with Progress("search", shown=None, part=2.0) as search:
                search.update(0.5)
                assert study.done == 2
            assert study.done == 3

    def test_silence_where_nothing_is_to_be_shown(self, capsys):
        before = threading.active_count()
        with (
            Progress("work", shown=False, every=0.001),
            Progress("part of no work that is shown", shown=None, every=0.001),
        ):
            assert threading.active_count() == before
            time.sleep(0.05)
        assert capsys.readouterr().err == ""

    def test_a_library_that_is_silenced_does_not_silence_the_work(self, capsys, monkeypatch):
        with Progress("work", None, every=0.01):
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stderr", io.StringIO())
                time.sleep(0.1)
            assert lines(capsys, 1)[0].startswith("work: ")

    def test_work_that_is_done_once_more_takes_nothing_back(self):
        with console.Progress("work", shown=False) as bar:
            bar.update(0.9)
            bar.update(0.5)
            assert bar.share == 0.9


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "5 s"), (62, "60 s"), (130, "2 min"), (5000, "83 min"), (9000, "2.5 h")],
)
def test_durations_are_said_as_people_do(seconds, words):
    assert duration(seconds) == words


class TestLiveBars:
    @pytest.mark.parametrize("width", [120, 80, 60])
    def test_live_bars_cut_neither_counts_nor_times_and_read_no_markup(self, width):
        drawn = io.StringIO()
        shown = Console(file=drawn, width=width, force_terminal=True, color_system=None)
        work = Progress("train[/x]ing", 1_000_000, count=counted)
        work.update(123_456, "loss 3.123  nonzero 1.23%  12,345 tokens/s")
        text = Progress("data[old]", 30e6, count=megabytes)
        bars = LiveBars(shown)
        bars.add(work)
        bars.add(text)
        bars.close()
        for word in ("train[/x]ing", "123456/1000000", "5 s so far", "data[old]", "0.0/30.0 MB"):
            assert word in drawn.getvalue()

    def test_a_stream_that_is_no_terminal_gets_no_bars(self):
        assert LiveBars.on(io.StringIO()) is None


def advancing(bar: Progress, clock: list[float], shares: list[float]) -> None:
    """Ten seconds for each of these shares of a piece of work."""
    for share in shares:
        clock[0] += 10
        bar.update(share)


class TestOneBar:
    def test_work_within_one_bar_is_named_beside_it_and_has_none_of_its_own(self, capsys):
        with Progress("demo", None, every=0.01, alone=True) as whole:
            whole.stage(80, total=100)
            with Progress("training", 4, count=counted) as training:
                training.update(1, "loss 3")
                assert "demo: 20%, training 1/4, loss 3, 5 s so far" in lines(capsys, 3)
            assert whole.done == 80
            with Progress("more of the same stage"):
                assert whole.done == 80
            whole.stage(100)
            with Progress("prune", shown=None) as prune:
                prune.update(0.5)
                assert whole.done == 90
        assert "training" not in {
            line.split(":")[0] for line in capsys.readouterr().err.splitlines()
        }

    def test_the_time_left_of_one_bar_counts_all_stages(self):
        clock = [0.0]
        read = lambda: clock[0]  # noqa: E731
        with Progress("demo", None, every=60, alone=True, clock=read) as whole:
            clock[0] = 100.0  # preparation, of which nothing is known
            whole.stage(60, total=100)
            with Progress("training", clock=read) as training:
                training.update(0)
                advancing(training, clock, [0.25, 0.5])
                assert whole.line() == "demo: 30%, training 50%, about 45 s left"
                advancing(training, clock, [0.75, 1.0])
            whole.stage(100)
            assert whole.time() == "about 25 s left"  # 40 of 100 at 1.5 a second

    def test_work_that_was_done_before_says_nothing_of_the_rate(self):
        clock = [0.0]
        read = lambda: clock[0]  # noqa: E731
        with Progress("demo", None, every=60, alone=True, clock=read) as whole:
            whole.stage(50, total=100)  # a stage with nothing to do: it was done before
            whole.stage(90)
            with Progress("training", 1.0, done=0.5, clock=read) as training:
                training.update(0.5)
                advancing(training, clock, [0.625, 0.75])
                # 10 of 100 in 20 s; 20 are left
                assert whole.line() == "demo: 80%, training 75%, about 40 s left"
