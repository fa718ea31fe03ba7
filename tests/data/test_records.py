"""Corpora of records: versions and subsets of data sets, and whatever their libraries raise."""

import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from wirework.config import DataConfig
from wirework.data import documents, prepare, records
from wirework.data.prepare import _folder_name
from wirework.errors import InputError


def read(corpus: object, **settings: object) -> list[str]:
    return list(documents(DataConfig.of({"corpus": str(corpus), **settings})))


# The Hub: a module in the place of datasets.


class Hub:
    """A `datasets` that keeps what it was asked for and gives two rows."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def load_dataset(self, *arguments: Any, **named: Any) -> list[dict[str, str]]:
        self.asked.append((arguments, named))
        return [{"text": "one text"}, {"text": "two texts"}]


def put_in_its_place(monkeypatch: pytest.MonkeyPatch, load_dataset: Any) -> None:
    module = ModuleType("datasets")
    vars(module)["load_dataset"] = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    put_in_its_place(monkeypatch, hub.load_dataset)
    return hub


class TestHubNames:
    @pytest.mark.parametrize(
        ("corpus", "subset", "asked"),
        [
            ("hub:some/name", None, ("some/name", None, None)),
            ("hub:some/name@v1.0", None, ("some/name", None, "v1.0")),
            ("hub:name@refs/pr/1", "de", ("name", "de", "refs/pr/1")),
        ],
    )
    def test_name_revision_and_subset_reach_the_library(
        self, hub: Hub, corpus: str, subset: Any, asked: Any
    ):
        assert read(corpus, subset=subset) == ["one text", "two texts"]
        ((arguments, named),) = hub.asked
        named = {"split": named.pop("split"), "streaming": named.pop("streaming"), **named}
        assert (*arguments, named.pop("revision")) == asked
        assert named == {"split": "train", "streaming": True, "trust_remote_code": False}

    def test_the_subset_is_of_the_corpus_and_not_of_its_mix(self, hub: Hub):
        read("hub:one", subset="de", mix="hub:two")
        assert sorted(arguments for arguments, _ in hub.asked) == [("one", "de"), ("two", None)]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"corpus": "hub:a@b@c"}, "corpus hub:a@b@c: wanted hub:NAME or hub:NAME@REVISION"),
            ({"corpus": "hub:a@"}, "corpus hub:a@: wanted hub:NAME or hub:NAME@REVISION"),
            ({"corpus": "hub:@b"}, "corpus hub:@b: wanted hub:NAME"),
            ({"corpus": "hub:"}, "corpus hub:: wanted hub:NAME"),
            ({"mix": "hub:a@"}, "corpus hub:a@: wanted hub:NAME"),
            (
                {"corpus": "notes.txt", "subset": "de"},
                "subset is for a corpus hub:NAME, not for notes",
            ),
        ],
    )
    def test_names_that_cannot_be_are_refused(self, settings: dict[str, str], message: str):
        with pytest.raises(InputError, match=message):
            DataConfig.of(settings)

    def test_revision_and_subset_make_other_folders(self, hub: Hub, tmp_path: Path):
        asked = [
            {"corpus": "hub:some/name"},
            {"corpus": "hub:some/name@v1"},
            {"corpus": "hub:some/name@v2"},
            {"corpus": "hub:some/name", "subset": "de"},
        ]
        made = [prepare(DataConfig.of(one), tmp_path, progress=False).path.name for one in asked]
        assert len(set(made)) == 4
        assert all(name.startswith("name-") for name in made)

    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            (
                {"corpus": "hub:roneneldan/TinyStories", "answers": "none"},
                "TinyStories-d297f3e8e94e",
            ),
            (
                {"corpus": "hub:roneneldan/TinyStories", "answers": "python"},
                "TinyStories-5e264a946bdd",
            ),
        ],
    )
    def test_folders_of_before_are_found_again(self, settings: dict[str, str], name: str):
        assert _folder_name(DataConfig.of(settings), None) == name


class GenerationError(Exception):
    """Like many of the libraries', of no class that we could name."""


ERRORS = [
    RuntimeError("Dataset scripts are no longer supported, but found x.py"),
    NotImplementedError("Loading a streaming dataset"),
    ImportError("To read this you need zstandard"),
    ModuleNotFoundError("No module named 'zstandard'"),
    pyarrow.lib.ArrowNotImplementedError("Nested data conversions"),
    EOFError("Compressed file ended before the end-of-stream marker was reached"),
    zlib.error("Error -3 while decompressing data"),
    TypeError("Couldn't cast array of type"),
    KeyError("train"),
    OSError(5, "Input/output error"),
    ValueError("two\nlines"),
    RecursionError("maximum recursion depth exceeded"),
    GenerationError(),
]


