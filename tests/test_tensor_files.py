"""Reading safetensors files: what is damaged is said, what the disk fails at is told apart."""

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from wirework.errors import InputError
from wirework.tensor_files import read_arrays, read_header, read_tensors

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_file(STATE, path, {"format": "test"})
    return path


def header_of(values: Any, data: bytes = b"\0" * 8) -> bytes:
    text = json.dumps(values).encode()
    return len(text).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGE = {
    "empty": (b"", "it is empty"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "git lfs pull"),
    "HTML page": (b"\n<!DOCTYPE html><html>not found</html>", "it is an HTML page"),
    "bare HTML page": (b"<html><body>404</body></html>", "it is an HTML page"),
    "seven bytes": (b"1234567", "cut off, or no safetensors file"),
    "a text": (b"hello world, this is no such file", "cut off, or no safetensors file"),
    "no JSON": (b"\x02" + bytes(7) + b"{x", "header is not one of safetensors"),
    "a list": (header_of([1]), "header is not one of safetensors"),
    "nested deeply": (header_of(0)[:0] + len(b"[" * 99999).to_bytes(8, "little") + b"[" * 99999,
                      "header is not one of safetensors"),
    "metadata of a list": (header_of({"__metadata__": [1]}), "header is not one of safetensors"),
    "endless offsets": (header_of({"a": ENTRY | {"data_offsets": [0, float("inf")]}}),
                        "header is not one of safetensors"),
    "metadata of text": (header_of({"__metadata__": "x"}, b""), "header is not one of"),
    "entry of text": (header_of({"a": "x"}), "header is not one of safetensors"),
    "negative size": (header_of({"a": ENTRY | {"shape": [-2]}}), "header is not one of"),
    "no offsets": (header_of({"a": {"dtype": "F32", "shape": [2]}}), "header is not one of"),
    "unknown dtype": (header_of({"a": ENTRY | {"dtype": "Q7"}}), "is damaged"),
    "size at odds": (header_of({"a": ENTRY | {"shape": [3]}}), "is damaged"),
    "overlap": (header_of({"a": ENTRY, "b": ENTRY}), "is damaged"),
    "hole": (header_of({"a": ENTRY | {"data_offsets": [8, 16]}}, bytes(16)), "is damaged"),
}  # fmt: skip


class TestAllReaders:
    def test_header_and_tensors_are_those_that_were_saved(self, file: Path) -> None:
        header = read_header(file)
        assert header.tensors == {"a": ("F32", (2, 3)), "b": ("I64", (2,))}
        assert header.metadata == {"format": "test"}
        read = read_tensors(file)
        assert read.keys() == STATE.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in STATE.items())
        arrays = read_arrays(file)
        assert all(np.array_equal(arrays[name], tensor.numpy()) for name, tensor in STATE.items())

    @pytest.mark.parametrize("read", [read_tensors, read_arrays])
    @pytest.mark.parametrize("name", DAMAGE)
    def test_damage_is_said_in_a_line(
        self, name: str, read: Callable[..., Any], tmp_path: Path
    ) -> None:
        content, says = DAMAGE[name]
        path = tmp_path / "w.safetensors"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"w\.safetensors is damaged: ") as caught:
            read(path)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value.__cause__, OSError)

    @pytest.mark.parametrize("read", [read_header, read_tensors, read_arrays])
    def test_a_pipe_is_refused_at_once(self, read: Callable[..., Any], tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "w.safetensors")
        with pytest.raises(InputError, match=r"w\.safetensors: it is no ordinary file"):
            read(tmp_path / "w.safetensors")


class TestReadTensors:
    def test_a_file_without_tensors_is_whole(self, file: Path) -> None:
        save_file({}, file)
        assert read_tensors(file) == {}

    def test_a_missing_file_is_not_called_damaged(self, tmp_path: Path) -> None:
        with pytest.raises(
            InputError, match=r"cannot read .*w\.safetensors: No such file"
        ) as caught:
            read_tensors(tmp_path / "w.safetensors")
        assert isinstance(caught.value.__cause__, FileNotFoundError)
        with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
            read_tensors(tmp_path)

    @pytest.mark.parametrize("code", [errno.EIO, errno.ENOMEM, errno.ESTALE])
    def test_a_failing_disk_is_not_called_damage(
        self, code: int, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object, **__: object) -> Any:
            raise OSError(code, "the disk fails")

        monkeypatch.setattr(os, "open", fails)
        with pytest.raises(
            InputError, match=r"cannot read .*w\.safetensors: the disk fails"
        ) as caught:
            read_tensors(file)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == code

    @pytest.mark.parametrize(
        "error", [OSError(errno.ENODEV, "No such device"), RuntimeError("mmap")]
    )
    def test_a_file_system_without_memory_maps_is_read(
        self, error: Exception, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_maps(*_: object, **__: object) -> Any:
            raise error

        monkeypatch.setattr("safetensors.torch.load_file", no_maps)
        assert torch.equal(read_tensors(file)["a"], STATE["a"])

    def test_want_of_memory_is_not_called_damage(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def too_much(*_: object, **__: object) -> Any:
            raise MemoryError

        monkeypatch.setattr("safetensors.torch.load_file", too_much)
        with pytest.raises(InputError, match=r"cannot read .*: not enough memory") as caught:
            read_tensors(file)
        assert isinstance(caught.value.__cause__, OSError)

    def test_every_cut_and_flip_of_a_file_is_refused_or_read(self, tmp_path: Path) -> None:
        path, whole = tmp_path / "w.safetensors", save(STATE)
        contents = [whole[:end] for end in range(len(whole))]
        for place in range(len(whole) - 40):  # the header
            flipped = bytearray(whole)
            flipped[place] ^= 0x15
            contents.append(bytes(flipped))
        for content in contents:
            path.write_bytes(content)
            with contextlib.suppress(InputError):  # nothing else may come out
                read_tensors(path)


def test_a_cut_file_and_one_that_is_too_long_say_by_how_much(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(InputError, match=r"it is cut off \(35 of 40 bytes of tensors\)"):
        read_header(file)
    file.write_bytes(whole + b"more")
    with pytest.raises(InputError, match=r"4 bytes too many at its end: delete it$"):
        read_header(file, "delete it")
