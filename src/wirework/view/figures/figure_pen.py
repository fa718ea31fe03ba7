"""Text, boxes and lines of the figure, in the layout's pixels."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyBboxPatch
from matplotlib.path import Path as Curve

PIXELS_PER_INCH = 100.0
INK, SOFT, TINT = "#1a1d21", "#5b636d", "#f5f6f8"
SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"


def points(pixels: float) -> float:
    """Convert pixels of the layout to matplotlib's points."""
    return pixels * 72 / PIXELS_PER_INCH


def write(axes: Axes, x: float, y: float, text: str, size: float, **style: Any) -> None:
    """Write text without mathematics: matplotlib would parse a `$` in a token."""
    style = {"family": SANS, "color": INK, "va": "center", **style}
    shown = legible(text, style["family"])
    axes.text(x, y, shown, fontsize=points(size), parse_math=False, **style)


def legible(text: str, family: str) -> str:
    """Replace characters that the font cannot draw by escapes."""

    known = _characters(family)
    return "".join(c if ord(c) in known and c.isprintable() else f"\\u{ord(c):04x}" for c in text)


@cache
def _characters(family: str) -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=[family]))).get_charmap())


def box(
    axes: Axes, left: float, top: float, width: float, height: float, radius: float, **style: Any
) -> None:
    """Draw a box with round corners."""
    shape = f"round,pad=0,rounding_size={radius}"
    style = {"linewidth": points(1.0), **style}
    axes.add_patch(FancyBboxPatch((left, top), width, height, shape, **style))


def stroke(
    axes: Axes, curves: list[Curve], colours: Any, pixels: Iterable[float], **style: Any
) -> None:
    """Draw curves as lines of the given widths."""
    widths = [points(width) for width in pixels]
    lines = PathCollection(
        curves, facecolors="none", edgecolors=colours, linewidths=widths, zorder=1, **style
    )
    axes.add_collection(lines, autolim=False)