class TestLoadDataset:
    def test_a_local_data_set_is_read_by_subset(self, tmp_path: Path):
        pytest.importorskip("datasets")
        configs = "".join(f"- config_name: {n}\n  data_files: {n}.jsonl\n" for n in ("one", "two"))
        (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
        for name in ("one", "two"):
            (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": f"text {name}"}) + "\n")
        assert read(f"hub:{tmp_path}", subset="two") == ["text two"]
        with pytest.raises(InputError, match=r"cannot read hub:.*'three' not found"):
            read(f"hub:{tmp_path}", subset="three")

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    @pytest.mark.parametrize("when", ["at once", "in the middle"])
    def test_whatever_a_library_raises_is_one_line(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, when: str
    ):
        def rows() -> Iterator[dict[str, str]]:
            yield {"text": "a text"}
            raise error

        def load_dataset(*_: Any, **__: Any) -> Iterator[dict[str, str]]:
            if when == "at once":
                raise error
            return rows()

        put_in_its_place(monkeypatch, load_dataset)
        with pytest.raises(InputError, match=r"cannot read hub:some/name: .") as caught:
            read("hub:some/name")
        assert caught.value.__cause__ is error
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match="cannot read hub:some/name"):
            prepare(DataConfig(corpus="hub:some/name"), tmp_path, progress=False)
        assert list(tmp_path.iterdir()) == []

    def test_what_a_reader_of_the_rows_raises_is_its_own(self, hub: Hub):
        def stop(text: str) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            any(map(stop, documents(DataConfig(corpus="hub:some/name"))))

    def test_a_package_that_lacks_another_says_which(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        (tmp_path / "datasets.py").write_text("import a_module_that_is_not_there\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "datasets", raising=False)
        with pytest.raises(
            InputError, match="cannot load datasets: No module named 'a_module_that"
        ):
            read("hub:some/name")


def table(path: Path) -> bytes:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a text"] * 1000}), path)
    return path.read_bytes()


class TestParquet:
    def test_damaged_parquet_is_one_line(self, tmp_path: Path):
        path = tmp_path / "a.parquet"
        whole = table(path)
        for content in (whole[: len(whole) // 2], b"PAR1" + bytes(100) + b"PAR1", b"<html>", b""):
            path.write_bytes(content)
            with pytest.raises(InputError, match=r"cannot read .*a\.parquet as Parquet: ."):
                read(path)
        for place in range(4, len(whole) - 4, 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            with suppress(InputError):  # and nothing else
                read(path)

    def test_whatever_pyarrow_raises_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        table(tmp_path / "a.parquet")

        def broken(*_: Any, **__: Any) -> None:
            raise pyarrow.lib.ArrowNotImplementedError("Nested data conversions")

        monkeypatch.setattr(pyarrow.parquet, "ParquetFile", broken)
        with pytest.raises(InputError, match="as Parquet: Nested data conversions"):
            read(tmp_path / "a.parquet")


class TestJsonl:
    def test_a_byte_order_mark_is_no_part_of_the_first_line(self, tmp_path: Path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n{"text": "b"}\n')
        assert read(path) == ["a", "b"]
        path.write_bytes(b'\xef\xbb\xbf\n{"text": "a"}\n')
        assert read(path) == ["a"]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b"[" * 100_000, "line 1 is not JSON"),
            (b'{"text": ' * 100_000, "line 1 is not JSON"),
            (b'{"text": ' + b"9" * 5000 + b"}", "line 1 "),
            (gzip.compress(b'{"text": "a"}\n', mtime=0), "line 1 is not"),
        ],
    )
    def test_hostile_lines_are_one_line(self, tmp_path: Path, line: bytes, message: str):
        (tmp_path / "a.jsonl").write_bytes(line)
        with pytest.raises(InputError, match=message) as caught:
            read(tmp_path / "a.jsonl")
        assert len(str(caught.value)) < 1000

    def test_a_line_without_end_is_not_read_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(records, "MAX_LINE_BYTES", 1 << 20)
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'{"text": "a"}\n' + b" " * (3 << 20))
        with pytest.raises(
            InputError, match=r"line 2 is longer than 1 MiB: JSONL has one record a"
        ):
            read(path)
