import struct
from pathlib import Path

import pytest
from circuit_maker import edit_document, make_circuit, make_paths, with_shares
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from wirework.errors import InputError
from wirework.view import load_page_data, write_figure
from wirework.view.figures.figure import draw_figure
from wirework.view.figures.figure_graph import draw_graph


def size_of(png: Path) -> tuple[int, int]:
    content = png.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


class TestWriteFigure:
    def test_figure_has_the_layout_s_size_and_is_deterministic(
        self, circuit: Path, tmp_path: Path
    ) -> None:
        data = load_page_data(circuit)
        first = write_figure(data, tmp_path / "a.png")
        second = write_figure(data, tmp_path / "b.png")
        assert first.read_bytes() == second.read_bytes()
        width, height = size_of(first)
        layout = data["layout"]
        assert width >= 2 * max(layout["width"] + 32, 820) - 2
        assert height in [
            pytest.approx(2 * (layout["height"] + 164 + more), abs=2) for more in (0, 34)
        ]

    def test_figure_draws_any_token_without_a_warning(self, tmp_path: Path) -> None:
        tokens = ("$x^2$", "中文", "\U0001f642", "$\\nonsense{$", "</script>", "\ufffd")
        path = make_circuit(
            tmp_path / "c", n_nodes=6, n_io=40, extra_tokens=tokens, task="$a_b$ 中"
        )
        assert size_of(write_figure(load_page_data(path), tmp_path / "f.png"))

    @pytest.mark.parametrize("n_nodes", [3, 200])
    def test_figure_of_tiny_and_large_circuits(self, tmp_path: Path, n_nodes: int) -> None:
        path = make_circuit(tmp_path / "c", n_nodes=n_nodes, n_edges=5 * n_nodes, n_prompts=2)
        assert max(size_of(write_figure(load_page_data(path), tmp_path / "f.png"))) <= 4000

    def test_figure_says_when_it_cannot_be_written(self, circuit: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot write"):
            write_figure(load_page_data(circuit), tmp_path / "file" / "f.png")


class TestDrawGraph:
    def test_what_searches_rarely_found_is_paler(self, circuit: Path, tmp_path: Path) -> None:
        plain = load_page_data(circuit)
        pale = load_page_data(with_shares(circuit, 4))
        axes = [Figure().add_subplot(), Figure().add_subplot()]
        for one, data in zip(axes, (plain, pale), strict=True):
            draw_graph(one, data)
        n_edges = len(plain["edges"])
        drawn = [[c for c in one.collections if len(c.get_paths()) == n_edges] for one in axes]
        full, some = ({round(to_rgba(c)[3], 3) for c in one.get_edgecolor()} for (one,) in drawn)
        (most,) = full
        assert sorted(some) == pytest.approx([most * x for x in (0.2, 0.4, 0.6, 0.8, 1)], abs=0.001)

    def test_tokens_that_decide_have_a_thick_border(self, circuit: Path) -> None:
        data = load_page_data(circuit)
        for entry in data["inputs"]:
            entry["deciding"] = False
        data["inputs"][1]["deciding"] = True
        axes = Figure().add_subplot()
        draw_graph(axes, data)
        pills = [patch for patch in axes.patches if patch.get_facecolor()[:3] == to_rgb("#e6e9ed")]
        widths = [pill.get_linewidth() for pill in pills][: len(data["inputs"])]
        assert [width > min(widths) for width in widths] == [i == 1 for i in range(len(widths))]


PAPER = {
    "n_nodes": 321, "n_edges": 5678, "task_loss": 0.1494, "task_loss_calibrated": 0.1313,
    "held_out_loss": 0.1525, "held_out_loss_calibrated": 0.1387,
}  # fmt: skip


def texts_of(figure: Figure) -> list[Text]:
    return [text for axes in figure.axes for text in axes.findobj(Text) if text.get_text()]


class TestDrawFigure:
    @pytest.mark.parametrize("level", ["node", "head"])
    def test_header_and_legend_lie_inside_the_picture(self, level: str, tmp_path: Path) -> None:
        make = make_circuit if level == "node" else make_paths
        data = load_page_data(make(tmp_path / "c"))
        data["model"]["path"] = "a/very/long/path/to/a/run/somewhere"
        for entry in data["inputs"]:
            entry["deciding"] = True
        figure = draw_figure(data)
        figure.canvas.draw()
        for text in texts_of(figure):
            box = text.get_window_extent()
            assert box.x0 >= 0, text.get_text()
            assert box.x1 <= figure.bbox.x1, text.get_text()

    def test_both_counts_of_edges_and_the_size_of_the_paper_are_in_the_header(
        self, tmp_path: Path
    ) -> None:
        made = make_circuit(tmp_path / "c", n_nodes=12, n_edges=20)
        data = load_page_data(made)
        n_kept = len(data["edges"])
        written = {text.get_text() for text in texts_of(draw_figure(data))}
        assert {"edges", "not recorded", "kept edges", str(n_kept)} <= written
        changes = {"n_edges": 1234, "n_kept_edges": n_kept, "paper_size": PAPER}
        edit_document(made, loss_reduction="sum", **changes)
        figure = draw_figure(load_page_data(made))
        written = {text.get_text() for text in texts_of(figure)}
        assert {"1,234", str(n_kept), "5,678", "0.1494", "0.1313"} <= written
        assert {"Task loss, nats, sum over a pair", "Bisection alone (the paper's size)"} <= written
        figure.canvas.draw()
        assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in texts_of(figure))

    @pytest.mark.parametrize("level", ["node", "head"])
    def test_the_picture_names_model_and_task_loss(self, level: str, tmp_path: Path) -> None:
        make = make_circuit if level == "node" else make_paths
        written = {
            text.get_text() for text in texts_of(draw_figure(load_page_data(make(tmp_path / "c"))))
        }
        assert {
            "single_double_quote",
            "runs/demo",
            "Task loss, nats, mean over a pair" if level == "node" else "Task loss, nats",
            "0.0123",
            "0.1462",
        } <= written
