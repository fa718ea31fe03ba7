"""Worker processes that may hang or die: each case has a limit, each death a successor.

The parent has imported everything and computed nothing, so that a fork is quick and safe.
"""

import os
import pickle
import select
import signal
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cases import Case
from worker import HANG, KILLED, Outcome, limit_memory, run, silence

CPU_SECONDS = 5.0
"""Of one case; by the clock a loaded machine would decide."""
IDLE_SECONDS = 5.0
"""Of one case that waits for something, such as a pipe that nobody writes to."""
_TICK = 0.25


def in_child(work: Callable[[], Any]) -> Any:
    """Return what a function returns in a process of its own, so that this one stays clean."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writing, "wb") as out:
            try:
                outcome: tuple[bool, Any] = True, work()
            except BaseException:
                import traceback

                outcome = False, traceback.format_exc()
            pickle.dump(outcome, out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as back:
        content = back.read()
    os.waitpid(child, 0)
    fine, answer = pickle.loads(content) if content else (False, "the process died")
    if not fine:
        raise AssertionError(answer)
    return answer


@dataclass
class _Worker:
    process: int
    out: BinaryIO
    back: BinaryIO
    case: Case | None = None
    cpu: float = 0.0
    """CPU seconds before the case began."""
    last: float = 0.0
    """CPU seconds when it was last seen at work, and when that was."""
    seen: float = 0.0


class Pool:
    """Runs cases in a few processes.

    Args:
        n: how many.
        good: folder of good inputs.
        expected: digests of them, by loader.
        room: folder for the copies.
    """

    def __init__(self, n: int, good: Path, expected: dict[str, str], room: Path) -> None:
        self._n, self._good, self._expected, self._room = n, good, expected, room
        self._started = 0

    def run(self, cases: Iterable[Case]) -> Iterable[tuple[Case, Outcome]]:
        """Yield each case with what came of it, in the order in which they end."""
        waiting = deque(cases)
        workers = [self._start() for _ in range(min(self._n, len(waiting)))]
        busy = set[int]()
        for i, _ in enumerate(workers):
            self._give(workers[i], waiting.popleft())
            busy.add(i)
        while busy:
            for i in sorted(busy):
                outcome = self._outcome(workers[i])
                if outcome is None:
                    continue
                case = workers[i].case
                assert case is not None
                yield case, outcome
                if outcome.kind in (HANG, KILLED):
                    workers[i] = self._start()
                if waiting:
                    self._give(workers[i], waiting.popleft())
                else:
                    busy.discard(i)
                    _end(workers[i])
            still = [workers[i].back.fileno() for i in busy]
            if still:
                select.select(still, [], [], _TICK)

    def _start(self) -> _Worker:
        self._started += 1
        room = self._room / f"worker-{self._started}"
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(from_parent)
            os.close(to_parent)
            self._serve(os.fdopen(to_child, "rb"), os.fdopen(from_child, "wb"), room)
            os._exit(0)
        os.close(to_child)
        os.close(from_child)
        return _Worker(process, os.fdopen(from_parent, "wb"), os.fdopen(to_parent, "rb"))

    def _serve(self, cases: BinaryIO, answers: BinaryIO, room: Path) -> None:
        silence()
        limit_memory()
        while header := cases.read(4):
            case = Case.of(cases.read(struct.unpack("<I", header)[0]).decode())
            try:
                outcome = run(case, self._good, self._expected[case.loader], room)
            except BaseException as error:
                outcome = Outcome("broken test", repr(error)[:300], type(error).__name__)
            answers.write(pickle.dumps(outcome))
            answers.flush()

    @staticmethod
    def _give(worker: _Worker, case: Case) -> None:
        text = str(case).encode()
        worker.case, worker.seen = case, time.monotonic()
        worker.cpu = worker.last = _usage(worker.process)[0]
        worker.out.write(struct.pack("<I", len(text)) + text)
        worker.out.flush()

    @staticmethod
    def _outcome(worker: _Worker) -> Outcome | None:
        """Return what a worker answered, or that it hangs or died; None: it is at work."""
        if select.select([worker.back.fileno()], [], [], 0)[0]:
            try:
                outcome: Outcome = pickle.load(worker.back)
            except (EOFError, pickle.UnpicklingError):
                _, status = os.waitpid(worker.process, 0)
                return Outcome(KILLED, f"exit status {status}", _death(status))
            return outcome
        cpu, asleep = _usage(worker.process)
        if cpu > worker.last or not asleep:
            worker.last, worker.seen = cpu, time.monotonic()
        idle = time.monotonic() - worker.seen
        if cpu - worker.cpu <= CPU_SECONDS and idle <= IDLE_SECONDS:
            return None
        os.kill(worker.process, signal.SIGKILL)
        os.waitpid(worker.process, 0)
        if idle > IDLE_SECONDS:
            return Outcome(HANG, f"does nothing for {idle:.0f} seconds", "waits")
        return Outcome(HANG, f"{cpu - worker.cpu:.1f} CPU seconds", "computes")


def _end(worker: _Worker) -> None:
    """End an idle worker: it would not see its pipe closed, as later ones have it open too."""
    os.kill(worker.process, signal.SIGKILL)
    os.waitpid(worker.process, 0)
    worker.out.close()
    worker.back.close()


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def _usage(process: int) -> tuple[float, bool]:
    """Return the CPU seconds of a process, and whether it waits for something."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, False
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] == "S"
