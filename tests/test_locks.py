"""Locks between processes, and file systems that have none."""

import errno
import fcntl
import os
import subprocess
import sys
from typing import BinaryIO

import pytest

from wirework import fastest
from wirework.errors import InputError
from wirework.locks import locked

HOLDER = """
import sys
from pathlib import Path
from wirework.locks import locked
with locked(Path(sys.argv[1]), "the run"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_held_by_another_process_is_refused_until_it_dies(tmp_path):
    lock = tmp_path / "runs" / ".lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with (
        pytest.raises(InputError, match=r"^the run is in use by another process$"),
        locked(lock, "the run"),
    ):
        pass
    process.kill()
    process.communicate()
    with locked(lock, "the run"):
        pass
    with locked(lock, "the run"):  # let go at the end of the block
        pass


@pytest.mark.parametrize("code", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EIO", "EINVAL"])
def test_a_file_system_without_locks_is_one_line_with_the_way_on(
    tmp_path, monkeypatch, capsys, code
):
    number = getattr(errno, code)

    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = rf"^cannot lock .*/lock: {os.strerror(number)}\. .*--no-lock \(or WIREWORK_NO_LOCK=1\)"
    with pytest.raises(InputError, match=said), locked(tmp_path / "lock", "run x"):
        pass
    monkeypatch.setenv("WIREWORK_NO_LOCK", "1")
    for _ in range(2):
        with locked(tmp_path / "sub" / "lock", f"run {code}"):
            assert (tmp_path / "sub").is_dir()
    assert capsys.readouterr().err.count(f"nothing else may use run {code} meanwhile") == 1


def test_a_lock_file_that_its_holder_deletes_is_made_anew(tmp_path):
    lock = tmp_path / "lock"
    waited: list[bool] = []

    def delete():
        """The holder deletes the file and lets go while this process waits."""
        lock.unlink()
        holder.kill()
        holder.communicate()
        waited.append(lock.exists())

    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with locked(lock, "the run", on_wait=delete):
        assert waited == [False]
        with (
            pytest.raises(InputError, match="in use by another process"),
            locked(lock, "the run"),
        ):
            pass


COUNTING = """
import sys
from pathlib import Path
from wirework.locks import locked
folder = Path(sys.argv[1])
for _ in range(60):
    with locked(folder / "deep" / "lock", "the count", on_wait=lambda: None):
        count = int((folder / "count").read_text())
        (folder / "count").write_text(str(count + 1))
"""


def test_one_process_at_a_time_though_the_file_is_removed_each_time(tmp_path):
    (tmp_path / "count").write_text("0")
    words = [sys.executable, "-c", COUNTING, str(tmp_path)]
    processes = [subprocess.Popen(words) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "240"
    left = set(tmp_path.rglob("*")) - {tmp_path / "count"}
    assert left <= {tmp_path / "deep"}  # in rare cases: another took the lock before it was removed


@pytest.mark.parametrize("no_lock", ["0", "1"])
def test_nothing_is_left_of_a_lock_but_what_the_block_made(tmp_path, monkeypatch, no_lock):
    monkeypatch.setenv("WIREWORK_NO_LOCK", no_lock)
    lock = tmp_path / "runs" / "x" / "lock"
    with pytest.raises(InputError, match="refused"), locked(lock, "the run"):
        raise InputError("refused")
    assert list(tmp_path.iterdir()) == []
    with locked(lock, "the run"):
        lock.with_name("model").touch()
    assert list(lock.parent.iterdir()) == [lock.with_name("model")]
    mine = tmp_path / "mine"
    mine.mkdir()
    with locked(mine / "lock", "the run"):
        pass
    assert list(mine.iterdir()) == []


def test_a_refused_lock_and_a_new_one_in_its_place_stay(tmp_path):
    lock = tmp_path / "lock"
    with locked(lock, "the run"):
        with pytest.raises(InputError, match="in use"), locked(lock, "the run"):
            pass
        assert lock.exists()
        lock.unlink()
        with locked(lock, "the run"):
            inner = lock.stat()
        lock.touch()  # as if by another process
    assert lock.exists()
    assert inner.st_nlink == 1


def test_patience_ends(tmp_path):
    lock = tmp_path / "lock"
    with (
        locked(lock, "the run"),
        pytest.raises(InputError, match="in use"),
        locked(lock, "the run", timeout=0.05),
    ):
        pass


def test_a_pipe_in_the_place_of_a_lock_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(InputError, match="it is no ordinary file"), locked(tmp_path / "lock", "x"):
        pass


def test_switched_off_the_choices_of_this_machine_need_no_lock_either(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise AssertionError("locked")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("WIREWORK_NO_LOCK", "1")
    assert fastest.choose("locks", "one", lambda: {"one": lambda: None}) == "one"
    assert [path.name for path in (tmp_path / "wirework").iterdir()] == ["fastest.json"]
    monkeypatch.setenv("WIREWORK_NO_LOCK", "0")
    with pytest.raises(AssertionError, match="locked"):
        fastest.choose("locks again", "one", lambda: {"one": lambda: None})


def test_a_file_of_the_users_in_the_place_of_a_lock_stays(tmp_path):
    notes, link = tmp_path / "lock", tmp_path / "link"
    notes.write_text("mine")
    with locked(notes, "the run"):
        pass
    assert notes.read_text() == "mine"
    (tmp_path / "elsewhere").touch()
    link.symlink_to(tmp_path / "elsewhere")
    for _ in range(2):
        with locked(link, "the run"):
            assert link.samefile(tmp_path / "elsewhere")
    assert link.is_symlink()


def test_a_lock_on_a_deleted_file_is_never_held(tmp_path, monkeypatch):
    """Others replace the file between its opening and its locking, and hold the new one."""
    lock, flock = tmp_path / "lock", fcntl.flock
    held: list[BinaryIO] = []
    replaced: list[None] = []

    def replace():
        new = (tmp_path / "new").open("wb")
        flock(new, fcntl.LOCK_EX)
        (tmp_path / "new").rename(lock)
        for file in held:
            file.close()
        held[:] = [new]

    def replace_before_locking(descriptor, operation):
        if len(replaced) < 20 and operation != fcntl.LOCK_UN:
            replaced.append(replace())
        return flock(descriptor, operation)

    replace()
    monkeypatch.setattr(fcntl, "flock", replace_before_locking)
    with (
        pytest.raises(InputError, match=r"^the run is in use by another process$"),
        locked(lock, "the run", timeout=2),
    ):
        pass
    assert len(replaced) == 20
    with locked(lock, "the run", on_wait=lambda: held.pop().close()):
        assert not held
        with pytest.raises(InputError, match="in use"), locked(lock, "the run"):
            pass


def test_a_file_system_that_counts_no_links_is_named(tmp_path, monkeypatch):
    """There filelock takes every file for a deleted one."""

    def without_links(status):
        return os.stat_result([*status[:3], 0, *status[4:]])

    for name in ("stat", "fstat"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, call=call, **k: without_links(call(*a, **k)))
    said = r"cannot lock .*: its file system counts no links\. .*--no-lock"
    with pytest.raises(InputError, match=said), locked(tmp_path / "lock", "the run"):
        pass
