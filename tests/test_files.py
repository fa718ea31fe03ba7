"""Files that are whole or absent: after errors, kills and damage."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wirework import files
from wirework.errors import DamagedError, DiskFullError, InputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WRITER = """
import sys
from pathlib import Path
from wirework import files
folder = Path(sys.argv[1])
for count in range(10**9):
    files.write_bytes(folder / "file", b"%d" % (count % 10) * 200_000)
    with files.atomic_dir(folder / "folder") as partial:
        (partial / "one").write_bytes(b"%d" % (count % 10) * 200_000)
    print(count, flush=True)
"""


class TestWriting:
    def test_written_file_is_there_with_its_folder(self, tmp_path):
        files.write_text(tmp_path / "a" / "b" / "text", "é\n")
        assert (tmp_path / "a" / "b" / "text").read_bytes() == b"\xc3\xa9\n"
        assert names(tmp_path / "a" / "b") == ["text"]

    @pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
    def test_error_while_writing_leaves_the_old_file_and_nothing_else(self, error, tmp_path):
        path = tmp_path / "file"
        files.write_bytes(path, b"old")

        def write_half() -> None:
            with files.atomic(path) as file:
                file.write(b"half of the new")
                raise error

        with pytest.raises(error):
            write_half()
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["file"]

    def test_full_disk_is_one_clear_line_and_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "file"
        files.write_bytes(path, b"old")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with pytest.raises(
                InputError, match=r"^cannot write .*/file: File too large \(100,000 bytes needed\)$"
            ):
                files.write_bytes(path, bytes(100_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["file"]

    def test_place_that_cannot_be_written_is_one_clear_line(self, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"cannot write .*folder: Is a directory"):
            files.write_text(tmp_path / "folder", "x")
        with pytest.raises(
            InputError, match=r"cannot write .*below: (Not a directory|File exists)"
        ):
            files.write_text(tmp_path / "file" / "below", "x")
        with (
            pytest.raises(InputError, match=r"cannot write .*(Not a directory|File exists)"),
            files.atomic_dir(tmp_path / "file" / "below"),
        ):
            pass
        with (
            pytest.raises(InputError, match=r"file is a file: it should be a folder"),
            files.locked(tmp_path / "file" / "lock", "it"),
        ):
            pass
        assert names(tmp_path) == ["file", "folder"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_folder_without_permission_is_one_clear_line(self, tmp_path):
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(InputError, match=r"cannot write .*file: Permission denied"):
                files.write_text(tmp_path / "file", "x")
        finally:
            tmp_path.chmod(0o700)

    def test_kill_at_any_moment_leaves_whole_files(self, tmp_path):
        for delay in (0.0, 0.004, 0.011, 0.023):
            process = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            process.stdout.readline()  # at least one whole round
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            content = (tmp_path / "file").read_bytes()
            assert len(content) == 200_000
            assert len(set(content)) == 1
            if (tmp_path / "folder").exists():
                files.verify_dir(tmp_path / "folder")

    def test_a_full_disk_is_told_by_the_name_of_the_file_to_be_and_the_room(
        self, tmp_path, monkeypatch
    ):
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(files, "sync_file", full)
        place = re.escape(str(tmp_path / "folder"))
        said = r"No space left on device \(5 bytes needed, [\d,]+ free\)$"
        with (
            pytest.raises(DiskFullError, match=rf"^cannot write {place}/one/two: {said}"),
            files.atomic_dir(tmp_path / "folder") as partial,
        ):
            files.write_text(partial / "one" / "two", "words")
        assert names(tmp_path) == []


class TestJson:
    def test_json_round_trip(self, tmp_path):
        value = {"a": [1, 2.5, None, True], "é": {"b": "\n"}}
        files.write_json(tmp_path / "value.json", value)
        assert files.read_json(tmp_path / "value.json") == value

    def test_nan_is_no_json(self, tmp_path):
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(tmp_path / "value.json", float("nan"))
        assert names(tmp_path) == []

    def test_a_name_given_twice_is_no_json(self, tmp_path):
        (tmp_path / "value.json").write_text('{"a": [{"b": 1, "c": 2, "b": 3}]}')
        with pytest.raises(DamagedError, match="is not valid JSON: 'b' is given twice"):
            files.read_json(tmp_path / "value.json")

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"9" * 6000])
    def test_file_that_is_no_json_is_refused(self, content, tmp_path):
        (tmp_path / "value.json").write_bytes(content)
        with pytest.raises(InputError, match=r"value\.json is not (valid JSON|UTF-8 text)"):
            files.read_json(tmp_path / "value.json")
        with pytest.raises(InputError, match=r"cannot read .*absent\.json: No such file"):
            files.read_json(tmp_path / "absent.json")


class TestReading:
    @pytest.mark.parametrize(
        "read",
        [
            files.is_file,
            files.sha256,
            files.read_bytes,
            files.read_json,
            lambda path: files.read_whole(path, 10),
            lambda path: files.verify_listed(path),
        ],
    )
    @pytest.mark.parametrize("kind", ["folder", "pipe", "device", "circle"])
    def test_what_is_no_ordinary_file_is_neither_read_nor_absent(self, kind, read, tmp_path):
        path = tmp_path / "value.json"
        (tmp_path / "checksums.json").write_text(json.dumps({"value.json": "0" * 64}))
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero" if kind == "device" else path.name)
        with pytest.raises(
            DamagedError, match=r"cannot read .*value\.json: (Is a|it is no|its links)"
        ):
            read(path)

    def test_a_pipe_that_takes_the_place_of_a_file_after_the_look_is_not_waited_for(
        self, tmp_path, monkeypatch, in_time
    ):
        path = tmp_path / "value.json"
        path.write_text("{}")
        real = files.is_file

        def look(place):
            found = real(place)
            path.unlink()
            os.mkfifo(path)
            return found

        monkeypatch.setattr(files, "is_file", look)
        with (
            in_time(),
            pytest.raises(InputError, match=r"cannot read .*json: it is no ordinary file"),
        ):
            files.read_json(path)


class TestReadRecord:
    def test_a_record_without_what_is_needed_is_damaged(self, tmp_path):
        path = tmp_path / "cell.json"
        for record in ({}, {"name": 3}):
            files.write_record(path, record)
            with pytest.raises(
                DamagedError, match=r"cell\.json is damaged: expected 'name' \(str\)"
            ):
                files.read_record(path, {"name": str})
        files.write_record(path, {"name": "one"})
        assert files.read_record(path, {"name": str}) == {"name": "one"}

    @pytest.mark.parametrize("values", [{"a": 1}, {"a": 1, "version": 1}])
    def test_a_record_whose_checksum_was_taken_off_is_not_taken_for_an_older_one(
        self, tmp_path, values
    ):
        path = tmp_path / "cell.json"
        files.write_record(path, values)
        held = files.read_json(path)
        del held["sha256"]
        files.write_json(path, held)
        for unsigned in (False, True):
            with pytest.raises(DamagedError, match=r"cell\.json is damaged: it has no checksum"):
                files.read_record(path, unsigned=unsigned)
        files.write_json(path, {**values, "version": 2})  # older versions wrote version 1, or none
        with pytest.raises(DamagedError, match=r"cell\.json is damaged: it has no checksum"):
            files.read_record(path, unsigned=True)
        files.write_json(path, values)
        assert files.read_record(path, unsigned=True) == values
        with pytest.raises(DamagedError, match=r"cell\.json is damaged: it has no checksum"):
            files.read_record(path)


def fill(path: Path, content: str) -> None:
    with files.atomic_dir(path) as partial:
        (partial / "one").write_text(content)
        (partial / "sub").mkdir()
        (partial / "sub" / "two").write_text(content)


class TestAtomicDir:
    def test_folder_replaces_the_old_one_whole(self, tmp_path):
        path = tmp_path / "folder"
        fill(path, "old")
        (path / "left over").write_text("")
        fill(path, "new")
        assert names(path) == ["checksums.json", "one", "sub"]
        assert (path / "sub" / "two").read_text() == "new"
        assert names(tmp_path) == ["folder"]
        files.verify_dir(path)
        sums = json.loads((path / "checksums.json").read_text())
        assert sums.keys() == {"one", "sub/two"}
        assert sums["one"] == files.sha256(path / "one")

    @pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
    def test_error_while_filling_leaves_the_old_folder_and_nothing_else(self, error, tmp_path):
        path = tmp_path / "folder"
        fill(path, "old")

        def fill_half() -> None:
            with files.atomic_dir(path) as partial:
                (partial / "one").write_text("new")
                raise error

        with pytest.raises(error):
            fill_half()
        files.verify_dir(path)
        assert (path / "one").read_text() == "old"
        assert names(tmp_path) == ["folder"]

    @pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
    def test_error_between_the_two_renames_brings_the_old_folder_back(
        self, error, tmp_path, monkeypatch
    ):
        path = tmp_path / "folder"
        fill(path, "old")
        rename = Path.rename

        def fail_to_place(self: Path, target: Path) -> Path:
            if self.name.endswith(".partial") and target == path:
                raise error
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fail_to_place)
        with pytest.raises((InputError, KeyboardInterrupt)):
            fill(path, "new")
        files.verify_dir(path)
        assert (path / "one").read_text() == "old"
        assert names(tmp_path) == ["folder"]


def test_damage_is_found_and_named(tmp_path):
    path = tmp_path / "folder"
    fill(path, "content")
    files.verify_dir(path)
    (path / "sub" / "two").write_bytes(b"cOntent")
    with pytest.raises(InputError, match="folder is damaged: sub/two does not match its checksum"):
        files.verify_dir(path)
    (path / "sub" / "two").unlink()
    with pytest.raises(InputError, match="folder is damaged: sub/two is missing"):
        files.verify_dir(path)
    (path / "checksums.json").write_text("[1]")
    with pytest.raises(InputError, match=r"checksums\.json .*names to checksums"):
        files.verify_dir(path)
    (path / "checksums.json").unlink()
    with pytest.raises(InputError, match=r"cannot read .*checksums\.json"):
        files.verify_dir(path)


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(tmp_path / "abc") == known


class TestSaveTensors:
    def test_tensors_are_a_file_like_its_neighbours(self, tmp_path):
        with files.atomic_dir(tmp_path / "folder") as partial:
            files.write_text(partial / "text", "")
            files.save_tensors(
                partial / "one.safetensors", {"a": torch.arange(3)}, {"format": "mine"}
            )
        files.verify_dir(tmp_path / "folder")
        saved = tmp_path / "folder" / "one.safetensors"
        assert torch.equal(load_file(saved)["a"], torch.arange(3))
        assert saved.stat().st_mode == (tmp_path / "folder" / "text").stat().st_mode

    def test_tensors_on_a_full_disk_are_one_clear_line(self, tmp_path):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with (
                pytest.raises(
                    InputError, match=r"^cannot write .*folder/one\.safetensors: File too large \("
                ),
                files.atomic_dir(tmp_path / "folder") as partial,
            ):
                files.save_tensors(partial / "one.safetensors", {"a": torch.zeros(10_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert names(tmp_path) == []


def ours(folder, text="new"):
    files.check_folder(folder, "a poem", ("poem", "notes"))
    with files.atomic_dir(folder) as partial:
        files.write_text(partial / "poem", text)
        files.write_text(partial / "notes", "")


class TestCheckFolder:
    def test_a_folder_is_replaced_only_if_all_in_it_is_ours(self, tmp_path):
        folder = tmp_path / "folder"
        (folder / "empty").mkdir(parents=True)
        (folder / "empty").rmdir()
        ours(folder)
        ours(folder, "newer")
        assert (folder / "poem").read_text() == "newer"
        (folder / "sub").mkdir()
        (folder / "sub" / "thesis.txt").write_text("mine")
        with pytest.raises(
            InputError, match=r"folder holds sub/thesis.txt besides a poem: not over"
        ):
            ours(folder)
        assert (folder / "sub" / "thesis.txt").read_text() == "mine"

    @pytest.mark.parametrize("sums", [None, "{", "[]", '{"poem": ""}'])
    def test_what_has_the_names_of_ours_is_not_ours(self, tmp_path, sums):
        for name in ("poem", "notes"):
            (tmp_path / name).write_text("mine")
        if sums is not None:
            (tmp_path / "checksums.json").write_text(sums)
        with pytest.raises(InputError, match=r"exists and is not a poem: not overwritten$"):
            ours(tmp_path)
        with pytest.raises(InputError, match=r"exists and is not a poem: not overwritten$"):
            ours(tmp_path / "poem")
        assert (tmp_path / "poem").read_text() == "mine"

    def test_links_in_a_folder_and_what_is_no_folder_are_kept(self, tmp_path):
        ours(tmp_path / "folder")
        (tmp_path / "folder" / "link").symlink_to(tmp_path)
        with pytest.raises(InputError, match="folder holds link besides a poem"):
            ours(tmp_path / "folder")
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match="pipe exists and is not a poem"):
            ours(tmp_path / "pipe")
        (tmp_path / "one").symlink_to(tmp_path / "two")
        (tmp_path / "two").symlink_to(tmp_path / "one")
        with pytest.raises(InputError, match="its links lead in a circle"):
            ours(tmp_path / "one")
        (tmp_path / "away").symlink_to("/proc/nowhere/folder")
        with pytest.raises(InputError, match="cannot write /proc/nowhere/folder"):
            files.check_folder(tmp_path / "away", "a poem", ("poem",))
        assert names(tmp_path) == ["away", "folder", "one", "pipe", "two"]

    def test_a_link_into_a_folder_without_permission_is_no_circle(self, tmp_path):
        """As another user where this one is root, who may go anywhere."""
        with tempfile.TemporaryDirectory() as shared:
            link, closed = Path(shared) / "link", tmp_path / "closed"
            closed.mkdir(mode=0o700)
            link.symlink_to(closed / "folder")
            Path(shared).chmod(0o777)
            user = os.geteuid()
            if user == 0:
                os.seteuid(65534)
            else:
                closed.chmod(0)
            try:
                with pytest.raises(InputError, match=r"cannot write .*: Permission denied$"):
                    files.check_folder(link, "a poem", ("poem",))
                with pytest.raises(InputError, match=r"cannot write .*: Permission denied$"):
                    files.check_folder(closed / "sub" / "folder", "a poem", ("poem",))
            finally:
                os.seteuid(user)
                closed.chmod(0o700)

    def test_a_link_to_a_folder_stays_one(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "disk" / "folder")
        ours(tmp_path / "link")
        ours(tmp_path / "link", "newer")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "disk" / "folder" / "poem").read_text() == "newer"
        assert names(tmp_path / "disk") == ["folder"]


def test_names_that_are_no_text_are_escaped_in_files_and_left_out_where_they_are_read(tmp_path):
    files.write_text(tmp_path / "a", "é caf\udce9")
    assert (tmp_path / "a").read_bytes() == "é caf\\udce9".encode()
    assert files.path_text(tmp_path / "caf\udce9") is None
    assert files.path_text(tmp_path / "é") == str(tmp_path / "é")
    assert files.path_text(None) is None
