import errno
import gzip
import os
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wirework.config import DataConfig
from wirework.data import corpus_files, documents, prepare, python_source
from wirework.data import tokenise as tokenise_module
from wirework.data.records import jsonl
from wirework.data.text_files import is_separated, text_pieces
from wirework.errors import InputError


def read(corpus: object, **settings: object) -> list[str]:
    return list(documents(DataConfig.of({"corpus": str(corpus), **settings})))


class TestTextFiles:
    def test_a_small_file_is_one_document(self, tmp_path: Path):
        path = tmp_path / "a.txt"
        path.write_bytes("\ufeffünï\r\ntext".encode())
        assert read(path) == ["ünï\r\ntext"]

    def test_a_larger_file_is_cut_at_line_ends(self, tmp_path: Path):
        path = tmp_path / "a.txt"
        text = "".join(f"line {i} of the file\n" for i in range(5000))
        path.write_text(text)
        pieces = read(path)
        assert 50 < len(pieces) < 90
        assert "".join(pieces) == text
        assert all(piece.endswith("\n") for piece in pieces)

    @settings(max_examples=200)
    @given(text=st.text(alphabet="ab\n\0é€🐍"), size=st.integers(4, 20))
    def test_pieces_join_to_the_text(self, tmp_path_factory, text: str, size: int):
        path = tmp_path_factory.mktemp("pieces") / "a.txt"
        text = text.replace("\0", "c")
        path.write_bytes(text.encode())
        pieces = list(text_pieces(path, size))
        assert "".join(pieces) == text
        assert all(len(piece.encode()) <= size for piece in pieces)

    def test_a_file_larger_than_memory_would_do(self, tmp_path: Path):
        path = tmp_path / "a.txt"
        line = b"some words on a line\n" * 50_000
        with path.open("wb") as file:
            for _ in range(30):
                file.write(line)
        tracemalloc.start()
        total = sum(len(text) for text in documents(DataConfig(corpus=str(path))))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert total == 30 * len(line)
        assert peak < 2_000_000

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty: it holds no text"),
            (b"\xef\xbb\xbf", "is empty: it holds no text"),
            (b"abc\0def", "a.txt is binary, not text: it has a NUL byte at offset 3"),
            (b"x" * 3000 + b"\n\xff" + b"y" * 3000, "not UTF-8 text: byte 0xff at offset 3001"),
            (b"caf\xe9", "not UTF-8 text: byte 0xe9 at offset 3"),
        ],
    )
    def test_unusable_files_are_refused(self, tmp_path: Path, content: bytes, message: str):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(InputError, match=message):
            read(tmp_path / "a.txt")

    def test_max_bytes_cuts_the_last_document(self, tmp_path: Path):
        path = tmp_path / "a.jsonl"
        path.write_text('{"text": "abcdef"}\n{"text": "ghéij"}\n{"text": "k"}\n')
        assert read(path, max_bytes=6) == ["abcdef"]
        assert read(path, max_bytes=8) == ["abcdef", "gh"]
        assert read(path, max_bytes=9) == ["abcdef", "gh"]  # not half of the é
        assert read(path, max_bytes=10) == ["abcdef", "ghé"]
        assert read(path, max_bytes=12) == ["abcdef", "ghéij"]
        assert read(path, max_bytes=13) == ["abcdef", "ghéij", "k"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (gzip.compress(b"text", mtime=0), r"a\.txt is compressed \(gzip\): unpack it first"),
            ("text".encode("utf-16"), r"a\.txt is not UTF-8 text but UTF-16: save it as UTF-8"),
        ],
    )
    def test_what_kind_of_file_it_is_is_said(self, tmp_path: Path, content: bytes, message: str):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(InputError, match=message):
            read(tmp_path / "a.txt")


