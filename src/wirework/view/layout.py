"""Layered graph layout (Sugiyama et al. 1981), shared by the page and the figure.

Rows go upward in the order of the forward pass: embedded tokens, then per sublayer the reads, the
q, k and v of each head side by side (or the neurons), the writes; the answers on top. Within a row,
items are ordered by the mean x of their neighbours (barycentre sweeps), then placed as near to it
as the gaps allow (isotonic regression). Units: CSS pixels; y grows downward, as on a screen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

NODE_WIDTH = 34.0
NODE_HEIGHT = 18.0
BOX_PAD = 7.0
"""Distance between a head's box and the nodes in it."""
MARGIN = 96.0
"""Width left of the drawing, for the labels of sublayers and rows."""

_GAP = 12.0
_INNER_GAP = 4.0
_ROW_HEIGHT = 46.0
_LINE_HEIGHT = 25.0
_BOXED_LINE_HEIGHT = 42.0
_HEAD_LABEL_HEIGHT = 9.0
_PAD = 18.0
_BAND_GAP = 8.0
_EMPTY_BAND_HEIGHT = 14.0
_MAX_ROW = 940.0
_MIN_WIDTH = 480.0
_SWEEPS = 24

RowBlock = Sequence[int]
"""Item numbers that are drawn side by side in this order, such as the nodes of a head."""


@dataclass(frozen=True)
class Row:
    """One row of blocks; `boxed` adds the height and width of a box around each block (a head)."""

    label: str
    blocks: Sequence[RowBlock]
    boxed: bool = False


@dataclass(frozen=True)
class Band:
    """A sublayer (or the embedding, or the answers) and its rows from the bottom up."""

    label: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class PlacedBand:
    """Top and bottom of a band, and (label, y) of each row that has items."""

    label: str
    top: float
    bottom: float
    rows: list[tuple[str, float]]


@dataclass(frozen=True)
class Layout:
    """Size of the drawing, the middle (x, y) of each item, and the bands from the bottom up."""

    width: float
    height: float
    points: list[tuple[float, float]]
    bands: list[PlacedBand]


def text_width(text: str) -> float:
    """Return the width in pixels of the box around a text."""
    return max(NODE_WIDTH, 12.0 + 6.6 * len(text))


def place(
    bands: Sequence[Band],
    widths: Sequence[float],
    links: Sequence[tuple[int, int, float]],
    pad: float = _PAD,
) -> Layout:
    """Place items so that linked ones are close together.

    Args:
        bands: from the bottom up; every item (0..len(widths)-1) is in exactly one block.
        widths: pixels, one per item.
        links: (item, item, weight); the larger the weight (> 0), the closer the two are placed.
        pad: pixels between a band's edge and the middle of its first and last row.

    Returns:
        The layout. The same input gives the same output, bit for bit.
    """
    positions = _ItemPositions(widths, links)
    rows = [row for band in bands for row in band.rows]
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            positions.place_row(row)
    left = min((x - w / 2 for x, w in zip(positions.xs, widths, strict=True)), default=0.0)
    right = max((x + w / 2 for x, w in zip(positions.xs, widths, strict=True)), default=0.0)
    inner = max(right - left + 2 * _PAD, _MIN_WIDTH)
    shift = MARGIN + (inner - left - right) / 2
    ys, placed = _stack(bands, positions, pad)
    points = [(round(x + shift, 1), round(y, 1)) for x, y in zip(positions.xs, ys, strict=True)]
    height = max((band.bottom for band in placed), default=0.0)
    return Layout(round(MARGIN + inner, 1), height, points, placed)


def spread(targets: Sequence[float], distances: Sequence[float]) -> list[float]:
    """Return the positions nearest to `targets` (least squares) with minimum distances.

    Args:
        targets: n wanted positions, in the order of the items.
        distances: n - 1 minimum distances between neighbours.

    Returns:
        n positions in the same order.

    Source: pool adjacent violators, Ayer et al. 1955.
    """
    offsets = [0.0, *accumulate(distances)]
    pools: list[tuple[float, int]] = []  # (mean, count)
    for target, offset in zip(targets, offsets, strict=False):
        mean, count = target - offset, 1
        while pools and pools[-1][0] >= mean:
            other, n = pools.pop()
            mean, count = (mean * count + other * n) / (count + n), count + n
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(flat, offsets, strict=False)]


