"""A figure on a canvas of its own, blank or of panels in rows, and its picture on disk."""

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
    """Return a figure with as many panels.

    Args:
        count: 1 or more.
        columns: most of them in a row.
        size: width and height of one, in inches.
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
        InputError: the place cannot be written to.
    """
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
    write_bytes(path, png.getvalue())
    return path
