"""Figure of the faithfulness curves of a study of finders, drawn from `finders.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from wirework.view.checked_file import read_checked
from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_canvas import panels, write_png
from wirework.view.figures.study_file import FinderResults

_HUES = ("#1f6fb4", "#2a9d6f", "#7b4fa3", "#b8902a", "#c23b6a", "#4c5b6b")
_STYLES = ("-", "--", "-.", ":")

JsonRow = Mapping[str, Any]


def write_faithfulness_figure(folder: str | Path) -> Path:
    """Draw the curves in `finders.json` of a study's folder as `faithfulness.png` beside it.

    Raises:
        InputError: the file is missing or damaged, or the folder cannot be written to.
    """
    folder = Path(folder)
    results = read_checked(folder / "finders.json", FinderResults).model_dump()
    return write_png(draw_faithfulness(results), folder / "faithfulness.png")


def draw_faithfulness(results: Mapping[str, Any]) -> Figure:
    """Draw faithfulness against the kept nodes, a line for each ranking: its mean over the tasks.

    Learned masks have a line for each target loss.
    """
    figure, (axes,) = panels(1, size=(6.4, 4.8))
    by_ranking: dict[tuple[str, float | None], list[JsonRow]] = {}
    for curve in results["curves"]:
        by_ranking.setdefault((curve["finder"], curve["target_loss"]), []).append(curve)
    finders = list(dict.fromkeys(finder for finder, _ in by_ranking))
    targets = list(dict.fromkeys(target for _, target in by_ranking if target is not None))
    for (finder, target), curves in by_ranking.items():
        style = "-" if target is None else _STYLES[targets.index(target) % len(_STYLES)]
        axes.plot(
            curves[0]["n_nodes"],
            _means([curve["faithfulness"] for curve in curves]),
            color=_HUES[finders.index(finder) % len(_HUES)],
            linestyle=style,
            marker="o",
            markersize=4,
            label=finder if target is None else f"{finder}, target {target:g}",
        )
    axes.axhline(1, color=pen.SOFT, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("kept nodes", color=pen.INK)
    axes.set_ylabel("faithfulness, mean over tasks (1: the whole model)", color=pen.INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Faithfulness of rankings", loc="left", fontsize=11, color=pen.INK)
    axes.legend(frameon=False, fontsize=7, handlelength=5)
    return figure


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of each column."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]
