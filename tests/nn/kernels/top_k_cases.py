"""Rows for AbsTopK, with and without ties: for the ways to select that are not the CPU's own."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

VALUES = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 1e-7, -6e-8, 60000.0, math.inf, -math.inf]


@st.composite
def rows_and_k(
    draw: st.DrawFn,
    dtypes: Sequence[torch.dtype],
    widths: st.SearchStrategy[int],
    most_rows: int,
    with_nan: bool = False,
) -> tuple[Tensor, int]:
    """Draw a tensor of any shape and an admissible k.

    Args:
        draw: given by hypothesis.
        dtypes: one of them is drawn.
        widths: entries of a row.
        most_rows: longest of up to two leading dimensions.
        with_nan: whether entries may be NaN.
    """
    width = draw(widths)
    shape = (*draw(st.lists(st.integers(1, most_rows), max_size=2)), width)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    values = [*VALUES, math.nan] if with_nan else VALUES
    tied, smooth = generator.choice(values, shape), generator.standard_normal(shape)
    x = np.where(generator.random(shape) < share, tied, smooth)
    k = draw(st.integers(1, width) | st.sampled_from([1, width]))
    return torch.from_numpy(np.asarray(x)).to(draw(st.sampled_from(dtypes))), k
