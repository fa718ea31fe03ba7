"""The worked examples of CONTRIBUTING.md run."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_example_runs(number: int) -> None:
    exec(compile(BLOCKS[number], f"{PAGE.name}, block {number + 1}", "exec"), {})


def test_every_file_it_names_exists() -> None:
    root = PAGE.parent
    named = re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", PAGE.read_text(encoding="utf-8"))
    missing = [p for p in named if not any((r / p).exists() for r in (root, root / "src/wirework"))]
    assert not missing
