"""Inference at width 2,048 and a density of 1/1,000, over dense products of the same model."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import Context, copy_context
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.figure import Figure, not_available
from benchmarks.settings import Settings
from benchmarks.step import D_HEAD, VOCAB
from benchmarks.timing import alternate, over
from wirework.config import ModelConfig
from wirework.nn import Transformer

WIDTH, LAYERS, CONTEXT, BATCH, DENSITY = 2048, 2, 256, 2, 0.001
TARGET = 10.0
MODULE = "wirework.nn.kernels.sparse_linear"
VARIABLE = "WIREWORK_SPARSE"


def measure(settings: Settings) -> list[Figure]:
    """Return how many times as long dense products take, in float32."""
    width = 128 if settings.quick else WIDTH
    name = f"inference width {width}, density {DENSITY}, dense / sparse"
    target = None if settings.quick else TARGET
    if find_spec(MODULE) is None:
        reason = f"this version has no {MODULE}"
        return [not_available(name, reason, target, better="higher")]
    transformer = sparse_transformer(width, LAYERS, DENSITY)
    tokens = torch.randint(VOCAB, (BATCH, CONTEXT), generator=torch.Generator().manual_seed(0))
    ways = {"sparse": None, "dense": "0"}
    with ExitStack() as stack:
        # Each way in a block of its own: in one block, the second would get the first's rows.
        contexts = {way: stack.enter_context(block_of_its_own()) for way in ways}
        steps = {
            way: partial(contexts[way].run, logits, transformer, tokens, value)
            for way, value in ways.items()
        }
        seconds = alternate(steps, settings.counted_rounds)
    return [
        Figure.of(name, over(seconds["dense"], seconds["sparse"]), better="higher", target=target),
        *(
            Figure.of(f"inference width {width} {way}", [1e3 * s for s in values], unit="ms")
            for way, values in seconds.items()
        ),
    ]


@contextmanager
def block_of_its_own() -> Iterator[Context]:
    """Yield a context in which the library compresses each weight once."""
    block: AbstractContextManager[None] = import_module(MODULE).unchanged_weights()
    context = copy_context()
    context.run(block.__enter__)
    try:
        yield context
    finally:
        context.run(block.__exit__, None, None, None)


@torch.inference_mode()
def logits(transformer: Transformer, tokens: Tensor, sparse: str | None) -> Tensor:
    """Return the logits (B, T, V), with the variable set as given; None: as the library decides."""
    with set_variable(sparse):
        out: Tensor = transformer(tokens)
    return out


@contextmanager
def set_variable(value: str | None) -> Iterator[None]:
    """Set the variable of the density up to which products are sparse."""
    before = os.environ.pop(VARIABLE, None)
    if value is not None:
        os.environ[VARIABLE] = value
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


@torch.no_grad()
def sparse_transformer(width: int, layers: int, density: float) -> Transformer:
    """Return a transformer whose matrices have random nonzero entries, an exact share of them."""
    config = ModelConfig(
        vocab_size=VOCAB, d_model=width, n_layer=layers, n_ctx=CONTEXT, d_head=D_HEAD,
        act_fraction=0.25,
    )  # fmt: skip
    transformer = Transformer(config)
    generator = torch.Generator().manual_seed(0)
    for _, parameter, _ in transformer.prunable():
        if parameter.dim() == 2:
            kept = torch.randint(
                parameter.numel(), (round(density * parameter.numel()),), generator=generator
            )
            mask = torch.zeros(parameter.numel())
            mask[kept] = 1
            parameter.mul_(mask.view_as(parameter))
    return transformer
