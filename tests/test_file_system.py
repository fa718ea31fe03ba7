"""File systems that cannot flush or change modes: one warning, and the work goes on."""

import errno
import os
import stat
from pathlib import Path

import pytest

from wirework import console, files
from wirework.errors import InputError
from wirework.file_system import sync_dir

REFUSALS = ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EBADF", "EACCES", "EPERM"]


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(console, "_said_once", set())


def refusing(monkeypatch, code, folders=True, plain=True):
    real = os.fsync

    def refuse(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if folders if is_folder else plain:
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)


def write_twice(folder: Path) -> list[str]:
    """Write two files and a folder, twice; return what was left."""
    for content in ("old", "new"):
        files.write_text(folder / "one", content)
        files.write_text(folder / "two", content)
        with files.atomic_dir(folder / "folder") as partial:
            (partial / "three").write_text(content)
    files.verify_dir(folder / "folder")
    assert (folder / "one").read_text() == (folder / "folder" / "three").read_text() == "new"
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("code", REFUSALS)
def test_folders_that_cannot_be_flushed_are_told_of_once(tmp_path, monkeypatch, capsys, code):
    refusing(monkeypatch, code, plain=False)
    assert write_twice(tmp_path) == ["folder", "one", "two"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the file system at /")
    assert "cannot flush folders to the disk" in line
    assert os.strerror(getattr(errno, code)) in line


def test_a_folder_that_cannot_be_opened_is_not_flushed(tmp_path, monkeypatch, capsys):
    real = os.open

    def refuse(path, flags, *rest, **more):
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        sync_dir(tmp_path)
    assert "cannot flush folders" in capsys.readouterr().err


def test_files_that_cannot_be_flushed_are_told_of_once(tmp_path, monkeypatch, capsys):
    refusing(monkeypatch, "EINVAL")
    write_twice(tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert ["files" in line for line in lines] == [True, True]  # of files, of folders
    assert "cannot flush files to the disk" in lines[0]


@pytest.mark.parametrize("code", ["EIO", "ENOSPC"])
def test_a_disk_that_fails_is_an_error(tmp_path, monkeypatch, code):
    refusing(monkeypatch, code)
    with pytest.raises(
        InputError, match=f"cannot write .*one: {os.strerror(getattr(errno, code))}"
    ):
        files.write_text(tmp_path / "one", "")


@pytest.mark.parametrize("code", ["EPERM", "ENOTSUP"])
def test_modes_that_cannot_be_changed_are_told_of_once(tmp_path, monkeypatch, capsys, code):
    def refuse(self, mode):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(Path, "chmod", refuse)
    for name in ("one", "two"):
        with files.atomic_dir(tmp_path / name) as partial:
            (partial / "private").touch(0o600)
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot change who may read a file" in line
