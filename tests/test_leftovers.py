"""What killed processes leave half-written, and that nothing else is removed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wirework import files
from wirework.leftovers import clear_held, is_leftover
from wirework.partial_names import beside

KILLED = """
import os, signal, sys
from pathlib import Path
from wirework import files
path = Path(sys.argv[1])
with files.atomic_dir(path) as partial:
    (partial / "one").write_text("half")
    with files.atomic(path.with_name("file")) as file:
        if sys.argv[2] == "writing":
            os.kill(os.getpid(), signal.SIGKILL)
    Path.rename, real = (lambda self, to: os.kill(os.getpid(), signal.SIGKILL)
        if self.name.endswith("partial") and to == path else real(self, to)), Path.rename
"""


def killed(path: Path, when: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(path), when], check=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(path: Path, content: str) -> None:
    with files.atomic_dir(path) as partial:
        (partial / "one").write_text(content)


NOT_OURS = [".folder.partial", "folder.12.partial", ".folder.x.partial", ".folder.12.partially"]
MAYBE_ALIVE = [".folder.12.partial", ".folder.00000000-12.partial"]


class TestWithoutLock:
    def test_what_a_killed_process_left_is_removed_when_the_place_is_checked(self, tmp_path):
        killed(tmp_path / "folder", "writing")
        assert all(is_leftover(name) for name in names(tmp_path))
        assert len(names(tmp_path)) == 2
        files.check_folder(tmp_path / "folder", "a poem", ("one",))
        files.check_file(tmp_path / "file")
        assert names(tmp_path) == []

    def test_a_folder_that_was_being_replaced_comes_back(self, tmp_path):
        fill(tmp_path / "folder", "old")
        killed(tmp_path / "folder", "replacing")
        assert not (tmp_path / "folder").exists()
        files.check_folder(tmp_path / "folder", "a poem", ("one",))
        files.verify_dir(tmp_path / "folder")
        assert (tmp_path / "folder" / "one").read_text() == "old"
        assert names(tmp_path) == ["file", "folder"]

    @pytest.mark.parametrize("name", [*NOT_OURS, *MAYBE_ALIVE])
    def test_what_may_be_of_others_stays_where_no_lock_is_held(self, tmp_path, name):
        (tmp_path / name).write_text("")
        files.check_file(tmp_path / "folder")
        assert names(tmp_path) == [name]

    def test_what_a_living_process_writes_stays(self, tmp_path):
        with files.atomic(tmp_path / "file") as file:
            file.write(b"whole")
            files.check_file(tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b"whole"

    def test_a_number_that_no_process_has_is_no_hindrance(self, tmp_path):
        own = beside(tmp_path / "file")
        other = own.with_name(own.name.replace(f"-{os.getpid()}.", "-9999999999."))
        other.write_text("")
        files.check_file(tmp_path / "file")
        assert other.exists()


LONG = ["x" * 255, "\N{GREEK SMALL LETTER OMEGA}" * 127, "y" * 201]


class TestLongNames:
    @pytest.mark.parametrize("name", LONG)
    def test_a_long_name_can_be_written_and_its_leftovers_are_cleared(self, tmp_path, name):
        files.write_text(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"
        (tmp_path / name).unlink()
        fill(tmp_path / name, "old")
        killed(tmp_path / name, "replacing")
        assert not (tmp_path / name).exists()
        clear_held([tmp_path])  # whose leftover it is cannot be told: the old folder stays
        files.check_folder(tmp_path / name, "a poem", ("one",))
        assert (tmp_path / name / "one").read_text() == "old"
        killed(tmp_path / name, "writing")
        files.check_folder(tmp_path / name, "a poem", ("one",))
        files.check_file(tmp_path / "file")
        assert names(tmp_path) == sorted([name, "file"])

    def test_long_names_that_begin_alike_do_not_meet(self, tmp_path):
        one, other = beside(tmp_path / ("x" * 254 + "1")), beside(tmp_path / ("x" * 254 + "2"))
        assert one != other
        assert len(os.fsencode(one.name)) <= 255


"""Of an older version, which does not say which machine it ran on, and of another machine."""


class TestClearHeld:
    def test_with_the_lock_all_leftovers_go_and_only_they(self, tmp_path, monkeypatch):
        for name in (*NOT_OURS, *MAYBE_ALIVE, "file"):
            (tmp_path / name).write_text("")
        (tmp_path / ".sub.12.stale").mkdir()
        (tmp_path / "sub").mkdir()
        monkeypatch.setenv("WIREWORK_NO_LOCK", "1")
        clear_held([tmp_path])
        assert len(names(tmp_path)) == 9
        monkeypatch.delenv("WIREWORK_NO_LOCK")
        clear_held([tmp_path, tmp_path / "absent"])
        assert names(tmp_path) == sorted([*NOT_OURS, "file", "sub"])

    def test_with_the_lock_too_what_another_living_process_writes_stays(self, tmp_path):
        own = beside(tmp_path / "circuit")
        other = own.with_name(own.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
        own.touch()  # of an earlier process with this one's number
        other.mkdir()
        clear_held([tmp_path])
        assert names(tmp_path) == [other.name]
