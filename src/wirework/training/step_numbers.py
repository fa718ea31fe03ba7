"""Numbers of a training step, read from the device in one copy: the only wait for it in a step."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from wirework.training.prior import Prior


class EarlierNaNError(ValueError):
    """A prior met a NaN after the step before this one."""


def read_numbers(
    values: Mapping[str, Tensor | float],
    priors: Iterable[Prior] = (),
    nan_scalars: Sequence[Tensor] = (),
) -> dict[str, float]:
    """Return the values as floats, after a check that nothing was NaN or infinite.

    Args:
        values: scalars by name.
        priors: priors whose `nan_flag` is read with the values.
        nan_scalars: scalars of one device, NaN where AbsTopK got a NaN (`device_reads_deferred`).

    Raises:
        EarlierNaNError: the flag of a prior is set.
        ValueError: AbsTopK got a NaN, or a value is NaN or infinite.
    """
    flags = [prior.nan_flag for prior in priors if prior.nan_flag is not None]
    scalars = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    late = [torch.stack(list(nan_scalars)).isnan().any()] if nan_scalars else []
    read = _read([*scalars.values(), *flags, *late])
    if any(read[len(scalars) : len(scalars) + len(flags)]):
        raise EarlierNaNError("projection got NaN, which has no rank")
    if late and read[-1]:
        raise ValueError("AbsTopK got NaN, which has no rank")
    numbers = {**values, **dict(zip(scalars, read, strict=False))}
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number}")
    return {name: float(number) for name, number in numbers.items()}


def _read(scalars: list[Tensor]) -> list[float]:
    """Return scalars of any dtype, exactly, by one copy from the first one's device."""
    if not scalars:
        return []
    device = scalars[0].device
    numbers: list[float] = torch.stack(
        [scalar.detach().reshape(()).to(device, torch.float64) for scalar in scalars]
    ).tolist()
    return numbers
