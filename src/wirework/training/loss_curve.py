"""Figure of the losses of a run against its steps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wirework.picture import Picture

_CURVES = (
    ("train", "loss", "training", "-"),
    ("eval", "val_loss", "held-out text", "o-"),
    ("eval", "val_loss_ablated", "held-out text, ablated stream", "s--"),
)
"""Kind of log line, name of the number, label in the legend, line style."""


def draw_losses(history: Sequence[Mapping[str, Any]], title: str) -> "Picture":
    """Return a figure of the losses in a run's log.

    Args:
        history: lines of `metrics.jsonl`, from `Run.history`; losses in nats a token. The last line
            counts as an evaluation.
        title: title of the figure.
    """
    from wirework.picture import blank

    figure = blank(6.4, 4.0, constrained=True)
    axes = figure.add_subplot()
    for kind, number, name, style in _CURVES:
        steps, losses = curve(history, kind, number)
        if steps:
            axes.plot(steps, losses, style, label=name, markersize=3, linewidth=1.2)
    axes.set_title(title, parse_math=False)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a token)")
    if axes.lines:
        axes.legend()
    return figure


def curve(
    history: Sequence[Mapping[str, Any]], kind: str, number: str
) -> tuple[list[int], list[float]]:
    """Return steps and values of one number in the log lines of a kind."""
    kinds = (kind, "final") if kind == "eval" else (kind,)
    points = {
        line["step"]: line[number]
        for line in history
        if line["kind"] in kinds and line.get(number) is not None
    }
    return list(points), list(points.values())
