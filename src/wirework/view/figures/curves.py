"""P(correct) against the length of the prompt, one line per attack (Gao et al. 2025, Fig. 8).

The figure has its own canvas and does not use pyplot's global state.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from wirework.errors import number_of
from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_canvas import blank, write_png
from wirework.view.visible_text import quoted_label

_COLOURS = ("#2171b5", "#d95f02", "#1b9e77", "#7b3294", "#a6761d", "#e7298a", "#444444", "#66a61e")
_MOST = len(_COLOURS)
_DPI = 200
_DASHES = (0, (4, 3))


def write_curves(result: dict[str, Any], out_png: str | Path) -> Path:
    """Draw the curves of a model's attacks, and of its circuit alone, as a PNG; return its path.

    A solid line is an attack, with standard errors, on the prompts whose answer it changes. The
    dashed line of the same colour is the control: the same prompts lengthened by neutral code. At
    most eight attacks are drawn, those with the largest effect on the model. All are measured on
    the pairs that choose the worst attack, as the picture says.

    Args:
        result: the JSON of `AttackReport.to_json`.
        out_png: the file, written whole or not at all; the same result gives the same bytes.

    Raises:
        InputError: `out_png` cannot be written.
    """
    figure = blank(10, 5.6, constrained=True)
    lines = _lines(result["points"])
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    _draw(left, lines, "model", f"{result['task']}: whole model")
    _draw(right, lines, "circuit", "circuit alone")
    if "n_choosing" in result:
        note = (
            f"tokens of the prompt; the {number_of(result['n_choosing'], 'pair')} that "
            f"choose the worst attack"
        )
        for axes in (left, right):
            axes.set_xlabel(note, parse_math=False)
    left.set_ylabel("P(correct), mean and standard error", parse_math=False)
    _legend(figure, lines, result["answers"])
    return write_png(figure, Path(out_png), dpi=_DPI)


Line = Sequence[dict[str, Any]]
"""The points of one attack, by strength."""


def _lines(points: Sequence[dict[str, Any]]) -> list[Line]:
    """Return the points of each attack, the attack with the largest effect first."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        by_name.setdefault(point["attack"], []).append(point)
    worst = sorted(by_name.values(), key=lambda line: -max(p["model"]["fall"] for p in line))
    return [sorted(line, key=lambda p: p["strength"]) for line in worst[:_MOST]]


def _draw(axes: Axes, lines: Sequence[Line], subject: str, title: str) -> None:
    for line, colour in zip(lines, _COLOURS, strict=False):
        first = line[0]
        start = first[subject]["before"]
        x = [first["before_tokens"], *(point["tokens"] for point in line)]
        measured = [start, *(point[subject]["attacked"] for point in line)]
        y, errors = ([measure[name] for measure in measured] for name in ("p", "p_se"))
        axes.errorbar(x, y, errors, color=colour, marker="o", markersize=3, linewidth=1.5)
        x = [first["before_tokens"], *(point["control_tokens"] for point in line)]
        y = [start["p"], *(point[subject]["control"]["p"] for point in line)]
        axes.plot(x, y, color=colour, linewidth=0.9, linestyle=_DASHES)
    axes.axhline(0.5, color=pen.SOFT, linewidth=0.7, linestyle=":")
    axes.set_ylim(-0.03, 1.03)
    axes.set_title(pen.legible(title, pen.SANS), fontsize=11, parse_math=False)
    axes.set_xlabel("tokens of the prompt", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, lines: Sequence[Line], answers: Sequence[str]) -> None:
    handles = [
        Line2D([], [], color=colour, label=_label(line[0], answers))
        for line, colour in zip(lines, _COLOURS, strict=False)
    ]
    dashed = Line2D([], [], color=pen.SOFT, linestyle=_DASHES, linewidth=0.9)
    dashed.set_label("neutral code of the same length")
    handles.append(dashed)
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        prop=FontProperties(family=pen.SANS, size=9),
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _label(point: dict[str, Any], answers: Sequence[str]) -> str:
    return pen.legible(
        f"{point['attack']} (turns {quoted_label(answers[point['side']])})", pen.SANS
    )
