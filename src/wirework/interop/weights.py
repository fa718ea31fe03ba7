"""Rename the tensors of another project to our names, and check that they fit the configuration."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from wirework.console import say, warn
from wirework.errors import InputError
from wirework.model_tensors import as_float32, refuse_missing, refuse_shapes, shortened

_BLOCK = re.compile(r"transformer\.h\.\d+\.")
"""Prefix of the tensors of a block in the formats that are read."""
_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that DistributedDataParallel, torch.compile and training frameworks add to all names."""


def our_state(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Sequence[int]],
    their_names: Callable[[str], Sequence[str]],
    source: str,
    ignored: re.Pattern[str],
    parts: Collection[str],
) -> dict[str, Tensor]:
    """Rename the tensors of another project, and check that they are complete and fit.

    Args:
        state: their state dict, name to tensor.
        expected: shapes of the required tensors, by our names.
        their_names: function from our name to their names; several tensors are stacked as rows.
        source: origin of the state, for messages.
        ignored: pattern of their tensors that may be ignored without a warning.
        parts: names, without layer and `.weight` or `.bias`, of all tensors that such a model may
            have. An unused tensor with such a name contradicts the configuration and is an error;
            other unused tensors are named in a warning.

    Returns:
        The tensors of `expected` by our names, in float32 on the CPU.

    Raises:
        InputError: a tensor is missing, unexpected, of the wrong shape, not floating-point or not
            finite.
    """
    theirs = {name: tuple(their_names(name)) for name in expected}
    shapes = {
        part: (expected[name][0] // len(names), *expected[name][1:])
        for name, names in theirs.items()
        for part in names
    }
    unused = sorted(name for name in state.keys() - shapes.keys() if not ignored.fullmatch(name))
    refuse_missing([name for name in shapes if name not in state], unused, source)
    refuse_shapes({name: state[name].shape for name in shapes}, shapes, source)
    _refuse_contradiction(unused, parts, source)
    if unused:
        warn(f"{source} has tensors that the model does not use, ignored: {_up_to_ten(unused)}")
    used = as_float32({name: _dense(state[name], name, source) for name in shapes}, source)
    return {
        name: used[names[0]] if len(names) == 1 else torch.cat([used[part] for part in names])
        for name, names in theirs.items()
    }


def unwrapped(state: dict[str, Tensor], source: str, *known: str) -> dict[str, Tensor]:
    """Return a state without the prefixes that wrappers of a model add to all names.

    Args:
        state: name to tensor.
        source: its origin, for the warning that names a removed prefix.
        known: prefixes of the format itself, removed without a warning.

    Returns:
        The same tensors under shorter names.
    """
    removed = ""
    while prefix := _common_prefix(state, (*known, *_WRAPPERS)):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        removed += prefix if prefix not in known else ""
    if removed:
        say(f"{source}: the prefix {removed!r} was removed from the names of all tensors")
    return state


def block_prefix(name: str) -> tuple[str, str]:
    """Split one of our names into their prefix of its block and its name inside the block.

    For example, `blocks.0.mlp.up.bias` gives `transformer.h.0.` and `mlp.up.bias`. The prefix of a
    tensor outside all blocks is empty.
    """
    if not name.startswith("blocks."):
        return "", name
    _, layer, inside = name.split(".", 2)
    return f"transformer.h.{layer}.", inside


def with_tied(
    state: dict[str, Tensor], embed: str, unembed: str, source: str, tied_by: str
) -> dict[str, Tensor]:
    """Return a state in which a tied embedding occurs once, under its name as embedding.

    Args:
        state: name to tensor.
        embed: name of the embedding.
        unembed: name of the unembedding.
        source: origin of the state, for messages.
        tied_by: why the two must be equal, for the message if they are not.

    Raises:
        InputError: it occurs under both names with different values.
    """
    present = {name: state[name] for name in (embed, unembed) if name in state}
    if len(present) == 2 and not torch.equal(present[embed], present[unembed]):
        raise InputError(f"{source}: {tied_by}, but {embed} and {unembed} differ")
    others = {name: tensor for name, tensor in state.items() if name not in present}
    return others | ({embed: next(iter(present.values()))} if present else {})


def _common_prefix(names: Collection[str], prefixes: Sequence[str]) -> str | None:
    """Return the first of some prefixes that all names have, or None."""
    if not names:
        return None
    common = (prefix for prefix in prefixes if all(name.startswith(prefix) for name in names))
    return next(common, None)


def _refuse_contradiction(unused: Sequence[str], parts: Collection[str], source: str) -> None:
    """Refuse an unused tensor of a part that the model does not have by its configuration."""
    for name in unused:
        part = _BLOCK.sub("", name)
        if part in parts or part.removesuffix(".weight").removesuffix(".bias") in parts:
            raise InputError(f"{source} has the tensor {name}, which the config has no part for")


def _dense(tensor: Tensor, name: str, source: str) -> Tensor:
    """Return a tensor with all its values in memory; refuse one that has no plain values."""
    if tensor.is_quantized or tensor.is_meta:
        kind = "quantised" if tensor.is_quantized else "without values"
        raise InputError(f"{source}: {name} is {kind}; weights must be plain numbers")
    return tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach().cpu()


def _up_to_ten(names: Sequence[str]) -> str:
    """Return up to ten names in full, more of them shortened."""
    return ", ".join(names) if len(names) <= 10 else shortened(names)
