"""Figures of validation: the necessity curve of a circuit, and binarisation of many models.

Figure numbers are those of Gao et al. 2025.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wirework.errors import InputError, number_of
from wirework.view.checked_file import read_checked
from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_canvas import panels, write_png
from wirework.view.figures.study_file import BinariseResults

_HUES = ("#1f6fb4", "#2a9d6f", "#7b4fa3", "#b8902a", "#c23b6a", "#4c5b6b")
_CIRCUIT, _RANDOM = _HUES[0], "#c2571a"
_SIZE = (6.4, 4.8)  # inches of a panel
_CHANCE = 0.6931

JsonRow = Mapping[str, Any]


def write_necessity_figure(report: Mapping[str, Any], out_png: str | Path) -> Path:
    """Draw the necessity curve of a circuit as a PNG, and return its path.

    Args:
        report: the JSON of a `ValidationReport`.
        out_png: written whole or not at all; the same report gives the same bytes.

    Raises:
        InputError: the report has no curve, or `out_png` cannot be written.
    """
    curve = report.get("necessity")
    if curve is None or "reason" in curve:
        reason = "it is of a short report" if curve is None else curve["reason"]
        raise InputError(f"the report has no necessity curve to draw: {reason}")
    return write_png(draw_necessity(report), Path(out_png))


def draw_necessity(report: Mapping[str, Any]) -> Figure:
    """Draw Fig. 32: task loss of the model against the number of ablated nodes of the circuit.

    The second line is for as many random nodes outside the circuit: the mean over draws, and the
    highest loss as the upper edge of the band.
    """
    curve = report["necessity"]
    figure, (axes,) = panels(1, size=_SIZE)
    counts = curve["n_ablated"]
    axes.plot(counts, curve["circuit"], color=_CIRCUIT, marker="o", markersize=4, label="circuit")
    drawn = [n for n, loss in zip(counts, curve["random"], strict=True) if loss is not None]
    means = [loss for loss in curve["random"] if loss is not None]
    highest = [loss for loss in curve["random_highest"] if loss is not None]
    label = f"random nodes outside it, mean and highest of {curve['n_draws']} draws"
    axes.plot(drawn, means, color=_RANDOM, marker="s", markersize=4, label=label)
    axes.fill_between(drawn, means, highest, color=_RANDOM, alpha=0.2, linewidth=0)
    _chance(axes, report)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _dress(
        axes,
        f"Necessity: {report['task']}",
        f"{number_of(curve['n_pairs'], 'held-out pair')}; first: {curve['order']}",
    )
    axes.set_xlabel("ablated nodes", color=pen.INK)
    axes.set_ylabel("task loss of the model without them, nats", color=pen.INK)
    axes.legend(frameon=False, fontsize=8)
    return figure


def write_binarise_figure(folder: str | Path) -> Path:
    """Draw `results.json` of a study of binarisation as `binarise.png` beside it.

    Raises:
        InputError: the file is missing or damaged, or the folder cannot be written to.
    """
    folder = Path(folder)
    results = read_checked(folder / "results.json", BinariseResults).model_dump()
    return write_png(draw_binarise(results), folder / "binarise.png")


def draw_binarise(results: Mapping[str, Any]) -> Figure:
    """Draw Fig. 34: mean task loss after binarisation against total parameters and against L0.

    Lines connect models of equal L0 (left) and of equal total parameters (right), to two digits.
    Losses are means over the tasks that all models have; without such a task, over all circuits.
    """
    rows = results["models"]
    is_shared = all(row["shared_loss"] is not None for row in rows)
    name = "shared_loss" if is_shared else "loss"
    figure, (left, right) = panels(2, size=_SIZE)
    _lines(left, rows, "n_weights", name, lambda row: _rounded(row["n_nonzero"]), "L0")
    _lines(right, rows, "n_nonzero", name, lambda row: _rounded(row["n_weights"]), "parameters")
    tasks = number_of(rows[0]["n_shared"], "shared task") if is_shared and rows else "all circuits"
    for axes, label in ((left, "total parameters"), (right, "nonzero weights (L0)")):
        axes.set_xscale("log")
        axes.set_xlabel(label, color=pen.INK)
        _chance(axes, rows[0] if rows else {})
        axes.legend(frameon=False, fontsize=7)
    left.set_ylabel("mean task loss after binarisation, nats", color=pen.INK)
    _dress(left, "Binarisation against total parameters", f"held-out pairs, mean over {tasks}")
    _dress(right, "Binarisation against L0", "")
    return figure


def _lines(
    axes: Axes,
    rows: Sequence[JsonRow],
    x: str,
    y: str,
    group_of: Callable[[JsonRow], float],
    title: str,
) -> None:
    """Plot rows as one line for each group, ordered along x."""
    groups = sorted({group_of(row) for row in rows})
    for number, group in enumerate(groups):
        line = sorted((row for row in rows if group_of(row) == group), key=lambda row: row[x])
        axes.plot(
            [row[x] for row in line],
            [row[y] for row in line],
            marker="o",
            color=_HUES[number % len(_HUES)],
            label=f"{title} {group:,.0f}",
        )


def _rounded(value: float) -> float:
    """Return a number to two significant digits."""
    return float(f"{value:.1e}")


def _chance(axes: Axes, about: JsonRow) -> None:
    """Draw the loss of a guess: ln 2, or 2 ln 2 where the losses are sums over a pair's prompts."""
    loss = _CHANCE * (2 if about.get("loss_reduction") == "sum" else 1)
    axes.axhline(loss, color=pen.SOFT, linestyle=":", linewidth=1, label="chance")


def _dress(axes: Axes, title: str, under: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontsize=11, fontweight="bold", color=pen.INK)
    axes.text(
        0, 1.02, under, transform=axes.transAxes, fontsize=8, color=pen.SOFT, parse_math=False
    )
    axes.spines[["top", "right"]].set_visible(False)
