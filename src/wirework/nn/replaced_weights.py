"""Replace parameters by other tensors for some forward passes; gradients flow to these tensors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def weights_replaced(module: nn.Module, weights: Mapping[Any, Tensor]) -> Iterator[None]:
    """Compute with other tensors in place of parameters inside a `with` block.

    A parameter that several modules share, such as a tied embedding, is replaced in all of them.

    Args:
        module: a transformer.
        weights: tensors by the parameter that they replace, of its shape, dtype and device.
    """
    places = [
        (part, name, parameter)
        for part in module.modules()
        for name, parameter in part._parameters.items()
        if parameter is not None and parameter in weights
    ]
    try:
        for part, name, parameter in places:
            part._parameters[name] = weights[parameter]  # type: ignore[assignment]
        yield
    finally:
        for part, name, parameter in places:
            part._parameters[name] = parameter
