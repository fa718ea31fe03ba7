"""Product with a sparse matrix in compressed rows, with both gradients.

Activations lie channels x tokens, so that neighbouring threads read neighbouring tokens of one
channel. A program computes one output channel for a block of tokens: it adds up the channels that
its row of the matrix has. The gradient of the input is the same product with the transposed matrix.
The gradient of a value is the scalar product of two channels, computed at the nonzeros only.

Shapes: matrix (M, D) with S nonzeros, N tokens.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

_TOKENS = 256  # tokens of a program, two for each thread


class EntryPositions(NamedTuple):
    """Positions of the nonzeros of an (M, D) matrix, by rows and by columns."""

    shape: tuple[int, int]
    starts: Tensor
    """(M + 1,) int32: row m has the entries starts[m] to starts[m + 1] - 1."""
    columns: Tensor
    """(S,) int32 column of each entry."""
    rows: Tensor
    """(S,) int32 row of each entry."""
    column_starts: Tensor
    """(D + 1,) int32: column d has the entries order[column_starts[d]] and so on."""
    order: Tensor
    """(S,) int64 entries sorted by column, then row."""


def entry_positions(starts: Tensor, columns: Tensor, width: int) -> EntryPositions:
    """Prepare a pattern for both directions; it sorts once, and the pattern serves many products.

    Args:
        starts: (M + 1,) int, first entry of each row, and S.
        columns: (S,) int column of each entry, below `width`.
        width: D.
    """
    height = len(starts) - 1
    counts = starts.diff()
    rows = torch.repeat_interleave(
        torch.arange(height, device=starts.device), counts, output_size=len(columns)
    )
    order = torch.argsort(columns, stable=True)
    edges = torch.arange(width + 1, device=columns.device, dtype=columns.dtype)
    column_starts = torch.searchsorted(columns[order], edges)
    return EntryPositions(
        (height, width), starts.int(), columns.int(), rows.int(), column_starts.int(), order
    )


def sparse_product(x: Tensor, values: Tensor, pattern: EntryPositions) -> Tensor:
    """Return `x @ w.T` of a sparse matrix w, with gradients of `x` and `values`.

    Args:
        x: (..., D) float32, bfloat16 or float16.
        values: (S,) entries of w.
        pattern: their positions.

    Returns:
        (..., M) contiguous in the dtype of `x`; sums are computed in float32.
    """
    out: Tensor = _SparseProduct.apply(x, values, pattern)
    return out


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, pattern: EntryPositions) -> Tensor:
        channels = _channels(x)
        ctx.save_for_backward(channels if ctx.needs_input_grad[1] else None, values)
        ctx.pattern, ctx.shape = pattern, x.shape
        out = product_of_channels(channels, pattern.starts, pattern.columns, values)
        return _tokens(out, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        channels, values = ctx.saved_tensors
        pattern, grad = ctx.pattern, _channels(grads[0])
        to_x = to_values = None
        if ctx.needs_input_grad[0]:
            order = pattern.order
            transposed = pattern.column_starts, pattern.rows[order], values[order]
            to_x = _tokens(product_of_channels(grad, *transposed), ctx.shape[:-1])
        if ctx.needs_input_grad[1]:
            to_values = gradient_at_nonzeros(grad, channels, pattern).to(values.dtype)
        return to_x, to_values, None


def _channels(x: Tensor) -> Tensor:
    """Return (..., D) as (D, N), channels x tokens."""
    return x.reshape(-1, x.shape[-1]).t().contiguous()


def _tokens(channels: Tensor, shape: torch.Size) -> Tensor:
    """Return (D, N), channels x tokens, as (..., D) contiguous."""
    return channels.t().contiguous().view(*shape, len(channels))


def product_of_channels(x: Tensor, starts: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """Return `w @ x` for a matrix w in compressed rows.

    Args:
        x: (D, N) contiguous.
        starts: (M + 1,) int32.
        columns: (S,) int32.
        values: (S,).

    Returns:
        (M, N) in the dtype of `x`.
    """
    height, n_tokens = len(starts) - 1, x.shape[1]
    out = torch.empty(height, n_tokens, dtype=x.dtype, device=x.device)
    grid = (height, triton.cdiv(n_tokens, _TOKENS))
    with torch.cuda.device_of(x):  # triton launches on the current GPU
        _product_kernel[grid](x, starts, columns, values, out, n_tokens, TOKENS=_TOKENS)
    return out


def gradient_at_nonzeros(grad: Tensor, x: Tensor, pattern: EntryPositions) -> Tensor:
    """Return the gradient (S,) float32 of the values: `grad[row] @ x[column]` for each entry.

    Args:
        grad: (M, N) contiguous gradient of the output.
        x: (D, N) contiguous input.
        pattern: positions of the entries.
    """
    n_entries, n_tokens = len(pattern.columns), x.shape[1]
    out = torch.empty(n_entries, dtype=torch.float32, device=x.device)
    if n_entries:
        with torch.cuda.device_of(x):
            _gradient_kernel[(n_entries,)](
                grad, x, pattern.rows, pattern.columns, out, n_tokens, TOKENS=_TOKENS
            )
    return out


@triton.jit
def _product_kernel(x, starts, columns, values, out, n_tokens, TOKENS: tl.constexpr):
    """Compute one row of the output for `TOKENS` tokens."""
    row = tl.program_id(0)
    tokens = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    inside = tokens < n_tokens
    total = tl.zeros((TOKENS,), dtype=tl.float32)
    for entry in range(tl.load(starts + row), tl.load(starts + row + 1)):
        column = tl.load(columns + entry).to(tl.int64)
        value = tl.load(values + entry).to(tl.float32)
        channel = tl.load(x + column * n_tokens + tokens, mask=inside, other=0.0)
        total += value * channel.to(tl.float32)
    places = row.to(tl.int64) * n_tokens + tokens
    tl.store(out + places, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gradient_kernel(grad, x, rows, columns, out, n_tokens, TOKENS: tl.constexpr):
    """Compute the gradient of one entry, a sum over all tokens in a fixed order."""
    entry = tl.program_id(0)
    row = tl.load(rows + entry).to(tl.int64) * n_tokens
    column = tl.load(columns + entry).to(tl.int64) * n_tokens
    total = tl.zeros((TOKENS,), dtype=tl.float32)
    for start in range(0, n_tokens, TOKENS):
        tokens = start + tl.arange(0, TOKENS)
        inside = tokens < n_tokens
        slope = tl.load(grad + row + tokens, mask=inside, other=0.0).to(tl.float32)
        channel = tl.load(x + column + tokens, mask=inside, other=0.0).to(tl.float32)
        total += slope * channel
    tl.store(out + entry, tl.sum(total, axis=0))
