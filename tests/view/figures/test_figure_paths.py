from pathlib import Path

import numpy as np
import pytest
from circuit_maker import make_paths
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from wirework.view import load_page_data, write_figure
from wirework.view.figures.figure_graph import NEGATIVE, POSITIVE
from wirework.view.figures.figure_paths import draw_paths


def test_edges_are_wider_for_larger_effects_and_orange_below_zero(tmp_path: Path) -> None:
    paths = [("0.mlp", "final_resid", 0.4), ("embed", "0.mlp", -0.1), ("embed", "1.mlp", 0.2)]
    axes = Figure().add_subplot()
    draw_paths(axes, load_page_data(make_paths(tmp_path / "c", paths)))
    (drawn,) = axes.collections
    assert [to_hex(c) for c in drawn.get_edgecolor()] == [NEGATIVE, POSITIVE, POSITIVE]
    pixels = [width * 100 / 72 for width in np.atleast_1d(drawn.get_linewidth())]
    assert pixels == pytest.approx([0.5 + 3.5 / 4, 0.5 + 3.5 / 2, 4.0])


def test_inputs_of_a_head_that_nothing_reaches_are_pale(tmp_path: Path) -> None:
    axes = Figure().add_subplot()
    draw_paths(axes, load_page_data(make_paths(tmp_path / "c", [("embed", "1.attn.3.k", 1.0)])))
    written = {text.get_text(): text.get_alpha() for text in axes.texts}
    assert (written["q"], written["k"], written["v"]) == (0.3, 1.0, 0.3)
    assert {"1.attn.3", "embed", "final_resid"} <= set(written)


@pytest.mark.parametrize("edges", [[], [("embed", "0.mlp", None)]])
def test_figure_of_a_head_level_circuit_is_deterministic(
    tmp_path: Path, edges: list[tuple[str, str, float | None]]
) -> None:
    data = load_page_data(make_paths(tmp_path / "c", edges))
    first, second = (write_figure(data, tmp_path / f"{i}.png").read_bytes() for i in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