class TestUnusablePlaces:
    def test_a_missing_corpus_is_refused(self, tmp_path: Path):
        with pytest.raises(
            InputError, match="nowhere does not exist: give `python`, `programs`, `stories`, a file"
        ):
            read(tmp_path / "nowhere")
        with pytest.raises(InputError, match="does not exist"):
            corpus_files(str(tmp_path / "nowhere"))

    def test_a_link_to_nowhere_is_refused(self, tmp_path: Path):
        (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
        with pytest.raises(InputError, match=r"loop\.txt does not exist"):
            read(tmp_path / "loop.txt")

    @pytest.mark.parametrize("corpus", ["/dev/zero", "/dev/null", "fifo"])
    def test_devices_and_pipes_are_refused_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str
    ):
        monkeypatch.chdir(tmp_path)
        os.mkfifo("fifo")
        with pytest.raises(InputError, match=f"corpus {corpus} is a device or a pipe: give a file"):
            read(corpus)
        with pytest.raises(InputError, match="is a device or a pipe"):
            prepare(DataConfig(corpus=corpus), tmp_path / "cache", progress=False)
        assert not (tmp_path / "cache").exists()

    def test_a_file_that_vanishes_is_named(self, tmp_path: Path):
        for name in "abc":
            (tmp_path / f"{name}.txt").write_text(name)
        texts = documents(DataConfig(corpus=str(tmp_path)))
        gone = ({"a", "b", "c"} - {next(texts)}).pop()
        (tmp_path / f"{gone}.txt").unlink()
        with pytest.raises(InputError, match=rf"cannot read .*{gone}\.txt: No such file"):
            list(texts)

    def test_files_and_folders_that_may_not_be_read_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (tmp_path / "closed").mkdir()
        (tmp_path / "a.txt").write_text("a text")
        denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "closed"))
        real_scan, real_open = os.scandir, os.open

        def scan(path: str) -> object:
            if str(path).endswith("closed"):
                raise denied
            return real_scan(path)

        def refuse(path: Any, *mode: Any, **named: Any) -> Any:
            if str(path).endswith(".txt"):
                raise denied
            return real_open(path, *mode, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", scan)
            with pytest.raises(InputError, match=r"cannot read .*closed: Permission denied"):
                read(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            for corpus in (tmp_path, tmp_path / "a.txt"):
                with pytest.raises(InputError, match=r"cannot read .*a\.txt: Permission denied"):
                    read(corpus)

    @pytest.mark.parametrize(
        "reader",
        [
            lambda path: list(text_pieces(path, 99)),
            is_separated,
            lambda path: list(jsonl(path, "a")),
        ],
        ids=["text", "marks", "jsonl"],
    )
    def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
        self,
        tmp_path: Path,
        reader: Callable[[Path], object],
        in_time: Callable[[], AbstractContextManager[None]],
    ):
        """However a file looked before: what was opened is looked at."""
        os.mkfifo(tmp_path / "pipe")
        with in_time(), pytest.raises(InputError, match=r"cannot read .*: it is no ordinary file"):
            reader(tmp_path / "pipe")

    def test_a_name_that_is_too_long_is_one_line(self):
        with pytest.raises(InputError, match=r"cannot read corpus .aaa.*: File name too long"):
            read("a" * 300)
        with pytest.raises(InputError, match="File name too long"):
            corpus_files("a" * 300)

    def test_a_corpus_that_changes_while_it_is_read_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        path = tmp_path / "a.txt"
        path.write_text("".join(f"line {i} of the file\n" for i in range(500)))
        real = tokenise_module.tokenise

        def tokenise(*arguments: object) -> object:
            with path.open("a") as file:
                file.write("one more\n")
            return real(*arguments)

        monkeypatch.setattr(sys.modules["wirework.data.prepare"], "tokenise", tokenise)
        settings = DataConfig(corpus=str(path), workers=1)
        with pytest.raises(InputError, match=r"a\.txt changed while it was read: run it again"):
            prepare(settings, tmp_path / "cache", progress=False)
        assert not (tmp_path / "cache").exists()
        monkeypatch.undo()
        assert prepare(settings, tmp_path / "cache", progress=False).train.n_tokens > 0

    def test_a_prepared_corpus_is_no_text(self, tmp_path: Path):
        (tmp_path / "a.txt").write_text("".join(f"line {i} of the file\n" for i in range(500)))
        made = prepare(
            DataConfig(corpus=str(tmp_path / "a.txt")), tmp_path / "cache", progress=False
        )
        with pytest.raises(InputError, match="is a prepared corpus, not text: name the text that"):
            prepare(DataConfig(corpus=str(made.path)), tmp_path / "cache", progress=False)


def put(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


class TestFolders:
    def test_a_folder_is_read_to_its_leaves(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / ".git").mkdir()
        (tmp_path / "a.py").write_text("a = 1\n")
        (tmp_path / "deep" / "b.md").write_text("b\n")
        (tmp_path / "deep" / "er" / "c.jsonl").write_text('{"text": "c"}\n{"text": "d"}\n')
        (tmp_path / "empty.txt").write_text("")
        (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
        (tmp_path / "late.bin").write_bytes(b"good text " * 1000 + b"\xff")
        (tmp_path / ".git" / "config").write_text("hidden")
        (tmp_path / ".hidden").write_text("hidden")
        assert sorted(read(tmp_path)) == ["a = 1\n", "b\n", "c", "d"]
        assert read(tmp_path) == read(tmp_path)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "2 files left out, not UTF-8 text" in " ".join(captured.err.split())

    @pytest.mark.parametrize("name", ["data[old]", "data[/v1]"])
    def test_the_name_of_a_folder_is_no_markup(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.txt").write_text("a")
        (tmp_path / name / "b.bin").write_bytes(b"\0\1")
        assert read(tmp_path / name) == ["a"]
        said = capsys.readouterr().err
        assert said == f"{tmp_path / name}: 1 file left out, not UTF-8 text\n"

    def test_a_folder_of_nothing_is_refused(self, tmp_path: Path):
        with pytest.raises(InputError, match="is empty: the folder has no files"):
            read(tmp_path)
        (tmp_path / "a.bin").write_bytes(b"\0")
        with pytest.raises(InputError, match="is empty: it holds no text"):
            read(tmp_path)

    def test_a_folder_named_like_a_file_is_a_folder(self, tmp_path: Path):
        put(tmp_path, "a.jsonl/b.txt", "text")
        assert read(tmp_path / "a.jsonl") == ["text"]

    def test_pipes_in_a_folder_are_left_out(self, tmp_path: Path):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "a.txt").write_text("a text")
        assert read(tmp_path) == ["a text"]


class TestRecordFiles:
    def test_jsonl_gives_the_named_field(self, tmp_path: Path):
        path = tmp_path / "a.jsonl"
        path.write_text('{"body": "one\\n"}\n\n{"body": "two", "id": 2}\n{"body": ""}')
        assert read(path, field="body") == ["one\n", "two"]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b'{"text": "x"', "line 2 is not JSON: .* at column"),
            (b'{"text": "\xff"}', "line 2 is not UTF-8: byte 11 of the line"),
            (b'{"txt": "x"}', "line 2 has no field 'text'; did you mean 'txt'"),
            (b'{"zzz": "x"}', "line 2 has no field 'text'; it has 'zzz'"),
            (b'{"text": 3}', "line 2: field 'text' should be text, got int"),
            (b"[" * 100_000, "line 2 is not JSON"),
            (b"9" * 6000, "line 2 is not JSON"),
            (b'["x"]', "line 2: expected an object with field 'text'"),
            (b'{"text": "\\ud800"}', "line 2: field 'text' holds half a character"),
        ],
    )
    def test_a_bad_line_is_named(self, tmp_path: Path, line: bytes, message: str):
        (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n' + line + b"\n")
        with pytest.raises(InputError, match=message):
            read(tmp_path / "a.jsonl")

    def test_parquet_gives_the_named_column(self, tmp_path: Path):
        texts = [f"row {i}" for i in range(1000)]
        table = pyarrow.table({"body": texts, "id": list(range(1000))})
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
        assert read(tmp_path / "a.parquet", field="body") == texts
        with pytest.raises(InputError, match="has no column 'text'; it has 'body', 'id'"):
            read(tmp_path / "a.parquet")
        with pytest.raises(InputError, match="row 1: field 'id' should be text, got int"):
            read(tmp_path / "a.parquet", field="id")

    def test_what_is_no_parquet_is_refused(self, tmp_path: Path):
        (tmp_path / "a.parquet").write_bytes(b"not at all, but long enough")
        with pytest.raises(InputError, match=r"cannot read .*a\.parquet as Parquet"):
            read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("module", "corpus", "extra"),
    [("pyarrow", "a.parquet", "parquet"), ("datasets", "hub:some/name", "hub")],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, corpus: str, extra: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)  # Python's own way to say: not there
    with pytest.raises(InputError, match=rf"pip install '\.\[{extra}\]'"):
        read(corpus)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library folder of our own in place of the interpreter's."""
    monkeypatch.setattr(python_source, "roots", lambda: [tmp_path])
    return tmp_path


