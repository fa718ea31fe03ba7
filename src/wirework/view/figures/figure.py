"""The circuit as a picture: the same layered graph as the page, for papers and READMEs.

The figure has its own canvas and does not use pyplot's global state.
Units: the layout's pixels, y downward.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from wirework.picture import Picture
from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_canvas import blank, write_png
from wirework.view.figures.figure_graph import (
    AT_TOKEN,
    BEFORE_ANSWER,
    NEGATIVE,
    PAIR,
    POSITIVE,
    RESIDUAL,
    draw_graph,
)
from wirework.view.figures.figure_paths import draw_paths
from wirework.view.visible_text import label, number, plain

_HEADER, _FOOTER, _MARGIN, _MIN_WIDTH = 130.0, 34.0, 16.0, 820.0
_DECIDING = {"color": "#4c545d", "marker": "s", "markersize": 6, "markerfacecolor": "#e6e9ed",
             "markeredgewidth": 1.4, "linewidth": 0}  # fmt: skip
_DPI, _MAX_PIXELS = 200.0, 4000.0

_GROUP_GAP = 14.0
_LONGEST = 20
"""Characters of a model's path."""
_PROMPT_TAIL = 40
"""Characters of an example prompt."""


Kind = tuple[str, dict[str, Any]]
"""A kind of line: what it stands for and how it looks."""


def write_figure(data: dict[str, Any], out_png: str | Path) -> Path:
    """Draw the circuit as a PNG, and return its path.

    Args:
        data: what `load_page_data` returned.
        out_png: written whole or not at all; the same data gives the same bytes.

    Raises:
        InputError: `out_png` cannot be written.
    """
    figure = draw_figure(data)
    longest = max(figure.get_size_inches()) * pen.PIXELS_PER_INCH
    dpi = min(_DPI, _MAX_PIXELS * pen.PIXELS_PER_INCH / longest)
    return write_png(figure, Path(out_png), dpi=dpi)


