"""A figure of panels in rows on a canvas of its own, and its picture on disk."""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wirework.files import write_bytes

_DPI = 160.0


def panels(
    count: int, *, columns: int = 3, size: tuple[float, float] = (3.8, 3.0)
) -> tuple[Figure, list[Axes]]:
    """Return a figure with as many panels.

    Args:
        count: 1 or more.
        columns: most of them in a row.
        size: width and height of one, in inches.
    """
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def write_png(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG, whole or not at all, and return its path.

    Raises:
        InputError: the place cannot be written to.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    write_bytes(path, png.getvalue())
    return path