CODE = "def f(x):\n    return x + 1\n" * 10


class TestPythonSource:
    def test_python_leaves_out_tests_generated_minified_and_copies(self, site: Path):
        put(site, "pkg/good.py", CODE + "# good\n")
        put(site, "pkg/windows.py", CODE.replace("\n", "\r\n"))
        put(site, "pkg/copy.py", CODE)
        left_out = {
            "pkg/tests/a.py": CODE + "# tests\n",
            "pkg/testing/a.py": CODE + "# testing\n",
            "test/a.py": CODE + "# test\n",
            "site-packages/a.py": CODE + "# another root's\n",
            "pkg/test_a.py": CODE + "# test_a\n",
            "pkg/a_test.py": CODE + "# a_test\n",
            "pkg/conftest.py": CODE + "# conftest\n",
            "pkg/schema_pb2.py": CODE + "# pb2\n",
            "pkg/made.py": "# This file was generated by a tool.\n" + CODE,
            "pkg/made2.py": "#\n# AUTOGENERATED\n" + CODE,
            "pkg/table.py": "x = '" + "ab" * 5000 + "'\n",
            "pkg/tiny.py": "x = 1\n",
            "pkg/huge.py": CODE * 2000,
            "pkg/latin.py": CODE.encode() + b"# \xe9\n",
            "pkg/nul.py": CODE + "# \0\n",
            "pkg/readme.txt": CODE + "# no code\n",
        }
        for name, content in left_out.items():
            put(site, name, content)
        assert sorted(read("python")) == sorted([CODE, CODE + "# good\n"])

    def test_quotes_count_outside_comments_and_docstrings(self):
        text = (
            'def f():\n    """Say\n    "so"."""\n    # it\'s well\n    return "a" + \'b\'  # "c"\n'
        )
        assert python_source.quote_share(text) == pytest.approx(6 / len(text))
        assert python_source.quote_share(CODE) == 0

    def test_python_leaves_out_files_of_fewer_quotes_than_asked(self, site: Path):
        quoting = CODE + "x = 'a', 'b'\n"
        put(site, "pkg/code.py", CODE)
        put(site, "pkg/quoting.py", quoting)
        share = python_source.quote_share(quoting)
        assert read("python", min_quotes=share) == [quoting]
        assert len(read("python", min_quotes=share / 2)) == 1
        assert len(read("python")) == 2

    def test_quotes_are_only_asked_of_python(self, tmp_path: Path):
        with pytest.raises(InputError, match="min_quotes is for the corpus python"):
            DataConfig.of({"corpus": str(tmp_path), "min_quotes": 0.5})

    def test_python_scatters_packages(self, site: Path):
        for package in "ab":
            for i in range(20):
                put(site, f"{package}/m{i}.py", f"{CODE}# {package} {i}\n")
        order = "".join(text.split()[-2] for text in read("python"))
        assert sorted(order) == sorted("a" * 20 + "b" * 20)
        assert "a" * 12 not in order
        assert read("python") == read("python")

    @pytest.mark.slow
    def test_python_is_the_library_and_the_packages_of_this_interpreter(self):
        files = {path.as_posix() for path in corpus_files("python") or []}
        assert any(name.endswith("/argparse.py") for name in files)
        assert any("/pydantic/" in name for name in files)
        names = {name for _, name in python_source.candidate_files()}
        assert not any("/tests/" in name or Path(name).name.startswith("test_") for name in names)
        first = next(documents(DataConfig()))
        assert len(first) >= python_source.MIN_BYTES


