"""A matplotlib figure that notebooks display, without pyplot's global state."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Picture(Figure):
    """A figure with its own canvas; `savefig` writes it, a notebook displays it."""

    def _repr_png_(self) -> bytes:
        """Return the figure as a PNG, for notebooks."""
        png = io.BytesIO()
        self.savefig(png, format="png", metadata={"Software": None})
        return png.getvalue()


def blank(width: float, height: float, *, constrained: bool = False) -> Picture:
    """Return an empty figure.

    Args:
        width: inches.
        height: inches.
        constrained: whether matplotlib places the axes (its constrained layout).
    """

    figure = Picture(figsize=(width, height), layout="constrained" if constrained else None)
    FigureCanvasAgg(figure)
    return figure
