"""docs/glossary.md names files and names that are there, and each term once."""

import re
from pathlib import Path

from present import present

ROOT = Path(__file__).parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| term ")
]


def test_every_row_has_four_cells() -> None:
    assert [row for row in ROWS if len(row) != 4 or not all(row)] == []


def test_every_term_stands_once() -> None:
    terms = [term for row in ROWS for term in row[0].split(", ")]
    assert [term for term in set(terms) if terms.count(term) > 1] == []


def test_every_name_is_in_its_file() -> None:
    wrong = []
    for term, _, _, place in ROWS:
        if place == "none":
            continue
        file, name = present(re.fullmatch(r"`([\w/.]+)`: `(\w+)`", place)).groups()
        path = ROOT / "src" / "wirework" / file
        if not path.is_file() or not re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")):
            wrong.append((term, place))
    assert wrong == []
