"""Checks of the tensors in a file against those of a model: none is ever filled in by default.

Used for wirework's own models and for other formats.
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
    """Raise an error if tensors are missing.

    Args:
        missing: names that the model needs and the file lacks, in the model's order.
        unused: names in the file that the model does not need; they help to find the cause.
        source: the file.

    Raises:
        InputError: tensors are missing; the message has the first names and the number.
    """
    unused = sorted(unused)
    if not missing:
        return
    first, others = missing[0], missing[1:]
    more = f" and {number_of(len(others), 'other')} ({shortened(others)})" if others else ""
    instead = f"; it has {shortened(unused)}, which this config does not need" if unused else ""
    raise InputError(f"{source} lacks the tensor {first}{more}{instead}")


def refuse_shapes(stored: Mapping[str, Shape], expected: Mapping[str, Shape], source: str) -> None:
    """Raise an error if a tensor has another shape than expected.

    Args:
        stored: shapes in the file; every name of `expected` is in it.
        expected: shapes according to the config.
        source: the file.

    Raises:
        InputError: a shape differs; the message has the first such tensor, both shapes, and the
            number of others.
    """
    wrong = [name for name in expected if tuple(stored[name]) != tuple(expected[name])]
    if wrong:
        name, others = wrong[0], len(wrong) - 1
        more = f" ({others} more differ)" if others else ""
        raise InputError(
            f"{source}: {name} is {tuple(stored[name])}, the config says "
            f"{tuple(expected[name])}{more}"
        )


def refuse_layers(n_layer: int, names: Iterable[str], source: str) -> None:
    """Raise an error if the config has more layers than the file has tensors.

    This is checked before the names of all layers are listed, which could take all memory.

    Raises:
        InputError: there are too few tensors; the message has both numbers.
    """
    count = len(list(names))
    if n_layer > count:
        raise InputError(
            f"{source} has {number_of(count, 'tensor')}, too few for the config's "
            f"{number_of(n_layer, 'layer')}"
        )


def as_float32(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return weights in float32, with a warning if they were stored in another precision.

    Args:
        tensors: dense tensors by name.
        source: the file.

    Raises:
        InputError: a tensor is not floating-point, has a type that needs separate scales (float8),
            or has an entry that is not finite.
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
    """Copy a state into a transformer. A tied embedding may be in it once, as `embed.weight`.

    Args:
        transformer: the model; changed in place.
        state: all tensors of the model, by name, with their shapes.
    """
    if transformer.config.tied_embedding:
        state = state | {"unembed.weight": state["embed.weight"]}
    transformer.load_state_dict(state)


def shortened(names: Sequence[str]) -> str:
    """Return the first three names, and the number of others."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_finite(tensor: Tensor) -> bool:
    # One pass without a copy: a finite sum has only finite terms. The full check is for overflow.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
