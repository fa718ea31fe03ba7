"""Masks over the nodes of a model: the forward pass with removed nodes ablated.

Shapes: R masks, G gates, N nodes of all sites, P pairs (two prompts each).
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from wirework.circuits.masking.activation_cache import ActivationCache
from wirework.circuits.masking.compact import CompactCircuit, Weights, can_be_compact
from wirework.circuits.masking.connected import (
    CONNECTED_TOKENS,
    ConnectedModel,
    can_be_connected,
)
from wirework.circuits.masking.masks import PASS_TOKENS, Masks
from wirework.circuits.masking.nodes import NodeSpace
from wirework.circuits.masking.removed_entries import RemovedEntries
from wirework.circuits.masking.value_range import ValueRange
from wirework.config import LossReduction
from wirework.nn import ResampleAblation, Transformer, mean_ablation
from wirework.nn.kernels.sparse_linear import once_if_unchanged
from wirework.nn.sites import MeanAblation, NodeAblation
from wirework.renamed_names import old_arguments, old_attributes
from wirework.tasks import TokenizedPairs

_MOST_COMPACT = 1 / 4
"""Share of kept nodes up to which a mask is run as a compact circuit: with more, its dense products
cost more than those of the sparse model."""

_LEAST_CONNECTED = 1 / 50
"""Share of kept nodes above which whole passes of a mask are run on the connected model, which is
then cheaper than a compact circuit."""

Adversary = Callable[[Masks, Tensor, TokenizedPairs, float], bool]
"""Maps masks, one of them (G,), a batch and a target to whether an attack exceeds the target."""


@old_arguments(bank="activation_cache", draws="n_resamples")
@old_attributes(at_means="with_mean_ablation", bank="activation_cache", draws="n_resamples")
@dataclass(frozen=True)
class Ablation(Masks):
    """Masks over the nodes of a transformer, with mean, resample or adversarial ablation.

    Mean ablation sets removed nodes to their mean. With an activation cache, removed nodes take
    activations of training text instead (resample ablation). A target must then be met with each of
    `n_resamples` resamples and with mean ablation. With a range, removed nodes take values that an
    adversary has found for each prompt (adversarial ablation). A target must then be met with each
    set of values in `adversaries` and with mean ablation.
    """

    transformer: Transformer
    space: NodeSpace
    means: Mapping[str, Tensor]
    """Site to (width,) mean activation: all node sites and the head outputs (`attn.y`)."""
    tie: Tensor | None = None
    """(N,) int64, gate index of each node, -1 without a gate; None if each node has its own."""
    excluded: Tensor | None = None
    """(N,) bool, nodes that are ablated under every mask; None if there are none."""
    activation_cache: ActivationCache | None = None
    """Activations to resample from; None for mean ablation."""
    draw: int = 0
    """Seed of the resample: the same number gives the same values."""
    n_resamples: int = 1
    """Number of resamples, with the seeds 0, 1, ..., that must each meet a target."""
    loss_reduction: LossReduction = "mean"
    """How losses and targets combine the two prompts of a pair."""
    value_range: ValueRange | None = None
    """Range of the adversary's values; None without adversarial ablation."""
    adversary: Adversary | None = None
    """Says whether a short attack breaks a mask; None without adversarial ablation."""
    adversaries: tuple[Tensor, ...] = ()
    """(2P, N) each, values of removed nodes for each prompt of the judging pairs, newest last."""
    prompt_values: Tensor | None = None
    """(2P, N), values of removed nodes for each prompt, in place of the means; None: the means."""

    @classmethod
    def of(
        cls, transformer: Transformer, means: Mapping[str, Tensor], *, tie_qk: bool = False
    ) -> "Ablation":
        """Return node masks for a transformer with mean ablation.

        Args:
            transformer: the model.
            means: site to (width,), the result of `node_means`.
            tie_qk: share one gate between query channel c and key channel c of a head, because
                attention scores depend only on their product. Gao et al. 2025 (App. A.5) name
                untied masks as a limitation.
        """
        space = NodeSpace.of(transformer)
        tie = space.tie_qk().to(transformer.embed.weight.device) if tie_qk else None
        return cls(transformer, space, moved(means, transformer), tie)

    @property
    def size(self) -> int:
        """G, the number of gates: N, or fewer when q and k are tied or nodes are excluded."""
        return self.space.size if self.tie is None else int(self.tie.max()) + 1

    @property
    def layers(self) -> Tensor:
        """(G,) int64, the layer of each gate's nodes."""
        by_site = {
            name: torch.full((width,), int(name.split(".")[0]))
            for name, width in self.space.widths.items()
        }
        of_nodes = self.space.join(by_site)
        return self.highest(of_nodes)

    @property
    def is_resampled(self) -> bool:
        """Whether removed nodes take resampled values."""
        return self.activation_cache is not None

    def untied(self) -> "Ablation":
        """Return the same ablation with one gate per node; those of excluded nodes do nothing."""
        return replace(self, tie=None)

    def without(self, excluded: Tensor) -> "Ablation":
        """Return the same masks without gates for some nodes, which are then always ablated.

        No search over the gates can keep such a node. A gate that is shared with another node
        stays, for that node alone.

        Args:
            excluded: (N,) bool, beside the nodes that are excluded already.
        """
        excluded = excluded.to(self.device)
        if self.excluded is not None:
            excluded = excluded | self.excluded
        before = torch.arange(len(excluded), device=self.device) if self.tie is None else self.tie
        has_node = torch.zeros(self.size, dtype=torch.bool, device=self.device)
        has_node[before[~excluded]] = True
        tie = torch.full_like(before, -1)
        tie[~excluded] = (has_node.cumsum(0) - 1)[before[~excluded]]
        return replace(self, tie=tie, excluded=excluded)

    def with_mean_ablation(self) -> "Ablation":
        """Return the same masks with mean ablation, without activation cache and adversaries."""
        return replace(
            self,
            activation_cache=None,
            value_range=None,
            adversary=None,
            adversaries=(),
            prompt_values=None,
        )

    def with_adversary(self, values: Tensor) -> "Ablation":
        """Return the same masks with one more set of values of removed nodes.

        Losses are those with these values; a target must be met with the earlier ones too.

        Args:
            values: (2P, N), for each prompt of the judging pairs.
        """
        return replace(self, adversaries=(*self.adversaries, values), prompt_values=values)

    def ablation_modes(self) -> "tuple[Ablation, ...]":
        """Return one ablation per resample and per adversary, newest first, and mean ablation."""
        seeds = () if self.activation_cache is None else range(self.n_resamples)
        return (
            *(replace(self, draw=seed) for seed in seeds),
            *(replace(self, prompt_values=values) for values in reversed(self.adversaries)),
            self.with_mean_ablation(),
        )

    def withstands(self, gates: Tensor, batch: TokenizedPairs, target: float) -> bool:
        """Return whether a mask stays within a target under attack; see `Masks.withstands`."""
        return self.adversary is None or not self.adversary(self, gates, batch, target)

    def of_batch(self, batch: TokenizedPairs) -> "Ablation":
        """Return the masks with the values of a batch's prompts; see `Masks.of_batch`."""
        if self.prompt_values is None or batch.numbers is None:
            return self
        return replace(self, prompt_values=self.prompt_values[batch.numbers])

    def nodes(self, gates: Tensor) -> Tensor:
        """Return the mask over nodes, (..., N), that gates (..., G) stand for."""
        if self.excluded is None:
            return gates if self.tie is None else gates[..., self.tie]
        if self.tie is not None:
            gates = F.pad(gates, (0, 1))[..., self.tie.to(gates.device)]  # -1 reads the padding
        return gates.masked_fill(self.excluded.to(gates.device), 0)

    def highest(self, values: Tensor) -> Tensor:
        """Return for each gate, (G,), the highest of the values (N,) of its nodes."""
        if self.tie is None:
            return values
        tie = self.tie.to(values.device)
        has_gate = tie >= 0
        by_gate = values.new_zeros(self.size)
        return by_gate.scatter_reduce(
            0, tie[has_gate], values[has_gate], "amax", include_self=False
        )

    def edits(self, gates: Tensor) -> dict[str, NodeAblation]:
        """Return the edits that ablate all removed nodes, by site.

        Args:
            gates: (G,) or (R, G).
        """
        masks = self.space.split(self.nodes(gates.to(self.device)))
        is_closed = dict(zip(masks, _all_closed(masks.values()), strict=True))
        if self.prompt_values is not None:
            by_site = self.space.split(self.prompt_values)
            return {
                name: sequence_ablation(mask, by_site[name], is_closed[name])
                for name, mask in masks.items()
            }
        if self.activation_cache is None:
            return {
                name: mean_ablation(mask, self.means[name], is_closed[name])
                for name, mask in masks.items()
            }
        return {
            name: ResampleAblation(
                mask, self.activation_cache[name], self._generator(site), is_closed[name]
            )
            for site, (name, mask) in enumerate(masks.items())
        }

    def _generator(self, site: int) -> torch.Generator:
        """Return the generator of a site, by its number; each site of a resample has its own."""
        return torch.Generator().manual_seed(self.draw * self.space.size + site)

    def applied(self, gates: Tensor) -> AbstractContextManager[None]:
        """Ablate with masks (R, G) inside a `with` block; see `Masks.applied`."""
        return self.transformer.edited(self.edits(gates))

    def compact(
        self,
        gates: Tensor,
        weights: Weights | None = None,
        removed_entries: RemovedEntries | None = None,
    ) -> CompactCircuit | None:
        """Return a small model of one mask; see `Masks.compact`.

        Args:
            gates: (G,).
            weights: weights and biases of the linear layers; None for those of the model.
            removed_entries: removed embedding entries; None if there are none.
        """
        has_means = self.activation_cache is None and self.prompt_values is None
        if not has_means or not can_be_compact(self.transformer):
            return None
        mask = self.nodes(gates.detach())
        kept = mask.nonzero().flatten()
        if len(kept) > _MOST_COMPACT * len(mask) or not bool((mask[kept] == 1).all()):
            return None
        channels = self.space.channels(kept)
        return CompactCircuit(self.transformer, channels, self.means, weights, removed_entries)

    def connected(self) -> ConnectedModel | None:
        """Return a model of the connected nodes; None where its outputs would differ.

        The weights must not change while it is used.
        """
        if not can_be_connected(self):
            return None
        return once_if_unchanged(lambda *_: ConnectedModel(self), self.transformer, self.means)

    def _small_circuit(self, gates: Tensor) -> CompactCircuit | None:
        is_large = self.nodes(gates).count_nonzero() > _LEAST_CONNECTED * self.space.size
        return None if is_large and can_be_connected(self) else self.compact(gates)

    @property
    def tokens_together(self) -> int:
        """Tokens of all masks that `logit_diffs_together` should get."""
        return CONNECTED_TOKENS if can_be_connected(self) else PASS_TOKENS

    def logit_diffs_together(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return `logit_diffs` of masks (R, G), from the connected model if there is one."""
        connected = self.connected()
        if connected is None:
            return self.logit_diffs(gates, batch)
        return connected.logit_diffs(self.nodes(gates), batch)


def moved(means: Mapping[str, Tensor], transformer: Transformer) -> dict[str, Tensor]:
    """Return means on the device and in the dtype of a transformer."""
    weight = transformer.embed.weight
    return {name: mean.to(weight.device, weight.dtype) for name, mean in means.items()}


def sequence_ablation(mask: Tensor, values: Tensor, closed: bool | None = None) -> MeanAblation:
    """Return the edit that sets the removed nodes of a site to values of each prompt.

    Args:
        mask: (N,) or (R, N); for R masks the batch is R copies of the prompts.
        values: (2P, N), the same for all masks.
        closed: as `mean_ablation` takes it.
    """
    masks = mask.view(-1, mask.shape[-1]).to(values.dtype)
    gates = masks.repeat_interleave(len(values), 0)[:, None]
    return MeanAblation(gates, values.repeat(len(masks), 1)[:, None], closed)


def _all_closed(masks: Iterable[Tensor]) -> list[bool]:
    """Return for each site whether its mask is 0 everywhere and needs no gradient.

    All sites are checked together, so that an accelerator is waited for only once.
    """
    masks = list(masks)
    if any(mask.requires_grad for mask in masks):
        return [False] * len(masks)
    return torch.stack([mask.any() for mask in masks]).logical_not().tolist()
