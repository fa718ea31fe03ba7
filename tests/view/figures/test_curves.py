from pathlib import Path
from typing import Any

import pytest

from wirework.errors import InputError
from wirework.view import write_curves


def beside(p: float) -> dict[str, Any]:
    measure = {"p": p, "p_se": 0.02}
    return {"before": {"p": 0.9, "p_se": 0.01}, "attacked": measure, "control": measure, "fall": 0}


def result(n_attacks: int, task: str = "brackets", answer: str = "]") -> dict[str, Any]:
    points = [
        {
            "attack": f"`{answer}` in a comment, {number}",
            "strength": strength,
            "side": number % 2,
            "before_tokens": 20.0,
            "tokens": 20.0 + strength,
            "control_tokens": 19.5 + strength,
            "model": {**beside(0.9 / strength), "fall": 0.9 - 0.9 / strength},
            "circuit": beside(0.8 / strength),
        }
        for number in range(n_attacks)
        for strength in (1, 2, 4)
    ]
    return {"task": task, "answers": [answer, "]]"], "points": points}


@pytest.mark.parametrize("n_attacks", [1, 12])
def test_few_and_many_attacks(n_attacks: int, tmp_path: Path) -> None:
    first = write_curves(result(n_attacks), tmp_path / "a.png")
    assert first.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert first.read_bytes() == write_curves(result(n_attacks), tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("token", ["$x^2$", "中文", "\U0001f642", "$\\nonsense{$", "_$_"])
def test_any_token_is_drawn_without_a_warning(token: str, tmp_path: Path) -> None:
    assert write_curves(result(2, f"a{token}", token), tmp_path / "a.png").stat().st_size


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_curves(result(1), tmp_path / "file" / "a.png")
