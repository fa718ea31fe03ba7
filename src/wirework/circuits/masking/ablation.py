"""The masked forward pass: run the model with removed nodes ablated, many masks per pass.

`Masks` is the common interface: task losses of a model under masks. `Ablation` has one gate per
node; `EdgeMasks` (edge_masks.py) has gates for the nodes and edges of one circuit.
Shapes: R masks, G gates, N nodes of all sites, P pairs (two prompts each), T tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.circuits.masking.activation_cache import ActivationCache
from wirework.circuits.masking.nodes import NodeSpace
from wirework.nn import ResampleAblation, Transformer, mean_ablation
from wirework.nn.sites import NodeAblation
from wirework.renamed_names import new_name
from wirework.tasks import TokenizedPairs, logit_difference, pair_losses

_TOKENS = 6144
"""Tokens of all masks in one forward pass. At d_mlp 1024 a tensor then stays below 32 MB; malloc
returns larger ones to the system at once, and each use pays for new pages (2 to 3 times slower)."""

CHECK_TOKENS = 1536
"""Tokens per pass when checking whether one mask reaches a target, which can stop after any pass.

`losses` uses the same passes, because resampled values are drawn anew for each pass."""


_RENAMED = {"differences": "logit_diffs", "all_differences": "all_logit_diffs"}
"""Methods by the names of the version before."""


class Masks(ABC):
    """A transformer with gates on its parts: 1 keeps a part, 0 ablates it."""

    transformer: Transformer

    if not TYPE_CHECKING:  # mypy reports unknown attributes

        def __getattr__(self, name: str) -> Any:
            return getattr(self, new_name(type(self).__name__, name, _RENAMED))

    @property
    @abstractmethod
    def size(self) -> int:
        """G, the number of gates per mask."""

    @property
    @abstractmethod
    def layers(self) -> Tensor:
        """(G,) int64, the first layer whose computation depends on each gate."""

    @abstractmethod
    def applied(self, gates: Tensor) -> AbstractContextManager[None]:
        """Ablate with masks (R, G) inside a `with` block; batches are then R copies of tokens."""

    @property
    def device(self) -> torch.device:
        """Device of the transformer."""
        return self.transformer.embed.weight.device

    def logit_diffs(
        self,
        gates: Tensor,
        batch: TokenizedPairs,
        enter: tuple[int, Tensor] | None = None,
        keep: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the logit difference (right minus wrong answer) per mask, in one forward pass.

        Args:
            gates: (R, G); gradients flow to it.
            batch: P tokenised pairs.
            enter, keep: passed on to the transformer (start at a layer; collect block inputs).

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
        """Return the first-order increase in loss if each gate of one mask is set to 0, (G,).

        This is minus the gradient of the loss by the gate, summed over the prompts.
        """
        leaf = gates.detach().clone().requires_grad_()
        total = torch.zeros_like(gates)
        for pairs in length_groups(batch, 1):
            loss = pair_losses(self.logit_diffs(leaf[None], batch.select(pairs))).sum()
            total -= torch.autograd.grad(loss, leaf)[0]
        return total

    @torch.no_grad()
    def losses(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return the task loss per mask, (R,) float64 in nats, in bounded memory.

        Args:
            gates: (R, G), at least one mask.
            batch: tokenised pairs of a task.
        """
        return pair_losses(self.all_logit_diffs(gates, batch).double()).mean(1)

    @torch.no_grad()
    def within(self, gates: Tensor, batch: TokenizedPairs, target: float) -> bool:
        """Return whether the task loss of one mask is at most `target` in every ablation mode.

        Args:
            gates: (G,).
            batch: tokenised pairs of a task.
            target: nats.
        """
        return all(mode._within(gates, batch, target) for mode in self.ablation_modes())

    def ablation_modes(self) -> "tuple[Masks, ...]":
        """Return these masks once per ablation mode; a target must be met in every mode.

        The hardest mode comes first, so that most masks fail before the other modes are run.
        """
        return (self,)

    def _within(self, gates: Tensor, batch: TokenizedPairs, target: float) -> bool:
        parts = (batch.select(pairs) for pairs in length_groups(batch, 1, CHECK_TOKENS))
        logit_diffs = (self.logit_diffs(gates[None], part) for part in parts)
        return sum_at_most(
            (float(pair_losses(logit_diff.double()).sum()) for logit_diff in logit_diffs),
            target * len(batch.last_positions),
        )

    @torch.no_grad()
    def all_logit_diffs(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return `logit_diffs`, (R, 2P), in as many passes as needed for bounded memory.

        The result has the dtype and device of the model. At least one mask.
        """
        groups, by_group = length_groups(batch, 1, CHECK_TOKENS), []
        for pairs in groups:
            part = batch.select(pairs)
            trials = max(1, _TOKENS // part.tokens.numel())
            masks = (gates[first : first + trials] for first in range(0, len(gates), trials))
            logit_diffs = torch.cat([self.logit_diffs(each, part) for each in masks])
            by_group.append(logit_diffs.view(len(gates), -1, 2))
        return torch.cat(by_group, 1)[:, torch.cat(groups).argsort()].flatten(1)


@dataclass(frozen=True)
class Ablation(Masks):
    """Masks over the nodes of a transformer: removed nodes are set to their mean.

    With an activation cache, removed nodes are resample-ablated instead: they take activations of
    training text. A target must then be met with each of `n_resamples` resamples and with the mean.
    """

    transformer: Transformer
    space: NodeSpace
    means: Mapping[str, Tensor]
    """Site to (width,) mean activation: all node sites and the head outputs (`attn.y`)."""
    tie: Tensor | None = None
    """(N,) int64, gate index of each node; None if each node has its own gate."""
    activation_cache: ActivationCache | None = None
    """Activations to resample from; None for mean ablation."""
    draw: int = 0
    """Number of the resample, a seed: the same number gives the same values."""
    n_resamples: int = 1
    """How many resamples (0, 1, ...) must meet a target."""

    @classmethod
    def of(
        cls, transformer: Transformer, means: Mapping[str, Tensor], *, tie_qk: bool = False
    ) -> "Ablation":
        """Return node masks for a transformer with mean ablation.

        Args:
            transformer: the model.
            means: site to (width,), as `node_means` returns them.
            tie_qk: share one gate between query channel c and key channel c of a head, because
                attention scores depend only on their product (Gao et al. 2025, App. A.5 names
                untied masks as a limitation).
        """
        space = NodeSpace.of(transformer)
        tie = space.tie_qk().to(transformer.embed.weight.device) if tie_qk else None
        return cls(transformer, space, moved(means, transformer), tie)

    @property
    def size(self) -> int:
        """G, the number of gates: N, or fewer when q and k are tied."""
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
        """Return the same with one gate per node."""
        return replace(self, tie=None)

    def with_mean_ablation(self) -> "Ablation":
        """Return the same with mean ablation, whether or not there is an activation cache."""
        return replace(self, activation_cache=None)

    def ablation_modes(self) -> "tuple[Ablation, ...]":
        """Return one ablation per resample, if there is an activation cache, and mean ablation."""
        drawn = () if self.activation_cache is None else range(self.n_resamples)
        return (*(replace(self, draw=draw) for draw in drawn), self.with_mean_ablation())

    def nodes(self, gates: Tensor) -> Tensor:
        """Return the mask over nodes (..., N) of gates (..., G)."""
        return gates if self.tie is None else gates[..., self.tie]

    def edits(self, gates: Tensor) -> dict[str, NodeAblation]:
        """Return the site edits that ablate all nodes outside `gates`, (G,) or (R, G)."""
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
        """Ablate with masks (R, G) inside a `with` block."""
        return self.transformer.edited(self.edits(gates))


def moved(means: Mapping[str, Tensor], transformer: Transformer) -> dict[str, Tensor]:
    """Return means on the device and in the dtype of a transformer."""
    weight = transformer.embed.weight
    return {name: mean.to(weight.device, weight.dtype) for name, mean in means.items()}


def _closed(parts: Iterable[Tensor]) -> list[bool]:
    """Return per site whether all gates are constant 0, with one device synchronisation."""
    parts = list(parts)
    if any(part.requires_grad for part in parts):
        return [False] * len(parts)
    return torch.stack([part.any() for part in parts]).logical_not().tolist()


def sum_at_most(losses: Iterable[float], room: float) -> bool:
    """Return whether non-negative losses sum to at most `room`; stop early once they do not.

    A loss that is not a number counts as too large.
    """
    for loss in losses:
        room -= loss
        if not room >= 0:
            return False
    return True


def length_groups(batch: TokenizedPairs, trials: int, tokens: int = _TOKENS) -> list[Tensor]:
    """Split the pairs into groups of similar length, to keep padding small.

    Args:
        batch: tokenised pairs of a task.
        trials: masks evaluated in each forward pass.
        tokens: upper limit of tokens per group over all masks; a group has at least one pair.

    Returns:
        Indices of pairs, int64, one tensor per group.
    """
    lengths = batch.last_positions.view(-1, 2).amax(1) + 1
    by_group: list[list[int]] = [[]]
    for pair in lengths.sort(stable=True).indices.tolist():
        if by_group[-1] and 2 * trials * (len(by_group[-1]) + 1) * int(lengths[pair]) > tokens:
            by_group.append([])
        by_group[-1].append(pair)
    return [torch.tensor(group) for group in by_group]


@contextmanager
def without_weight_gradients(transformer: Transformer) -> Iterator[None]:
    """Disable gradients of the model's weights inside the block."""
    before = {p: p.requires_grad for p in transformer.parameters()}
    try:
        transformer.requires_grad_(False)
        yield
    finally:
        for parameter, needed in before.items():
            parameter.requires_grad_(needed)
