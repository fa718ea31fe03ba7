"""Processes side by side; what they do is taken from the standard library, as they import it."""

import math
import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
from marks import slow_cases

from wirework.errors import InputError
from wirework.parallel import parallel_map

SLEEPERS = """
import signal, time
from wirework.parallel import parallel_map
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored here
    print("ready", flush=True)  # an interrupt in the middle of an import may be lost
    for number, _ in enumerate(parallel_map(time.sleep, [0, 0, 100, 100], 2)):
        print(number, flush=True)
"""


def test_results_come_in_order() -> None:
    assert list(parallel_map(math.factorial, [5, 3, 4], 2)) == [120, 6, 24]
    assert not active_children()


def test_what_the_work_raises_is_raised_here() -> None:
    found = parallel_map(math.sqrt, [4.0, -1.0, 9.0], 2)
    assert next(found) == 2
    with pytest.raises(ValueError, match="domain"):
        next(found)


@pytest.mark.parametrize("seconds", [0.5, *slow_cases(0.0, 0.1, 3.0)])
def test_an_interrupt_while_they_start_ends_all(tmp_path: Path, seconds: float) -> None:
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_hears_interrupts,
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        os.killpg(started.pid, signal.SIGINT)  # as a terminal does
        try:
            _, errors = started.communicate(timeout=60)
        finally:
            started.kill()
        assert started.returncode != 0
        assert b"Spawn" not in errors  # no worker has anything to say
    deadline = time.monotonic() + 20
    while _group(started.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _group(started.pid)


LOCKERS = """
from multiprocessing import Lock
from wirework.parallel import parallel_map
held = []
def lock(number):
    held.append(Lock())
if __name__ == "__main__":
    list(parallel_map(lock, [1, None], 2))
"""


@pytest.mark.slow
def test_what_processes_hold_is_given_back_without_a_word(tmp_path: Path) -> None:
    script = tmp_path / "lockers.py"
    script.write_text(LOCKERS)
    done = subprocess.run([sys.executable, script], capture_output=True, check=True)
    assert done.stderr == b""


def test_leaving_early_ends_what_is_at_work() -> None:
    found = parallel_map(time.sleep, [0, 100, 100], 2)
    next(found)
    found.close()
    assert not active_children()


SAVER = """
import sys, time
from pathlib import Path
from wirework.parallel import parallel_map
from wirework.signals import Interrupted, stopping
def work(path):
    with stopping() as stop:
        path.write_text("begun")
        while not stop.requested:
            time.sleep(0.01)
        path.write_text("saved")
        raise Interrupted(stop.number, "saved")
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    paths = [folder / "one", folder / "two"]
    try:
        for path in parallel_map(work, paths, 2):
            pass
    except KeyboardInterrupt:
        print([path.read_text() for path in paths])
"""


@pytest.mark.slow
def test_what_saves_when_told_to_stop_has_the_time_to(tmp_path: Path) -> None:
    script = tmp_path / "saver.py"
    script.write_text(SAVER)
    command = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_hears_interrupts
    ) as started:
        deadline = time.monotonic() + 60
        while not all((tmp_path / name).is_file() for name in ("one", "two")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        out, errors = started.communicate(timeout=20)
    assert (out.strip(), errors) == (b"['saved', 'saved']", b"")


SURVIVOR = """
import os, sys, time
from pathlib import Path
from wirework.errors import InputError
from wirework.parallel import parallel_map
from wirework.signals import Interrupted, stopping
def work(path):
    if path.name == "dies":
        while not path.with_name("saves").is_file():
            time.sleep(0.01)
        os._exit(1)
    with stopping() as stop:
        path.write_text("begun")
        while not stop.requested:
            time.sleep(0.01)
        time.sleep(0.5)
        path.write_text("saved")
        raise Interrupted(stop.number, "saved")
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        for path in parallel_map(work, [folder / "dies", folder / "saves"], 2):
            pass
    except InputError:
        print((folder / "saves").read_text())
"""


@pytest.mark.slow
def test_when_one_process_dies_the_others_have_the_time_to_save(tmp_path: Path) -> None:
    script = tmp_path / "survivor.py"
    script.write_text(SURVIVOR)
    words = [sys.executable, str(script), str(tmp_path)]
    finished = subprocess.run(words, capture_output=True, timeout=60)
    assert (finished.stdout.strip(), finished.stderr) == (b"saved", b"")


def test_a_process_that_dies_is_one_line() -> None:
    with pytest.raises(InputError, match=r"one of 2 processes died.*try fewer jobs"):
        list(parallel_map(os._exit, [1, 1], 2))
    with pytest.raises(InputError, match="jobs must be 1 or more, got 0"):
        list(parallel_map(math.sqrt, [4.0], 0))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path, how: signal.Signals) -> None:
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as started:
        assert started.stdout is not None
        assert [started.stdout.readline() for _ in range(3)] == [b"ready\n", b"0\n", b"1\n"]
        workers = _children(started.pid)
        assert len(workers) >= 2
        started.send_signal(how)
        assert started.wait(20) != 0
    deadline = time.monotonic() + 20
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, workers))


def _hears_interrupts() -> None:
    """A shell's background job is born deaf to them, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _group(leader: int) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if _leader(pid) == leader and _runs(pid)]


def _leader(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_modules_in_the_working_folder_are_not_taken_for_pythons_own(tmp_path: Path) -> None:
    folder = tmp_path / "strange"
    folder.mkdir()
    for name in ("multiprocessing", "torch", "signal", "wirework"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import math\nfrom wirework.parallel import parallel_map\n"
        "if __name__ == '__main__':\n    print(list(parallel_map(math.sqrt, [4.0, 9.0], 2)))\n"
    )
    words = [sys.executable, str(script)]
    result = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    assert result.stdout == "[2.0, 3.0]\n", result.stderr
    assert not (tmp_path / "ran").exists()
