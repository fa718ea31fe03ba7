"""Figures with a canvas of their own: blank, or of panels in rows; written as PNG."""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wirework.files import write_bytes
from wirework.picture import blank

__all__ = ["blank", "panels", "write_png"]

_DPI = 160.0


def panels(
    count: int, *, columns: int = 3, size: tuple[float, float] = (3.8, 3.0)
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels, and their axes.

    Args:
        count: number of panels, 1 or more.
        columns: most panels in a row.
        size: width and height of a panel, in inches.
    """
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = blank(size[0] * columns, size[1] * rows, constrained=True)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def write_png(figure: Figure, path: Path, *, dpi: float = _DPI) -> Path:
    """Write a figure as a PNG, whole or not at all, and return its path.

    The same figure gives the same bytes.

    Raises:
        InputError: `path` cannot be written to.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
    write_bytes(path, png.getvalue())
    return path
