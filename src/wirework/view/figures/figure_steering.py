"""Figure of a steering report: probability of the other answer against strength (Fig. 9)."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wirework.errors import number_of
from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_canvas import panels

_OTHER, _RIGHT = "#1f6fb4", "#b8902a"
_CONTROLS = {
    "random": ("#7b7b7b", "random directions"),
    "other_channel": ("#c23b6a", "other channels"),
}


def draw_steering(report: Mapping[str, Any]) -> Figure:
    """Draw the probabilities of the answers, with bands of two standard errors, and the controls.

    Left: among the two answers. Right: over the whole vocabulary. The controls are of equal size: a
    line is the mean over the draws, a band reaches up to the largest draw.

    Args:
        report: the JSON of a steering report.
    """
    figure, (among_two, of_all) = panels(2, size=(5.2, 4.2))
    curve = report["curve"]
    _band(among_two, curve, "other_of_two", _OTHER, "the other answer")
    _band(of_all, curve, "other", _OTHER, "the other answer")
    _band(of_all, curve, "right", _RIGHT, "the right answer")
    for axes, suffix in ((among_two, "_of_two"), (of_all, "")):
        for control in report["controls"]:
            colour, label = _CONTROLS[control["control"]]
            mean, largest = (control[f"{name}{suffix}"] for name in ("mean", "largest"))
            axes.plot(
                control["strengths"],
                mean,
                color=colour,
                linestyle="--",
                label=f"other answer, {label}: mean and largest of {control['n_draws']}",
            )
            axes.fill_between(
                control["strengths"], mean, largest, color=colour, alpha=0.15, linewidth=0
            )
        axes.set_ylim(-0.02, 1.02)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(f"strength; {number_of(report['n_pairs'], 'held-out pair')}", color=pen.INK)
    figure.legend(
        *of_all.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    among_two.set_ylabel("probability among the two answers", color=pen.INK)
    of_all.set_ylabel("probability over the whole vocabulary", color=pen.INK)
    nodes = ", ".join(report["nodes"][:3]) + (", ..." if len(report["nodes"]) > 3 else "")
    among_two.set_title(
        f"{report['task']}: the {report['target']} model, steered by {nodes}",
        loc="left",
        fontsize=9,
        color=pen.INK,
        parse_math=False,
    )
    return figure


def _band(
    axes: Axes, curve: Sequence[Mapping[str, Any]], key: str, colour: str, label: str
) -> None:
    """Draw a probability against the strength, with a band of two standard errors."""
    strengths = [point["strength"] for point in curve]
    values = [point[key] for point in curve]
    errors = [2 * point[f"{key}_se"] for point in curve]
    low = [value - error for value, error in zip(values, errors, strict=True)]
    high = [value + error for value, error in zip(values, errors, strict=True)]
    axes.plot(strengths, values, color=colour, marker="o", markersize=4, label=label)
    axes.fill_between(strengths, low, high, color=colour, alpha=0.2, linewidth=0)
