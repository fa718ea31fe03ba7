"""Find where a value that is NaN or infinite first stands."""

from collections.abc import Callable, Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from wirework.nn import Transformer


def nonfinite_parameter(trained: Mapping[str, nn.Parameter]) -> str | None:
    """Return the name of the first parameter with a NaN or infinity, or None."""
    for name, parameter in trained.items():
        if not _finite(parameter):
            return name
    return None


@torch.no_grad()
def locate_nonfinite(
    transformer: Transformer, trained: Mapping[str, nn.Parameter], run: Callable[[], object]
) -> str | None:
    """Say which tensor is the first with a NaN or infinity: parameter, site value, gradient.

    Runs one forward pass, in the caller's autocast; the gradients are those that stand there.

    Args:
        transformer: as the failed step left it.
        trained: its parameters and what is trained beside it, by name.
        run: the forward pass of the failed step.

    Returns:
        Such as `parameter blocks.0.mlp.up.weight`, or None if all is finite.
    """
    parameter = nonfinite_parameter(trained)
    if parameter is not None:
        return f"parameter {parameter}"
    site = _nonfinite_site(transformer, run)
    if site is not None:
        return f"site {site}"
    for name, held in trained.items():
        if held.grad is not None and not _finite(held.grad):
            return f"gradient of {name}"
    return None


def _nonfinite_site(transformer: Transformer, run: Callable[[], object]) -> str | None:
    """Look at what reaches each site, before AbsTopK, which refuses NaN."""
    found: list[str] = []

    def look_at(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def look(module: nn.Module, inputs: tuple[Tensor]) -> None:  # noqa: ARG001
            if not found and not _finite(inputs[0]):
                found.append(name)

        return look

    hooks = [
        site.register_forward_pre_hook(look_at(name)) for name, site in transformer.sites.items()
    ]
    try:
        with suppress(ValueError):  # AbsTopK's, at the NaN that is looked for
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())
