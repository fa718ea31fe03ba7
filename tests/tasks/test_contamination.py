from pathlib import Path

import pytest

from wirework.config import DataConfig
from wirework.errors import InputError
from wirework.tasks import Pair, Task
from wirework.tasks.contamination import contamination, skeleton

PAIR = Pair(("import os\nsize = 3\nfor name", "import os\nsize = 3\nwhile name"), (" in", ":"))
TASK = Task("loops", (PAIR,))


def shares(text: str, folder: Path, task: Task = TASK) -> tuple[float, ...]:
    """Return the shares exact, up to names, window and last line for a corpus of one text."""
    path = folder / "corpus"
    path.mkdir(exist_ok=True)
    (path / "a.py").write_text(text)
    (row,) = contamination(str(path), [task]).tasks
    return row.exact, row.up_to_names, row.window, row.last_line


def test_a_prompt_in_the_text_is_found_by_all_measures(tmp_path: Path) -> None:
    text = "x = 1\nimport os\nsize = 3\nfor name in names:\n    pass\n"
    assert shares(text, tmp_path) == (0.5, 0.5, 0.5, 0.5)


def test_a_prompt_that_ends_in_a_line_break_is_found(tmp_path: Path) -> None:
    pair = Pair(("import os\nfor a in b:\n", "import os\nwhile a in b:\n"), ("    ", "   "))
    text = "import os\nfor a in b:\n    print(a)\n"
    assert shares(text, tmp_path, Task("indent", (pair,))) == (0.5, 0.5, 0.5, 0.5)


def test_a_tab_is_found_as_four_spaces(tmp_path: Path) -> None:
    pair = Pair(("if a:\n    b = 1\n    c", "if a:\n    b = 1\n    d"), (" =", "("))
    text = "if a:\r\n\tb = 1\r\n\tc = 2\r\n"
    assert shares(text, tmp_path, Task("tabs", (pair,))) == (0.5, 1, 0.5, 0.5)


def test_a_prompt_of_white_space_is_not_found(tmp_path: Path) -> None:
    task = Task("spaces", (Pair((" ", "\n"), ("a", "b")),))
    assert shares("x = 1\n", tmp_path, task) == (0, 0, 0, 0)


def test_other_names_and_numbers_are_found_up_to_names_only(tmp_path: Path) -> None:
    text = "import re\ntotal = 25\nfor user in users:\n    pass\n"
    assert shares(text, tmp_path) == (0, 0.5, 0, 0)


def test_the_last_eight_tokens_are_a_window(tmp_path: Path) -> None:
    # Of `import os \n size = 3 \n for name`, the window begins at `os`.
    text = "from os\nsize = 3\nfor name in names:\n    pass\n"
    assert shares(text, tmp_path) == (0, 0, 0.5, 0.5)


def test_a_last_line_counts_at_the_beginning_of_a_line(tmp_path: Path) -> None:
    assert shares("x = 1\n    while name:\n", tmp_path)[3] == 0.5
    assert shares("x = [y for name in names]\n", tmp_path)[3] == 0


def test_a_prompt_is_not_found_across_documents(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    path.mkdir()
    (path / "a.py").write_text("import os\nsize = 3")
    (path / "b.py").write_text("for name in names: pass")
    (row,) = contamination(str(path), [TASK]).tasks
    assert (row.exact, row.up_to_names, row.window) == (0, 0, 0)


def test_an_open_string_matches_a_closed_one_up_to_names() -> None:
    assert skeleton("print('a b") == skeleton('print("c")')[:-1] == ["N", "(", "'"]
    assert skeleton("x = f'{y}' # z\n  if 3.5:") == ["N", "=", "'", "#", "\n  ", "if", "0", ":"]


def test_a_plain_search_agrees_on_real_source(tmp_path: Path) -> None:
    text = Path(skeleton.__code__.co_filename).read_text()
    lines = text.splitlines()
    prompts = ["\n".join(lines[i : i + 3]) for i in range(0, len(lines) - 3, 7)]
    prompts = [prompt for prompt in dict.fromkeys(prompts) if prompt.strip() == prompt]
    wrong = [prompt + " nowhere" for prompt in prompts]
    task = Task("lines", tuple(Pair(pair, ("a", "b")) for pair in zip(prompts, wrong, strict=True)))
    assert shares(text, tmp_path, task)[0] == 0.5


def test_programs_contain_no_prompt_of_any_task() -> None:
    report = contamination("programs", max_bytes=600_000)
    assert report.n_bytes == 600_000
    assert len(report.tasks) == 20
    for row in report.tasks:
        assert (row.exact, row.up_to_names) == (0, 0), row.task
    assert not report.contained


def test_practice_texts_contain_prompts() -> None:
    settings = DataConfig(corpus="wirework.tasks:quote_practice_texts", max_bytes=400_000)
    report = contamination(settings, ["single_double_quote"])
    assert report.contained["single_double_quote"] > 0
    assert report.tasks[0].exact == 0


def test_a_missing_corpus_is_refused() -> None:
    with pytest.raises(InputError, match="does not exist"):
        contamination("nowhere", [TASK])
    with pytest.raises(InputError, match="corpus"):
        contamination("", [TASK])


def test_a_size_below_one_byte_is_refused() -> None:
    for corpus in ("programs", DataConfig(corpus="programs")):
        with pytest.raises(InputError, match="max_bytes must be at least 1, got 0"):
            contamination(corpus, [TASK], max_bytes=0)
