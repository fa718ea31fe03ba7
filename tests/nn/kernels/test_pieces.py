"""All rows are worked on, once each."""

import threading

import numpy as np
import pytest
import torch

from wirework.nn.kernels.pieces import each_piece


@pytest.mark.parametrize("threads", [1, 3])
def test_each_piece_covers_every_row_once(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    seen = np.zeros(5000, int)

    def work(rows: slice) -> None:
        seen[rows] += 1

    each_piece(5000, 1 << 12, work)
    assert (seen == 1).all()


def test_what_a_helping_thread_raises_is_raised(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    mine = threading.get_ident()
    started = threading.Event()

    def work(_: slice) -> None:
        if threading.get_ident() != mine:
            started.set()
            raise ZeroDivisionError
        started.wait(10)

    with pytest.raises(ZeroDivisionError):
        each_piece(5000, 1 << 12, work)
