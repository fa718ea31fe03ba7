"""Locks between processes, and file systems that have none."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

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
    waited = []

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
    with locked(lock, "the run", waiting=delete):
        assert waited == [False]
        with (
            pytest.raises(InputError, match="in use by another process"),
            locked(lock, "the run"),
        ):
            pass