def draw_figure(data: dict[str, Any]) -> Picture:
    """Draw the circuit of `load_page_data` with its numbers and a legend."""
    layout = data["layout"]
    width = max(layout["width"] + 2 * _MARGIN, _MIN_WIDTH, _header_width(data))
    kinds = _path_kinds() if data["level"] == "head" else _kinds(data)
    columns = max(1, int(width // max(_kind_width(label) for label, _ in kinds)))
    n_lines = math.ceil(len(kinds) / columns)
    footer = _FOOTER * n_lines
    height = layout["height"] + _HEADER + footer
    figure = blank(width / pen.PIXELS_PER_INCH, height / pen.PIXELS_PER_INCH)
    _header(_axes(figure, (0, 0, width, _HEADER), height), data)
    left = (width - layout["width"]) / 2
    graph = _axes(figure, (left, _HEADER, layout["width"], layout["height"]), height)
    if data["level"] == "head":
        draw_paths(graph, data)
    else:
        draw_graph(graph, data)
    _legend(_axes(figure, (0, height - footer, width, footer), height), kinds, n_lines)
    return figure


def _axes(figure: Figure, box: tuple[float, float, float, float], height: float) -> Axes:
    """Return bare axes over a box (left, top, width, height) whose data units are pixels."""
    left, top, across, down = box
    total = figure.get_size_inches()[0] * pen.PIXELS_PER_INCH
    place = (left / total, 1 - (top + down) / height, across / total, down / height)
    axes = figure.add_axes(place, xlim=(0, across), ylim=(down, 0))
    axes.axis("off")
    return axes


def _header(axes: Axes, data: dict[str, Any]) -> None:
    """Write the task, and under it the numbers of the model, the circuit and the losses."""
    pen.write(axes, _MARGIN, 20, plain(data["task"]["name"]), 17, weight="bold")
    every = data["task"]["answers"]
    answers = "answers  " + "   or   ".join(label(text) for text in every[:2])
    if len(every) > 2:
        answers += f"   and {len(every) - 2:,} more"
    pen.write(axes, axes.get_xlim()[1] - _MARGIN, 20, answers, 13, ha="right", family=pen.MONO)
    pen.write(axes, _MARGIN, 44, "   ".join(_examples(data)), 11, color=pen.SOFT, family=pen.MONO)
    x = _MARGIN
    for title, cells in _numbers(data):
        pen.write(axes, x, 71, title, 10.5, weight="bold")
        start = x
        for name, value in cells:
            pen.write(axes, x, 90, name, 10.5, color=pen.SOFT)
            pen.write(axes, x, 107, value, 12.5, weight="bold")
            x += _cell_width(name, value)
        axes.plot([start, x - 18], [80, 80], color="#d9dde2", linewidth=pen.points(1))
        x += _GROUP_GAP


def _examples(data: dict[str, Any]) -> list[str]:
    """Return the ends of the first two example prompts, each with its right answer."""
    texts = data["texts"]
    examples = []
    for prompt in data["prompts"][:2]:
        shown = "".join(texts[token]["shown"] for token in prompt["tokens"]).rpartition("⏎")[2]
        tail = shown if len(shown) <= _PROMPT_TAIL else f"…{shown[1 - _PROMPT_TAIL :]}"
        examples.append(f"{tail} → {texts[prompt['answers'][0]]['label']}")
    return examples


def _cell_width(name: str, value: str) -> float:
    return max(6.0 * len(name), 8.2 * len(value)) + 18


def _header_width(data: dict[str, Any]) -> float:
    groups = _numbers(data)
    cells = sum(_cell_width(*cell) for _, cells in groups for cell in cells)
    return 2 * _MARGIN + cells + _GROUP_GAP * (len(groups) - 1)


def _numbers(data: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the groups of the header: their titles, then names and values."""
    model, losses = data["model"], data["losses"]
    of_model = [
        ("run", _short(model["path"])),
        ("layers", str(model["n_layer"])),
        ("width", str(model["d_model"])),
        ("nonzero", f"{100 * model['n_nonzero'] / model['n_weights']:.3g}%"),
    ]
    if data["level"] == "head":
        of_losses = [("model", number(losses["model"])), ("circuit", number(losses["circuit"]))]
        return [("Model", of_model), *_patched(data), ("Task loss, nats", of_losses)]
    of_circuit = [
        ("nodes", f"{len(data['nodes']):,}"),
        ("edges", "not recorded" if data["n_edges"] is None else f"{data['n_edges']:,}"),
        ("kept edges", f"{len(data['edges']):,}"),
        ("io edges", f"{_n_io(data):,}"),
    ]
    of_losses = [
        ("model", number(losses["model"])),
        ("circuit", number(losses["circuit"])),
        ("calibrated", number(losses["circuit_calibrated"])),
        ("without circuit", number(losses["without_circuit"])),
        ("chance", number(losses["chance"])),
        ("target", number(data["target_loss"])),
    ]
    loss_title = f"Task loss, nats, {data['loss_reduction']} over a pair"
    groups = [("Model", of_model), ("Circuit", of_circuit), (loss_title, of_losses)]
    return groups if data["paper_size"] is None else [*groups, _bisected(data["paper_size"])]


def _bisected(paper_size: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Return the group of the size as the paper measures it."""
    return "Bisection alone (the paper's size)", [
        ("nodes", f"{paper_size['n_nodes']:,}"),
        ("edges", f"{paper_size['n_edges']:,}"),
        ("loss", number(paper_size["task_loss"])),
        ("calibrated", number(paper_size["task_loss_calibrated"])),
    ]


def _short(path: str | None) -> str:
    """Return the end of a path, of a length that a header has room for."""
    text = plain(path or "n/a")
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"


def _patched(data: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the groups of results of path edges, few enough for a narrow picture."""
    patching = data["patching"]
    of_circuit = [
        ("path edges", f"{len(data['path_edges']):,}"),
        ("of", f"{patching['n_all']:,}"),
        ("tau", number(patching["tau"])),
        ("KL", number(patching["kl"])),
        ("logit diff", number(patching["logit_difference"])),
        ("accuracy", number(patching["accuracy"])),
    ]
    of_model = [
        ("logit diff", number(patching["model_logit_difference"])),
        ("accuracy", number(patching["model_accuracy"])),
    ]
    return [("Circuit", of_circuit), ("Whole model", of_model)]


def _n_io(data: dict[str, Any]) -> int:
    folded = sum(len(entry["entries"]) for entry in data["folded"])
    return len(data["in_edges"]) + len(data["out_edges"]) + folded


def _kind_width(label: str) -> float:
    return 6.4 * len(label) + 64


def _legend(axes: Axes, kinds: Sequence[Kind], n_lines: int) -> None:
    lines = [Line2D([], [], label=label, **style) for label, style in kinds]
    axes.legend(
        handles=lines,
        loc="center",
        ncols=math.ceil(len(lines) / n_lines),
        frameon=False,
        prop=FontProperties(family=pen.SANS, size=pen.points(11)),
        labelcolor=pen.SOFT,
        handlelength=2.4,
    )


def _named(fill: str) -> dict[str, Any]:
    """Return the look of a named node's box in the legend."""
    return {**_DECIDING, "markersize": 7, "markerfacecolor": fill, "markeredgewidth": 0.8}


def _path_kinds() -> list[Kind]:
    return [
        ("worse without it (thicker: more)", {"color": POSITIVE, "linewidth": 2}),
        ("better without it", {"color": NEGATIVE, "linewidth": 2}),
    ]


def _kinds(data: dict[str, Any]) -> list[Kind]:
    kinds: list[Kind] = [
        ("positive weight", {"color": POSITIVE, "linewidth": 2}),
        ("negative weight (thicker: larger)", {"color": NEGATIVE, "linewidth": 2}),
    ]
    if data["residual_links"]:
        dashed = {"color": RESIDUAL, "linewidth": 1, "linestyle": (0, (3, 3))}
        kinds.append(("same residual channel", dashed))
    if any(head["pairs"] for head in data["heads"]):
        kinds.append(("q meets k", {"color": PAIR, "linewidth": 0.8}))
    if any(entry["deciding"] for entry in data["inputs"]):
        kinds.append(("prompts of a pair differ in it", _DECIDING))
    if any(node["active_at"] for node in data["nodes"]):
        kinds.append(("active at these tokens", _named(AT_TOKEN)))
    if any(node["active_before"] for node in data["nodes"]):
        kinds.append(("active before this answer", _named(BEFORE_ANSWER[0])))
    if data["share_runs"]:
        pale = {"color": POSITIVE, "linewidth": 2, "alpha": 0.35}
        kinds.append(("paler: rarely found again", pale))
    return kinds
