"""Tensors from a file, compared with what a model needs: nothing is ever made up for a missing one.

Used for our own models and for those of other formats.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from wirework.console import warn
from wirework.errors import InputError, number_of
from wirework.nn import Transformer

Shape = Sequence[int]

_NAMED = 3
_CONVERTED = (torch.float64, torch.float16, torch.bfloat16)


def refuse_missing(missing: Sequence[str], unused: Iterable[str], source: str) -> None:
    """Raise unless nothing is missing.

    Args:
        missing: names that the model needs and the file lacks, in the model's order.
        unused: names of the file that the model has no use for; they show what went wrong.
        source: the file.

    Raises:
        InputError: names the first missing ones and says how many there are.
    """
    unused = sorted(unused)
    if not missing:
        return
    first, others = missing[0], missing[1:]
    more = f" and {len(others)} other{'s'[: len(others) > 1]} ({listed(others)})" if others else ""
    instead = f"; it has {listed(unused)}, of no use to this config" if unused else ""
    raise InputError(f"{source} lacks the tensor {first}{more}{instead}")


def refuse_shapes(found: Mapping[str, Shape], expected: Mapping[str, Shape], source: str) -> None:
    """Raise unless each expected tensor has its shape.

    Args:
        found: what the file has; all of `expected` are in it.
        expected: what the config says.
        source: the file.

    Raises:
        InputError: names the first one that differs, both shapes, and how many others there are.
    """
    wrong = [name for name in expected if tuple(found[name]) != tuple(expected[name])]
    if wrong:
        name, others = wrong[0], len(wrong) - 1
        more = f" ({others} more differ)" if others else ""
        raise InputError(
            f"{source}: {name} is {tuple(found[name])}, the config says "
            f"{tuple(expected[name])}{more}"
        )


def refuse_layers(n_layer: int, names: Iterable[str], source: str) -> None:
    """Raise if the config has more layers than the file can hold, before its names are listed.

    Raises:
        InputError: with both numbers.
    """
    count = len(list(names))
    if n_layer > count:
        raise InputError(
            f"{source} has {number_of(count, 'tensor')}, too few for the config's "
            f"{number_of(n_layer, 'layer')}"
        )


def as_float32(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return weights in float32; a line says so where they were stored in another precision.

    Args:
        tensors: dense, by name.
        source: the file.

    Raises:
        InputError: a tensor is of no floating-point type, or of one that needs scales beside it
            (float8), or has an entry that is not finite.
    """
    converted: dict[torch.dtype, int] = {}
    weights = {}
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            if tensor.dtype not in _CONVERTED:
                raise InputError(
                    f"{source}: {name} is {_name(tensor.dtype)}; weights must be float32, float64, "
                    "float16 or bfloat16"
                )
            converted[tensor.dtype] = converted.get(tensor.dtype, 0) + 1
            tensor = tensor.float()
        if not _is_finite(tensor):
            raise InputError(f"{source}: {name} has an entry that is NaN or infinite")
        weights[name] = tensor
    for dtype, count in converted.items():
        plural = "" if count == 1 else "s"
        warn(f"{source}: {count} tensor{plural} of {_name(dtype)} converted to float32")
    return weights


def load_untied_(transformer: Transformer, state: dict[str, Tensor]) -> None:
    """Copy a whole state into a transformer; a tied embedding may be in it once, as `embed.weight`.

    Args:
        transformer: to be changed.
        state: each of its tensors, of its shape.
    """
    if transformer.config.tied_embedding:
        state = state | {"unembed.weight": state["embed.weight"]}
    transformer.load_state_dict(state)


def listed(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_finite(tensor: Tensor) -> bool:
    # One pass without a copy: a sum is finite only of finite numbers, unless these overflow.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
