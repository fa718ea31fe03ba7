"""The model with some of its parts: mean ablation of the rest, many masks in one forward pass.

`Masks` is what every kind of mask shares; its gates stand for nodes in `Ablation`, for the nodes
and edges of one circuit in `EdgeMasks` (wiring.py).
Shapes: R masks, G gates, N nodes of all sites, P pairs (two rows each), T tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wirework.circuits.masking.activation_cache import ActivationCache
from wirework.circuits.masking.nodes import NodeSpace
from wirework.nn import Edit, ResampleAblation, Transformer, mean_ablation
from wirework.tasks import TokenizedPairs, logit_difference, pair_losses

_TOKENS = 6144
"""Tokens of all masks in one pass. At d_mlp 1024 a tensor then stays below the 32 MB above which
malloc gives memory back at once and every use pays for fresh pages, 2 to 3 times the cost."""

CHECK_TOKENS = 1536
"""Tokens of one mask in a pass where a verdict may come after any of them. Losses are taken in the
same parts, as the values that removed nodes are given are drawn part by part."""


class Masks(ABC):
    """A transformer and gates on its parts, 1 kept and 0 frozen at what it gives on average."""

    transformer: Transformer

    @property
    @abstractmethod
    def size(self) -> int:
        """G, the number of gates of a mask."""

    @property
    @abstractmethod
    def layers(self) -> Tensor:
        """(G,) int64, the first layer that each gate has a say in."""

    @abstractmethod
    def applied(self, gates: Tensor) -> AbstractContextManager[None]:
        """Put masks (R, G) on the transformer for a `with` block; a batch is then R copies."""

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self.transformer.embed.weight.device

    def differences(
        self,
        gates: Tensor,
        batch: TokenizedPairs,
        enter: tuple[int, Tensor] | None = None,
        keep: list[Tensor] | None = None,
    ) -> Tensor:
        """Return right minus wrong logit under each mask, in one forward pass.

        Args:
            gates: (R, G); gradients flow to it.
            batch: a task, 2P rows.
            enter, keep: as the transformer takes them.

        Returns:
            (R, 2P).
        """
        trials = len(gates)
        with self.applied(gates):
            tokens, last_positions = (
                batch.tokens.repeat(trials, 1),
                batch.last_positions.repeat(trials),
            )
            logits = self.transformer(tokens, last_positions, enter, keep)
        return logit_difference(logits, batch.answers.repeat(trials, 1)).view(trials, -1)

    def loss_increase(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return minus the gradient of the loss, summed over rows, by each gate of one mask, (G,).

        To first order that is the rise in loss when an open gate is closed.
        """
        leaf = gates.detach().clone().requires_grad_()
        total = torch.zeros_like(gates)
        for pairs in length_groups(batch, 1):
            loss = pair_losses(self.differences(leaf[None], batch.select(pairs))).sum()
            total -= torch.autograd.grad(loss, leaf)[0]
        return total

    @torch.no_grad()
    def losses(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return the task loss under each mask, (R,) float64 in nats, in bounded memory.

        Args:
            gates: (R, G), one mask or more.
            batch: a task.
        """
        return pair_losses(self.all_differences(gates, batch).double()).mean(1)

    @torch.no_grad()
    def within(self, gates: Tensor, batch: TokenizedPairs, target: float) -> bool:
        """Return whether the task loss under one mask is at most `target` in each of the views.

        Args:
            gates: (G,).
            batch: a task.
            target: nats.
        """
        return all(mode._within(gates, batch, target) for mode in self.ablation_modes())

    def ablation_modes(self) -> "tuple[Masks, ...]":
        """Return the same gates with each of the ways to freeze in which a target must be met.

        The hardest comes first, so that most masks fail before the others are looked at.
        """
        return (self,)

    def _within(self, gates: Tensor, batch: TokenizedPairs, target: float) -> bool:
        parts = (batch.select(pairs) for pairs in length_groups(batch, 1, CHECK_TOKENS))
        logit_diffs = (self.differences(gates[None], part) for part in parts)
        return sum_at_most(
            (float(pair_losses(logit_diff.double()).sum()) for logit_diff in logit_diffs),
            target * len(batch.last_positions),
        )

    @torch.no_grad()
    def all_differences(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return what `differences` does, (R, 2P), in as many passes as memory asks for.

        In the model's dtype and on its device, wherever the gates (at least one mask) are.
        """
        groups, by_group = length_groups(batch, 1, CHECK_TOKENS), []
        for pairs in groups:
            part = batch.select(pairs)
            trials = max(1, _TOKENS // part.tokens.numel())
            some = (gates[first : first + trials] for first in range(0, len(gates), trials))
            logit_diffs = torch.cat([self.differences(masks, part) for masks in some])
            by_group.append(logit_diffs.view(len(gates), -1, 2))
        return torch.cat(by_group, 1)[:, torch.cat(groups).argsort()].flatten(1)


@dataclass(frozen=True)
class Ablation(Masks):
    """Masks over the nodes of a transformer; a removed node is frozen at its mean.

    With a bank it takes values of training text instead, and a target must be met in each of a few
    draws of them and with the means.
    """

    transformer: Transformer
    space: NodeSpace
    means: Mapping[str, Tensor]
    """Resting site to (width,): of the nodes, and of what attention gives (`attn.y`)."""
    tie: Tensor | None = None
    """(N,) int64, the gate of each node; None where each has its own."""
    activation_cache: ActivationCache | None = None
    """Values to draw from; None to freeze at the means."""
    draw: int = 0
    """Which draw of them: the same one gives the same values."""
    n_resamples: int = 1
    """In how many of them, from the first on, a target must be met."""

    @classmethod
    def of(
        cls, transformer: Transformer, means: Mapping[str, Tensor], *, tie_qk: bool = False
    ) -> "Ablation":
        """Put a transformer and the means of its nodes (site to (width,)) together.

        Args:
            transformer: the model.
            means: as `node_means` returns them.
            tie_qk: give query channel c and key channel c of a head one gate, as their product is
                all that a score sees (Gao et al. 2025, App. A.5 names untied masks as a regret).
        """
        space = NodeSpace.of(transformer)
        tie = space.tie_qk().to(transformer.embed.weight.device) if tie_qk else None
        return cls(transformer, space, moved(means, transformer), tie)

    @property
    def size(self) -> int:
        """How many gates there are: N, or fewer where nodes are tied."""
        return self.space.size if self.tie is None else int(self.tie.max()) + 1

    @property
    def layers(self) -> Tensor:
        """(G,) int64, the layer of each gate's nodes."""
        parts = {
            name: torch.full((width,), int(name.split(".")[0]))
            for name, width in self.space.widths.items()
        }
        each = self.space.join(parts)
        if self.tie is None:
            return each
        return torch.empty(self.size, dtype=torch.int64).scatter_(0, self.tie.cpu(), each)

    def untied(self) -> "Ablation":
        """Return the same with a gate for each node."""
        return replace(self, tie=None)

    def with_mean_ablation(self) -> "Ablation":
        """Return the same with removed nodes frozen at their means, bank or not."""
        return replace(self, activation_cache=None)

    def ablation_modes(self) -> "tuple[Ablation, ...]":
        """Return this with each of the draws, if there is a bank, and with the means."""
        drawn = () if self.activation_cache is None else range(self.n_resamples)
        return (*(replace(self, draw=draw) for draw in drawn), self.with_mean_ablation())

    def nodes(self, gates: Tensor) -> Tensor:
        """Return the nodes' part (..., N) of gates (..., G)."""
        return gates if self.tie is None else gates[..., self.tie]

    def edits(self, gates: Tensor) -> dict[str, Edit]:
        """Return the edits that keep the nodes in `gates`, (G,) or (R, G)."""
        parts = self.space.split(self.nodes(gates.to(self.device)))
        closed = dict(zip(parts, _closed(parts.values()), strict=True))
        if self.activation_cache is None:
            return {
                name: mean_ablation(part, self.means[name], closed[name])
                for name, part in parts.items()
            }
        return {
            name: ResampleAblation(
                part, self.activation_cache[name], self._generator(place), closed[name]
            )
            for place, (name, part) in enumerate(parts.items())
        }

    def _generator(self, site: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.draw * self.space.size + site)

    def applied(self, gates: Tensor) -> AbstractContextManager[None]:
        """Put masks (R, G) on the transformer for a `with` block."""
        return self.transformer.edited(self.edits(gates))


def moved(means: Mapping[str, Tensor], transformer: Transformer) -> dict[str, Tensor]:
    """Return means on the device and in the dtype of a transformer."""
    weight = transformer.embed.weight
    return {name: mean.to(weight.device, weight.dtype) for name, mean in means.items()}


def _closed(parts: Iterable[Tensor]) -> list[bool]:
    """Return which sites' gates are all 0 and not learned, in one wait for the device."""
    parts = list(parts)
    if any(part.requires_grad for part in parts):
        return [False] * len(parts)
    return torch.stack([part.any() for part in parts]).logical_not().tolist()


def sum_at_most(losses: Iterable[float], room: float) -> bool:
    """Return whether losses, none of them negative, add up to at most `room`.

    Takes no more of them after those that are too many already, or not a number.
    """
    for loss in losses:
        room -= loss
        if not room >= 0:
            return False
    return True


def length_groups(batch: TokenizedPairs, trials: int, tokens: int = _TOKENS) -> list[Tensor]:
    """Part the pairs into groups of like length, so that little of a pass is padding.

    Args:
        batch: a task.
        trials: masks that will ride on each pass.
        tokens: most tokens of a group over all trials, if it can be.

    Returns:
        Indices of pairs, int64.
    """
    lengths = batch.last_positions.view(-1, 2).amax(1) + 1
    by_group: list[list[int]] = [[]]
    for pair in lengths.sort(stable=True).indices.tolist():
        if by_group[-1] and 2 * trials * (len(by_group[-1]) + 1) * int(lengths[pair]) > tokens:
            by_group.append([])
        by_group[-1].append(pair)
    return [torch.tensor(group) for group in by_group]


@contextmanager
def frozen(transformer: Transformer) -> Iterator[None]:
    """Take no gradients of the weights inside the block."""
    before = {p: p.requires_grad for p in transformer.parameters()}
    try:
        transformer.requires_grad_(False)
        yield
    finally:
        for parameter, needed in before.items():
            parameter.requires_grad_(needed)
