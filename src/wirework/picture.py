"""A matplotlib figure that shows itself in a notebook without pyplot's global state."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Picture(Figure):
    """A figure on a canvas of its own; `savefig` writes it, a notebook shows it."""

    def _repr_png_(self) -> bytes:
        """Return the figure as a PNG, for notebooks."""
        png = io.BytesIO()
        self.savefig(png, format="png", metadata={"Software": None})
        return png.getvalue()


def blank(width: float, height: float, *, constrained: bool = False) -> Picture:
    """Return an empty figure of a size in inches, `constrained` if matplotlib is to lay it out."""
    figure = Picture(figsize=(width, height), layout="constrained" if constrained else None)
    FigureCanvasAgg(figure)
    return figure
