"""Choice of device and precision, made once at the start of a run and stored with it."""

import time
from contextlib import AbstractContextManager
from typing import Literal

import torch

from wirework.config import TrainConfig, WeightSparsityConfig
from wirework.errors import InputError
from wirework.nn.kernels import compiled
from wirework.nn.kernels.linear import Linear

Precision = Literal["float32", "bfloat16"]

_SPARSE_FRACTION = 1 / 8  # products of the layers, of the loss and of attention are then compiled
_ROUNDS = 5
_MAX_TOKENS = 4096
_FIRST_TOKENS = 64
_CLEAR_RATIO = 4


def resolve(config: TrainConfig) -> TrainConfig:
    """Return the settings with `auto` replaced in `device` and `precision`.

    Raises:
        InputError: the device is not available.
    """
    device = resolve_device(config.device)
    precision = config.precision
    if precision == "auto":
        precision = (
            "float32"
            if _has_sparse_products(config, device)
            else faster_precision(config, torch.device(device))
        )
    return config.model_copy(update={"device": device, "precision": precision})


def resolve_device(name: str) -> str:
    """Return `cuda` or `cpu` for `auto`, else the name of an available device.

    Raises:
        InputError: the device is not available.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    devices = _devices()
    if name in devices:
        return name
    hint = "" if "cuda" in devices else " (cuda needs a CUDA GPU)"
    raise InputError(f"device {name!r} is not available: use auto, {' or '.join(devices)}{hint}")


def _devices() -> list[str]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(["cuda"] if count else []), *(f"cuda:{index}" for index in range(count))]


def _has_sparse_products(config: TrainConfig, device: str) -> bool:
    """Return whether the end of training uses products from nonzero weights: in float32 only."""
    sparsity = config.weight_sparsity
    few = sparsity is not None and (
        sparsity.gradient == "live" or sparsity.l0_fraction <= _SPARSE_FRACTION
    )
    return few and device == "cpu" and compiled.is_available()


def auto_precision(device: torch.device) -> str:
    """Return in words what `precision: auto` is on a device, for default sizes of the model."""
    dense = faster_precision(TrainConfig(), device)
    few = WeightSparsityConfig(l0_fraction=_SPARSE_FRACTION)
    if not _has_sparse_products(TrainConfig(weight_sparsity=few), device.type):
        return f"auto is {dense} for all runs"
    share = f"1/{round(1 / _SPARSE_FRACTION)}"
    return (
        f"auto is {dense} for dense runs, "
        f"float32 for runs that end with at most {share} of the weights"
    )


def faster_precision(config: TrainConfig, device: torch.device) -> Precision:
    """Return the precision in which the up matrix of an MLP is faster, forward and backward.

    A few tokens are timed first. They are enough where one precision is many times slower: without
    hardware support, a whole batch in bfloat16 can take 16 CPU seconds.
    """
    tokens = min(config.batch_size * config.model.n_ctx, _MAX_TOKENS)
    for count in (min(tokens, _FIRST_TOKENS), tokens):
        seconds = {name: _time_linear(config, device, _DTYPES[name], count) for name in _DTYPES}
        if max(seconds.values()) > _CLEAR_RATIO * min(seconds.values()):
            break
    return min(seconds, key=lambda name: seconds[name])


def autocast(config: TrainConfig) -> AbstractContextManager[None]:
    """Return the autocast context of the forward pass: bf16 products if the settings say so."""
    kind = torch.device(config.device).type
    return torch.autocast(kind, torch.bfloat16, enabled=config.precision == "bfloat16")


def _time_linear(
    config: TrainConfig, device: torch.device, dtype: torch.dtype, tokens: int
) -> float:
    """Return the seconds of the fastest of a few rounds, after one warm-up round."""
    model = config.model
    layer = Linear(model.d_model, model.d_mlp, device=device, dtype=dtype)
    x = torch.ones(tokens, model.d_model, device=device, dtype=dtype, requires_grad=True)
    seconds = []
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        layer(x).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


_DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
