from pathlib import Path
from typing import Any

import pytest

from wirework.errors import InputError
from wirework.files import write_json
from wirework.view.figures.figure_validation import (
    draw_binarise,
    draw_necessity,
    write_binarise_figure,
    write_necessity_figure,
)


def report() -> dict[str, Any]:
    return {
        "task": "quotes",
        "necessity": {
            "order": "worst first", "n_pairs": 32, "n_draws": 4, "n_ablated": [0, 2, 4],
            "circuit": [0.1, 0.9, 2.0], "random": [0.1, 0.2, None],
            "random_highest": [0.1, 0.3, None],
        },
    }  # fmt: skip


def model(n_weights: int, n_nonzero: int, loss: float, shared: float | None) -> dict[str, Any]:
    return {
        "model": f"runs/{n_weights}", "n_weights": n_weights, "n_nonzero": n_nonzero,
        "n_circuits": 2, "circuit": 0.1, "start": 0.4, "loss": loss, "n_shared": 1,
        "shared_loss": shared,
    }  # fmt: skip


class TestNecessityFigure:
    def test_both_lines_are_drawn_where_they_were_measured(self) -> None:
        (axes,) = draw_necessity(report()).axes
        circuit, random, chance = axes.lines
        assert list(circuit.get_xdata()) == [0, 2, 4]
        assert list(circuit.get_ydata()) == [0.1, 0.9, 2.0]
        assert list(random.get_xdata()) == [0, 2]
        assert list(random.get_ydata()) == [0.1, 0.2]
        assert list(chance.get_ydata()) == pytest.approx([0.693] * 2, abs=1e-3)
        assert "32 held-out pairs; first: worst first" in {text.get_text() for text in axes.texts}

    def test_chance_is_twice_as_high_for_sums(self) -> None:
        (axes,) = draw_necessity(report() | {"loss_reduction": "sum"}).axes
        assert list(axes.lines[-1].get_ydata()) == pytest.approx([1.386] * 2, abs=1e-3)

    def test_the_same_report_gives_the_same_bytes(self, tmp_path: Path) -> None:
        paths = [write_necessity_figure(report(), tmp_path / f"{n}.png") for n in (1, 2)]
        first, second = (path.read_bytes() for path in paths)
        assert first == second
        assert len(first) > 10_000

    @pytest.mark.parametrize(
        ("entry", "reason"), [(None, "short report"), ({"reason": "an empty circuit"}, "an empty")]
    )
    def test_a_report_without_a_curve_is_an_error(
        self, entry: dict[str, str] | None, reason: str, tmp_path: Path
    ) -> None:
        values = {"task": "quotes"} if entry is None else {"task": "quotes", "necessity": entry}
        with pytest.raises(InputError, match=f"no necessity curve to draw: .*{reason}"):
            write_necessity_figure(values, tmp_path / "a.png")
        assert not list(tmp_path.iterdir())


class TestBinariseFigure:
    def test_models_of_equal_l0_and_of_equal_size_are_lines(self) -> None:
        rows = [
            model(1000, 100, 0.5, 0.4), model(4000, 101, 0.3, 0.2), model(4000, 400, 0.2, 0.1),
        ]  # fmt: skip
        left, right = draw_binarise({"models": rows}).axes
        lines = [(list(x.get_xdata()), list(x.get_ydata()), x.get_label()) for x in left.lines]
        assert lines[:2] == [
            ([1000, 4000], [0.4, 0.2], "L0 100"), ([4000], [0.1], "L0 400"),
        ]  # fmt: skip
        lines = [(list(x.get_xdata()), list(x.get_ydata()), x.get_label()) for x in right.lines]
        assert lines[:2] == [
            ([100], [0.4], "parameters 1,000"), ([101, 400], [0.2, 0.1], "parameters 4,000"),
        ]  # fmt: skip

    def test_without_a_shared_task_all_circuits_are_shown(self) -> None:
        rows = [model(1000, 100, 0.5, None), model(4000, 100, 0.3, None)]
        left, _ = draw_binarise({"models": rows}).axes
        assert list(left.lines[0].get_ydata()) == [0.5, 0.3]

    def test_it_is_written_beside_the_results_and_damage_is_named(self, tmp_path: Path) -> None:
        write_json(tmp_path / "results.json", {"models": [model(1000, 100, 0.5, 0.4)]})
        assert write_binarise_figure(tmp_path) == tmp_path / "binarise.png"
        write_json(tmp_path / "results.json", {"models": [{"model": "a"}]})
        with pytest.raises(InputError, match=r"results\.json.*n_weights"):
            write_binarise_figure(tmp_path)