class _ItemPositions:
    """The x of every item, and the line of its row that it is on."""

    def __init__(self, widths: Sequence[float], links: Sequence[tuple[int, int, float]]) -> None:
        self.widths = widths
        self.xs = [0.0] * len(widths)
        self.lines = [0] * len(widths)
        self.neighbours: list[list[tuple[int, float]]] = [[] for _ in widths]
        for a, b, weight in links:
            self.neighbours[a].append((b, weight))
            self.neighbours[b].append((a, weight))

    def place_row(self, row: Row) -> None:
        """Move one row's items as near to their neighbours as the gaps allow."""
        targets = {block[0]: self._neighbour_mean(block) for block in row.blocks}
        ordered = sorted(row.blocks, key=lambda block: (targets[block[0]], block[0]))
        n_lines = self.n_lines(row)
        for line in range(n_lines):
            blocks = ordered[line::n_lines]
            spans = [self._span(row, block) for block in blocks]
            distances = [(a + b) / 2 + _GAP for a, b in pairwise(spans)]
            middles = spread([targets[block[0]] for block in blocks], distances)
            for block, middle in zip(blocks, middles, strict=True):
                self._fill(block, middle, line)

    def n_lines(self, row: Row) -> int:
        """Return how many lines a row takes at the maximum row width."""
        return math.ceil(sum(self._span(row, block) + _GAP for block in row.blocks) / _MAX_ROW)

    def extra_height(self, row: Row) -> float:
        """Return the extra height under a wide row; without it, its edges are nearly horizontal."""
        xs = [self.xs[item] for block in row.blocks for item in block]
        return min(40.0, max(0.0, 0.05 * (max(xs) - min(xs) - 400.0)))

    def _neighbour_mean(self, block: RowBlock) -> float:
        """Return the weighted mean x of a block's neighbours, or its own x if it has none."""
        weights = [weight for item in block for weight in self.neighbours[item]]
        total = sum(weight for _, weight in weights)
        if not total:
            return sum(self.xs[item] for item in block) / len(block)
        return sum(self.xs[other] * weight for other, weight in weights) / total

    def _span(self, row: Row, block: RowBlock) -> float:
        return self._inner(block) + (2 * BOX_PAD if row.boxed else 0)

    def _inner(self, block: RowBlock) -> float:
        return sum(self.widths[item] for item in block) + _INNER_GAP * (len(block) - 1)

    def _fill(self, block: RowBlock, middle: float, line: int) -> None:
        """Place a block's items side by side around `middle`."""
        left = middle - self._inner(block) / 2
        for item in block:
            self.xs[item], self.lines[item] = left + self.widths[item] / 2, line
            left += self.widths[item] + _INNER_GAP


def _stack(
    bands: Sequence[Band], positions: _ItemPositions, pad: float
) -> tuple[list[float], list[PlacedBand]]:
    """Stack the bands from the top down; adjacent bands without items become one thin band."""

    ys = [0.0] * len(positions.xs)
    placed: list[PlacedBand] = []
    y = _BAND_GAP / 2
    groups = groupby(reversed(bands), key=lambda band: any(row.blocks for row in band.rows))
    for filled, group in groups:
        if filled:
            for band in group:
                placed.append(_stack_band(band, positions, ys, y, pad))
                y = placed[-1].bottom + _BAND_GAP
        else:
            labels = [band.label for band in group]
            label = labels[0] if len(labels) == 1 else f"{labels[-1]} to {labels[0]}"
            placed.append(PlacedBand(label, y, y + _EMPTY_BAND_HEIGHT, []))
            y += _EMPTY_BAND_HEIGHT + _BAND_GAP
    return ys, placed[::-1]


def _stack_band(
    band: Band, positions: _ItemPositions, ys: list[float], top: float, pad: float
) -> PlacedBand:
    """Set in `ys` the middles of one band's items, its rows from the top down."""
    labels = []
    rows = [row for row in reversed(band.rows) if row.blocks]
    y = top + pad + (_HEAD_LABEL_HEIGHT if rows[0].boxed else 0)
    for row in rows:
        n_lines = positions.n_lines(row)
        depth = (n_lines - 1) * (_BOXED_LINE_HEIGHT if row.boxed else _LINE_HEIGHT)
        for item in (item for block in row.blocks for item in block):
            ys[item] = y + positions.lines[item] * depth / max(n_lines - 1, 1)
        labels.append((row.label, y + depth / 2))
        bottom = y + depth
        y = bottom + _ROW_HEIGHT + positions.extra_height(row)
    return PlacedBand(band.label, top, bottom + pad, labels[::-1])
