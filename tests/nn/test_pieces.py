"""All rows are worked on, once each."""

import numpy as np

from wirework.nn.pieces import each_piece


def test_each_piece_covers_every_row_once():
    seen = np.zeros(5000, int)

    def work(rows: slice) -> None:
        seen[rows] += 1

    each_piece(5000, 1 << 12, work)
    assert (seen == 1).all()
