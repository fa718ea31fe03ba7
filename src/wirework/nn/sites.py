"""Sites: named places in the forward pass where activations are recorded, ablated or edited.

A `Site` applies AbsTopK (if the model has it there), then its edits. All interventions in this
library use sites. Site names follow the released files of Gao et al. 2025: `3.mlp.post_act` is the
module `blocks.3.mlp.post_act`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from wirework.errors import InputError, nearest
from wirework.nn.activation import Activation, activate
from wirework.nn.kernels.gelu_top_k import activate_like_top_k, activated_top_k
from wirework.nn.kernels.mask_gates import ablated, can_be_ablated
from wirework.nn.kernels.top_k import abs_top_k
from wirework.renamed_names import old_arguments

Edit = Callable[[Tensor], Tensor]
"""Maps the activation (B, T, width) at a site to its replacement of the same shape."""


class Site(nn.Module):
    """A module in the forward pass that returns its input, after AbsTopK and edits.

    Args:
        width: entries per token.
        k: how many of them AbsTopK keeps; None keeps all.
    """

    def __init__(self, width: int, k: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.k = k
        self.edits: tuple[Edit, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, width): AbsTopK of `x`, then the edits in the order they were added."""
        if self.k is not None and not self.is_constant:
            x = abs_top_k(x, self.k)
        return self._edited(x)

    def activated(self, x: Tensor, activation: Activation) -> Tensor:
        """Return the output of the site for the input `activate(x, activation)`, (B, T, width).

        The non-linearity and AbsTopK are one operation, unless a hook of the module may need what
        is between them. The bits are the same then.
        """
        if self.k is None or self.is_constant:
            out: Tensor = self(activate(x, activation))
        elif is_hooked(self):
            out = self(activate_like_top_k(x, activation))
        else:
            out = self._edited(activated_top_k(x, activation, self.k))
        return out

    @property
    def acts(self) -> bool:
        """Whether the site changes its input or has hooks."""
        return self.k is not None or bool(self.edits) or is_hooked(self)

    @property
    def is_constant(self) -> bool:
        """Whether the first edit replaces all nodes, so that the input need not be computed."""
        first = self.edits[0] if self.edits else None
        return isinstance(first, NodeAblation) and first.constant

    def constant_value(self, like: Tensor) -> Tensor:
        """Return the output (B, T, width) of a constant site, without its input.

        Args:
            like: (B, T, ...), for the shape, dtype and device.
        """
        return self._edited(like.new_zeros(*like.shape[:-1], self.width))

    def _edited(self, x: Tensor) -> Tensor:
        for edit in self.edits:
            shape = x.shape
            x = edit(x)
            if x.shape != shape:
                raise InputError(f"an edit turned shape {tuple(shape)} into {tuple(x.shape)}")
        return x

    def extra_repr(self) -> str:
        """Show width and k when the model is printed."""
        return f"{self.width}" if self.k is None else f"{self.width}, k={self.k}"


def find_sites(module: nn.Module) -> dict[str, Site]:
    """Return every site below `module` by its public name, in execution order."""
    return {
        name.removeprefix("blocks."): part
        for name, part in module.named_modules()
        if isinstance(part, Site)
    }


def look_up(sites: Mapping[str, Site], names: Iterable[str]) -> dict[str, Site]:
    """Return the named sites.

    Raises:
        InputError: a name is no site of this model.
    """
    chosen = {}
    for name in names:
        if name not in sites:
            raise InputError(f"no site {name!r} in this model{nearest(name, sites)}")
        chosen[name] = sites[name]
    return chosen


@contextmanager
def edited(sites: Mapping[str, Site], edits: Mapping[str, Edit]) -> Iterator[None]:
    """Add edits to sites inside a `with` block; they are always removed after it.

    Edits nest: those of an inner block act on the result of the outer ones.

    Raises:
        InputError: a name is no site of this model.
    """
    chosen = look_up(sites, edits)
    before = {name: site.edits for name, site in chosen.items()}
    try:
        for name, site in chosen.items():
            site.edits = (*site.edits, edits[name])
        yield
    finally:
        for name, site in chosen.items():
            site.edits = before[name]


