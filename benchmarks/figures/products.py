"""GFLOP/s of each library for the products of a training step, and the chosen one over the best."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory

import torch

from benchmarks.figure import Figure
from benchmarks.settings import Settings
from wirework import fastest
from wirework.nn.kernels import products

SHAPES = (
    (16, 64, 128, 512),  # the demo's MLP: sequences, tokens of each, inputs, outputs
    (2, 64, 128, 2048),  # a piece of its unembedding
    (32, 128, 256, 1024),
)


def measure(settings: Settings) -> list[Figure]:
    """Return the speed of the chosen library over the fastest one's, and each library's speed."""
    shapes = ((2, 16, 32, 64),) if settings.quick else SHAPES
    figures: list[Figure] = []
    with empty_cache():
        for shape in shapes:
            figures += at_shape(shape, min(3, settings.counted_rounds))
    return figures


def at_shape(shape: tuple[int, int, int, int], rounds: int) -> list[Figure]:
    """Return the figures of the three products of one matrix."""
    images, tokens, inputs, outputs = shape
    rows = images * tokens
    x, weight = torch.rand(images, tokens, inputs), torch.rand(outputs, inputs)
    grad, flat = torch.rand(images, tokens, outputs), (rows, -1)
    classes = {
        "output": (x.view(flat), weight.t()),
        "input's gradient": (grad.view(flat), weight),
        "weight's gradient": (grad.view(flat).t(), x.view(flat)),
    }
    figures: list[Figure] = []
    for name, operands in classes.items():
        ways: dict[str, partial[torch.Tensor]] = {
            library: partial(products._BY[library], *operands, None)
            for library in products.available()
        }
        if name == "weight's gradient":
            ways["convolution"] = partial(products._by_convolution, grad, x)
            chosen = products.gradient_library(x.shape, outputs)
        else:
            layouts = "".join(map(products.layout, operands))
            sizes = (*operands[0].shape, operands[1].shape[1])
            chosen = products.library_for(layouts, *sizes)
        times = [fastest.milliseconds(ways) for _ in range(rounds)]
        where = f"product {rows}x{inputs}->{outputs} {name}"
        share = [min(one.values()) / one.get(chosen, min(one.values())) for one in times]
        figures.append(Figure.of(f"{where}: chosen / fastest", share, better="higher", note=chosen))
        flops = 2 * rows * inputs * outputs
        figures += [
            Figure.of(f"{where}: {way}", [flops / 1e6 / one[way] for one in times],
                      unit="GFLOP/s", better="higher")
            for way in ways
        ]  # fmt: skip
    return figures


@contextmanager
def empty_cache() -> Iterator[None]:
    """Neither read nor write the user's cache of choices."""
    before = os.environ.get("XDG_CACHE_HOME")
    with TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before
