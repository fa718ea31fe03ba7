"""Locate the first tensor with a NaN or infinite value."""

from collections.abc import Callable, Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from wirework.nn import Transformer


def nonfinite_parameter(trained: Mapping[str, nn.Parameter]) -> str | None:
    """Return the name of the first parameter with NaN or infinity, or None."""
    for name, parameter in trained.items():
        if not _finite(parameter):
            return name
    return None


@torch.no_grad()
def locate_nonfinite(
    transformer: Transformer, trained: Mapping[str, nn.Parameter], run: Callable[[], object]
) -> str | None:
    """Return the first tensor with NaN or infinity: a parameter, a site value or a gradient.

    Runs one forward pass under the caller's autocast; gradients are those of the failed step.

    Args:
        transformer: the model in the state of the failed step.
        trained: parameters of the model and of the priors, by name.
        run: runs the forward pass of the failed step.

    Returns:
        Kind and name, such as `parameter blocks.0.mlp.up.weight`; None if all is finite.
    """
    parameter = nonfinite_parameter(trained)
    if parameter is not None:
        return f"parameter {parameter}"
    site = _nonfinite_site(transformer, run)
    if site is not None:
        return f"site {site}"
    for name, parameter_ in trained.items():
        if parameter_.grad is not None and not _finite(parameter_.grad):
            return f"gradient of {name}"
    return None


def _nonfinite_site(transformer: Transformer, run: Callable[[], object]) -> str | None:
    """Check the input of each site, before AbsTopK, which raises an error for NaN."""
    names: list[str] = []

    def checker(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def check(module: nn.Module, inputs: tuple[Tensor]) -> None:  # noqa: ARG001
            if not names and not _finite(inputs[0]):
                names.append(name)

        return check

    hooks = [
        site.register_forward_pre_hook(checker(name)) for name, site in transformer.sites.items()
    ]
    try:
        with suppress(ValueError):  # raised by AbsTopK for the NaN that is searched for
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return names[0] if names else None


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())
