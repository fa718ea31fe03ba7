"""Tables on standard output: nothing is cut off, and no word is broken that there is room for."""

import pytest

from wirework.commands.printing import changed_flags, print_table, print_values, show_rows


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The cells of each line that has some."""
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 120
    rows = [line.replace("┃", "│").strip("│").split("│") for line in printed if line[0] in "│┃"]
    return [[cell.strip() for cell in row] for row in rows]


def test_columns_that_do_not_fit_a_line_become_several_tables(capsys):
    names = [f"heading{i}_of_thirty" for i in range(30)]
    print_table("wide", ["model", *names], [["plain", *(str(i) for i in range(30))]])
    found = lines(capsys)
    words = [word for line in found for cell in line for word in cell.split()]
    assert [word for word in words if word.startswith("h")] == [f"heading{i}" for i in range(30)]
    tables = [line for line in found if line[0] == "plain"]
    assert len(tables) > 1
    assert [cell for line in tables for cell in line[1:]] == [str(i) for i in range(30)]


def test_a_table_of_nothing_is_its_title(capsys):
    show_rows("nothing", [], as_json=False)
    assert capsys.readouterr().out.strip() == "nothing"


def test_long_cells_give_way_before_words_break(capsys):
    text = "several words that are too much for a line " * 5
    print_table("long", ["name", "text", "score"], [["an_unbroken_name", text, "0.123456"]])
    found = lines(capsys)
    assert [line[0] for line in found if line[0]] == ["name", "an_unbroken_name"]
    assert [line[2] for line in found if line[2]] == ["score", "0.123456"]
    assert " ".join(line[1] for line in found[1:]).split() == text.split()


def test_a_table_of_long_words_ends_at_its_border(capsys):
    columns = [f"heading {i}" for i in range(8)]
    show_rows("t", [dict.fromkeys(columns, "several words_of_a_length a b")] * 2, as_json=False)
    drawn = [line for line in capsys.readouterr().out.splitlines() if line.strip() != "t"]
    assert {line[-1] for line in drawn} <= set("┓┩┫┛│┐┤┘┃")


def test_a_word_longer_than_a_line_is_broken_and_whole(capsys):
    path = "/".join(["folder"] * 30)
    show_rows("paths", [{"model": path, "loss": 1.5}], as_json=False)
    found = lines(capsys)
    assert "".join(line[0] for line in found[1:]) == path
    assert "1.5" in [line[1] for line in found]


def test_no_text_is_read_as_markup(capsys):
    names = {"data[old]": "data[/v1]", "[bold]x[/bold]": "[red]"}
    show_rows("title [/of] a [table]", [names], as_json=False)
    printed = capsys.readouterr().out
    assert "title [/of] a [table]" in printed
    assert all(text in printed for pair in names.items() for text in pair)
    show_rows("[/nothing]", [], as_json=False)
    assert capsys.readouterr().out == "[/nothing]\n"


def test_a_path_with_the_name_of_a_number_has_no_meaning(capsys: pytest.CaptureFixture[str]):
    print_values("demo", [("circuit", 0.127), ("folder.circuit", "runs/circuits/quote")])
    number, path = [line for line in capsys.readouterr().out.splitlines() if "circuit" in line]
    assert "lower is better" in number
    assert "lower is better" not in path


def test_changed_settings_become_flags_that_the_command_takes():
    defaults = {"steps": 3, "on": True, "off": False, "names": ("a",), "level": "x", "a.b_c": 1}
    assert changed_flags(defaults, defaults) == []
    values = {"steps": 4, "on": False, "off": True, "names": (), "level": None, "a.b_c": 2}
    assert changed_flags(values, defaults) == [
        "--steps", "4", "--no-on", "--off", "--empty-names", "--level", "none", "--a.b-c", "2",
    ]  # fmt: skip
    assert changed_flags({"names": ("b", "c")}, defaults) == ["--names", "b", "c"]
