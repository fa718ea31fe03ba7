"""The figure of the ablation study: held-out loss and circuit size of each training choice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from wirework.view.checked_file import read_checked
from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_canvas import panels, write_png
from wirework.view.figures.study_file import AblationsResults

_HUE = "#1f6fb4"

JsonRow = Mapping[str, Any]


def write_ablations_figure(folder: str | Path) -> Path:
    """Draw `results.json` of a study's folder as `ablations.png` beside it.

    Raises:
        InputError: the file is missing or damaged, or the folder cannot be written to.
    """
    folder = Path(folder)
    results = read_checked(folder / "results.json", AblationsResults).model_dump()
    return write_png(draw_ablations(results), folder / "ablations.png")


def draw_ablations(results: Mapping[str, Any]) -> Figure:
    """Draw a line for each choice: mean and range over seeds, the base model's range as a band."""
    rows: Sequence[JsonRow] = results["rows"]
    figure, (losses, edges) = panels(2, columns=2, size=(4.6, 1.2 + 0.24 * len(rows)))
    _draw(losses, rows, "val_loss", "held-out loss, nats per token")
    _draw(edges, rows, "edges", f"edges at {results['target_loss']:g} nats, geometric mean")
    edges.set_xscale("log")
    edges.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    edges.xaxis.set_minor_locator(NullLocator())
    edges.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    for place, row in enumerate(rows):
        if row["edges_high"] is not None:
            text = f"  n={row['n_circuits']}"
            edges.annotate(
                text, (row["edges_high"], place), fontsize=7, color=pen.SOFT, va="center"
            )
    losses.set_yticks(range(len(rows)), [row["choice"] for row in rows], fontsize=8)
    edges.set_yticks(range(len(rows)), [""] * len(rows))
    return figure


def _draw(axes: Axes, rows: Sequence[JsonRow], name: str, label: str) -> None:
    base = rows[0]
    if base[name] is not None:
        axes.axvspan(
            base[f"{name}_low"], base[f"{name}_high"], color=pen.SOFT, alpha=0.2, linewidth=0
        )
        axes.axvline(base[name], color=pen.SOFT, linewidth=0.8)
    for place, row in enumerate(rows):
        if row[name] is not None:
            ends = [row[f"{name}_low"], row[f"{name}_high"]]
            axes.plot(ends, [place, place], color=_HUE, linewidth=1.4, marker="|")
            axes.plot([row[name]], [place], color=_HUE, marker="o", markersize=4)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label, fontsize=8, color=pen.INK)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color=pen.SOFT, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
