"""Numbers of a training step, read from the device in one copy: the only wait for it in a step."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from wirework.training.prior import Prior


class EarlierNaNError(ValueError):
    """A prior met a NaN after the step before this one."""


def read_numbers(
    values: Mapping[str, Tensor | float], priors: Iterable[Prior] = ()
) -> dict[str, float]:
    """Return the values as floats, after a check that they and the weights are numbers.

    Args:
        values: scalars by name.
        priors: priors whose `nan_flag` is read with the values.

    Raises:
        EarlierNaNError: the flag of a prior is set.
        ValueError: a value is NaN or infinite.
    """
    flags = [prior.nan_flag for prior in priors if prior.nan_flag is not None]
    scalars = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    read = _read([*flags, *scalars.values()])
    if any(read[: len(flags)]):
        raise EarlierNaNError("projection got NaN, which has no rank")
    numbers = {**values, **dict(zip(scalars, read[len(flags) :], strict=True))}
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