@pytest.fixture
def function_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(
        "def three():\n    return ['one', '', 'three']\n"
        "def endless():\n    while True:\n        yield 'again'\n"
        "def numbers():\n    yield 7\n"
        "def half():\n    yield 'a\\ud800'\n"
        "def broken():\n    yield 'one'\n    raise RuntimeError('no more')\n"
    )
    return path


class TestFunctions:
    def test_a_function_yields_documents(self, function_file: Path):
        assert read(f"{function_file}:three") == ["one", "three"]
        assert read(f"{function_file}:endless", max_bytes=12) == ["again", "again", "ag"]
        assert corpus_files(f"{function_file}:three") == [function_file]

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("numbers", "must yield texts, got a value of type int"),
            ("half", "yields half a character"),
            ("broken", "raised RuntimeError: no more"),
            ("thre", "has no function 'thre'; did you mean 'three'"),
        ],
    )
    def test_what_is_wrong_with_a_function_is_one_line(
        self, function_file: Path, name: str, problem: str
    ):
        with pytest.raises(InputError, match=problem) as caught:
            read(f"{function_file}:{name}")
        assert "\n" not in str(caught.value)


class TestMix:
    def test_a_mix_is_scattered_by_its_share_of_the_bytes(
        self, function_file: Path, tmp_path: Path
    ):
        main = tmp_path / "main.jsonl"
        main.write_text('{"text": "0123456789"}\n' * 4)
        mixed = read(main, mix=f"{function_file}:endless", mix_share=1 / 3)
        assert mixed == ["0123456789", "again"] * 4

    def test_the_corpus_goes_on_where_its_mix_ends(self, function_file: Path, tmp_path: Path):
        main = tmp_path / "main.jsonl"
        main.write_text('{"text": "0123456789"}\n' * 3)
        mixed = read(main, mix=f"{function_file}:three")
        assert mixed == ["0123456789", "one", "three", "0123456789", "0123456789"]


class TestMarks:
    def test_a_file_with_marks_is_cut_there(self, tmp_path: Path):
        path = tmp_path / "TinyStories-train.txt"
        path.write_text(
            "\nOnce there was a cat.\nIt sat.\n<|endoftext|>\n\nOnce there was a dog.\r\n"
            "<|endoftext|>\n<|endoftext|>\n  It said <|endoftext|> aloud.\n\n"
            "The end.\n<|endoftext|>"
        )
        assert read(path) == [
            "Once there was a cat.\nIt sat.",
            "Once there was a dog.",
            "It said <|endoftext|> aloud.\n\nThe end.",
        ]

    def test_marked_documents_may_be_longer_than_what_is_read_at_a_time(self, tmp_path: Path):
        stories = ["short", "a line\n" * 20_000 + "x" * 100_000, "last"]
        path = tmp_path / "a.txt"
        path.write_text("\n<|endoftext|>\n".join(stories))
        assert read(path) == stories

    def test_a_mark_inside_a_line_cuts_nothing(self, tmp_path: Path):
        path = tmp_path / "a.py"
        path.write_text("END = 1\nMARK = '<|endoftext|>'\n")
        assert read(path) == ["END = 1\nMARK = '<|endoftext|>'\n"]