@contextmanager
def recorded(sites: Mapping[str, Site], names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of sites in the forward pass run inside the block.

    Raises:
        InputError: a name is no site of this model.
    """
    values: dict[str, Tensor] = {}

    def recorder(name: str) -> Edit:
        def record(x: Tensor) -> Tensor:
            values[name] = x
            return x

        return record

    with edited(sites, {name: recorder(name) for name in look_up(sites, names)}):
        yield values


def mean_ablation(gates: Tensor, mean: Tensor, closed: bool | None = None) -> "NodeAblation":
    """Return the edit that mean-ablates the nodes outside the gates, for one or many masks.

    Args:
        gates: (N,) or (R, N), 1 (or True) where a node is kept; values between blend, gradients
            flow to it.
        mean: (N,) mean activation, the value of a removed node at every position.
        closed: whether all gates are constant 0, if the caller knows; None to check, which
            synchronises with the device.

    Returns:
        An edit for (B, T, N), where for R masks the batch is R copies of the sequences, and copy r
        gets mask r.

    Source: Gao et al. 2025, sec. 2.2, App. A.5.
    """
    if gates.shape[-1] != mean.shape[-1] or gates.dim() > 2 or mean.dim() != 1:
        raise InputError(
            f"gates {tuple(gates.shape)} and mean {tuple(mean.shape)} do not cover the same nodes"
        )
    return MeanAblation(gates.to(mean.dtype), mean, closed)


class NodeAblation(ABC):
    """An edit that replaces the activations of nodes outside its gates.

    Args:
        gates: (N,) or (R, N).
        closed: as `mean_ablation` takes it.
    """

    def __init__(self, gates: Tensor, closed: bool | None) -> None:
        self.gates = gates
        if closed is None:
            closed = not gates.requires_grad and not bool(gates.any())
        self.constant = closed
        """Whether the output does not depend on the input."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Return (B, T, N) with the nodes outside the gates replaced."""


class MeanAblation(NodeAblation):
    """The edit that `mean_ablation` returns.

    Args:
        gates: (N,), (R, N) or, of each sequence, (B, 1, N).
        mean: (N,), or with gates (N,) and (B, 1, N) also (B, 1, N), values of each sequence;
            gradients flow to it.
        closed: as `mean_ablation` takes it.
    """

    def __init__(self, gates: Tensor, mean: Tensor, closed: bool | None = None) -> None:
        super().__init__(gates, closed)
        self.mean = mean
        self.ablated_part = (1 - gates) * mean

    def __call__(self, x: Tensor) -> Tensor:
        """Return (B, T, N) with the nodes outside the gates set to their mean."""
        gates, ablated_part = self.gates, self.ablated_part
        if gates.dim() != 2:
            return x * gates + ablated_part
        n_masks = gates.shape[0]
        if x.shape[0] % n_masks:
            raise InputError(f"{x.shape[0]} sequences are not a multiple of {n_masks} masks")
        by_mask = x.view(n_masks, -1, *x.shape[1:])  # (R, B/R, T, N)
        if can_be_ablated(x, gates, self.mean):
            return ablated(by_mask.flatten(1, 2), gates, self.mean).view(x.shape)
        return (by_mask * gates[:, None, None] + ablated_part[:, None, None]).flatten(0, 1)


class ResampleAblation(NodeAblation):
    """Resample ablation: removed nodes take their activation at random tokens, drawn per call.

    All channels of a position come from one token; sequences and positions are drawn independently,
    all masks use the same draws.

    Args:
        gates: (N,) or (R, N).
        values: (S, N), activations of all nodes at S tokens.
        generator: random generator of the draws.
        closed: as `mean_ablation` takes it.

    Source: Gao et al. 2025, App. E.
    """

    @old_arguments(dice="generator")
    def __init__(
        self, gates: Tensor, values: Tensor, generator: torch.Generator, closed: bool | None = None
    ) -> None:
        super().__init__(gates, closed)
        self.values = values
        self.generator = generator

    def __call__(self, x: Tensor) -> Tensor:
        """Return (B, T, N) with the nodes outside the gates set to drawn activations."""
        by_mask = x.view(self.gates.shape[:-1].numel(), -1, *x.shape[1:])  # (R, B/R, T, N)
        places = torch.randint(len(self.values), by_mask.shape[1:3], generator=self.generator)
        drawn = self.values[places.to(x.device)]
        gates = self.gates.view(len(by_mask), 1, 1, -1)
        return torch.lerp(drawn.expand_as(by_mask), by_mask, gates).flatten(0, 1)


def all_constant(sublayer: nn.Module, last: Site) -> bool:
    """Return whether a sublayer's output is constant and nothing inside it is recorded.

    Then only its last site needs to be computed. Circuits are small, so most sublayers have no kept
    node.
    """
    if not last.is_constant:
        return False
    for part in sublayer.modules():
        edits = part.edits if isinstance(part, Site) and part is not last else ()
        if is_hooked(part) or not all(isinstance(edit, NodeAblation) for edit in edits):
            return False
    return True


def nothing_acts(modules: Iterable[nn.Module]) -> bool:
    """Return whether no site in the modules acts, and no part of them has hooks."""
    parts = [part for module in modules for part in module.modules()]
    return not any(part.acts if isinstance(part, Site) else is_hooked(part) for part in parts)


def is_hooked(module: nn.Module) -> bool:
    """Return whether a hook of torch sees a call of the module: its own, or one of all modules."""
    own = (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
    return bool(own or _has_any_global_hook())  # type: ignore[no-untyped-call]
