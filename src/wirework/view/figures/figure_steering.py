"""Figure of a steering report: probability of the other answer against strength (Fig. 9)."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from wirework.errors import number_of
from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_canvas import panels

_OTHER, _RIGHT = "#1f6fb4", "#b8902a"
_CONTROLS = {
    "random": ("#7b7b7b", "random directions"),
    "other_channel": ("#c23b6a", "other channels of the bridge"),
}


def draw_steering(report: Mapping[str, Any]) -> Figure:
    """Draw the probabilities of both answers, with bands of two standard errors, and the controls.

    The controls are of equal length: a line is the mean over the draws, a band reaches up to the
    largest draw.

    Args:
        report: the JSON of a steering report.
    """
    figure, (axes,) = panels(1, size=(6.4, 4.4))
    curve = report["curve"]
    strengths = [point["strength"] for point in curve]
    for key, colour, label in (
        ("other", _OTHER, "the other answer"),
        ("right", _RIGHT, "the right answer"),
    ):
        values = [point[key] for point in curve]
        errors = [2 * point[f"{key}_se"] for point in curve]
        axes.plot(strengths, values, color=colour, marker="o", markersize=4, label=label)
        axes.fill_between(
            strengths,
            [v - e for v, e in zip(values, errors, strict=True)],
            [v + e for v, e in zip(values, errors, strict=True)],
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
    for control in report["controls"]:
        colour, label = _CONTROLS[control["control"]]
        axes.plot(
            control["strengths"],
            control["mean"],
            color=colour,
            linestyle="--",
            label=f"the other answer, {label}: mean and largest of {control['n_draws']}",
        )
        axes.fill_between(
            control["strengths"],
            control["mean"],
            control["largest"],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(f"strength; {number_of(report['n_pairs'], 'held-out pair')}", color=pen.INK)
    axes.set_ylabel("probability, over the whole vocabulary", color=pen.INK)
    axes.spines[["top", "right"]].set_visible(False)
    nodes = ", ".join(report["nodes"][:3]) + (", ..." if len(report["nodes"]) > 3 else "")
    axes.set_title(
        f"{report['task']}: the {report['target']} model, steered by {nodes}",
        loc="left",
        fontsize=10,
        color=pen.INK,
        parse_math=False,
    )
    axes.legend(frameon=False, fontsize=7)
    return figure
