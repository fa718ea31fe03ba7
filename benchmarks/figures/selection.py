"""AbsTopK of 4,096 rows, a quarter kept, over `torch.topk` and `scatter`."""

import torch
from torch import Tensor

from benchmarks.figure import Figure
from benchmarks.settings import Settings
from benchmarks.timing import alternate, over
from wirework.nn import abs_top_k

TOKENS = 4096
WIDTHS = (256, 512, 1024, 2048)
TARGET = 4.0


def measure(settings: Settings) -> list[Figure]:
    """Return how many times as long public operations take, for each width."""
    widths, tokens = ((64,), 128) if settings.quick else (WIDTHS, TOKENS)
    dtype = getattr(torch, settings.precision)
    figures: list[Figure] = []
    for width in widths:
        figures += at_width(torch.randn(tokens, width).to(dtype), settings)
    return figures


def at_width(x: Tensor, settings: Settings) -> list[Figure]:
    """Return the figures of one tensor (T, D)."""
    tokens, width = x.shape
    k, leaf = width // 4, x.clone().requires_grad_()
    steps = {
        "ours": lambda: abs_top_k(x, k),
        "public": lambda: top_k_and_scatter(x, k),
        "ours both ways": lambda: abs_top_k(leaf, k).sum().backward(),
        "public both ways": lambda: top_k_and_scatter(leaf, k).sum().backward(),
    }
    seconds = alternate(steps, 3 * settings.counted_rounds, warm_up=3)
    name = f"AbsTopK {tokens}x{width} {settings.precision}"
    return [
        Figure.of(f"{name} public / ours", over(seconds["public"], seconds["ours"]),
                  better="higher", target=None if settings.quick else TARGET),
        Figure.of(f"{name} with gradient, public / ours",
                  over(seconds["public both ways"], seconds["ours both ways"]), better="higher"),
        Figure.of(f"{name} ours", [1e3 * value for value in seconds["ours"]], unit="ms"),
    ]  # fmt: skip


def top_k_and_scatter(x: Tensor, k: int) -> Tensor:
    """Return AbsTopK by public operations; ties are broken in no promised order."""
    indices = x.abs().topk(k, sorted=False).indices
    return torch.zeros_like(x).scatter(-1, indices, x.gather(-1, indices))
