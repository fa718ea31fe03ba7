"""The plot of a sweep: milliseconds against nonzero weights, a line for each width."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from wirework.picture import Picture, blank

if TYPE_CHECKING:
    from benchmarks.sweep import Cost

COLOURS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#e6a700")
"""Dark to light, apart also in grey; the last is darker than the yellow of viridis."""
MARKERS = "osD^v"
COLUMNS = 2


def plot(costs: "Sequence[Cost]", machine: str) -> Picture:
    """Return a panel for each kind of work."""
    works = sorted(dict.fromkeys(cost.work for cost in costs), key=lambda w: w.startswith("step"))
    widths = sorted({cost.width for cost in costs})
    n_rows = -(-len(works) // COLUMNS)
    picture = blank(11, 4 * n_rows + 0.6, constrained=True)
    axes = picture.subplots(n_rows, COLUMNS, squeeze=False, sharey="row").flatten()
    for ax, work in zip(axes, works, strict=False):
        for width, colour, marker in zip(widths, COLOURS, MARKERS, strict=False):
            line = sorted(c for c in costs if c.work == work and c.width == width)
            line.sort(key=lambda cost: cost.nonzeros)
            errors = [[c.ms - c.low for c in line], [c.high - c.ms for c in line]]
            ax.errorbar(
                [c.nonzeros for c in line], [c.ms for c in line], errors,
                color=colour, marker=marker, markersize=5, linewidth=1.5, capsize=2,
                label=f"width {width}",
            )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel="nonzero weights", ylabel="CPU time, ms")
        ax.set_title(work if work.startswith("step") else f"one matrix: {work}", fontsize=11)
        ax.grid(True, which="major", color="0.85", linewidth=0.6)
    for ax in axes[len(works) :]:
        ax.remove()
    axes[0].legend(fontsize=9, frameon=False)
    picture.suptitle(
        "Cost against nonzero weights, 512 tokens, densities 1/1,000 to 1\n" + fill(machine, 110),
        fontsize=10,
    )
    return picture
