"""The masked forward pass: run the model with removed nodes ablated, many masks per pass.

- `Masks` is the common interface: logit differences and task losses of a model under masks.
- `Ablation` has one gate per node of the model.
- `EdgeMasks` (edge_masks.py) has one gate per node and per edge of one circuit.

Shapes: R masks, G gates, N nodes of all sites, P pairs (two prompts each), T tokens, D d_model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
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
from wirework.circuits.masking.nodes import NodeSpace
from wirework.circuits.masking.removed_entries import RemovedEntries
from wirework.circuits.masking.value_range import ValueRange
from wirework.config import LossReduction
from wirework.nn import ResampleAblation, Transformer, mean_ablation
from wirework.nn.kernels.sparse_linear import once_if_unchanged, unchanged_weights
from wirework.nn.sites import MeanAblation, NodeAblation
from wirework.renamed_names import old_arguments, old_attributes
from wirework.tasks import TokenizedPairs, logit_difference, pair_losses
from wirework.tasks.task_loss import largest_sum, task_loss

_TOKENS = 6144
"""Tokens of all masks in one forward pass. At d_mlp 1024 a tensor of so many tokens is smaller than
32 MB. malloc returns larger ones to the system when they are freed, so that each new one pays for
fresh pages, which is 2 to 3 times slower."""

_MOST_COMPACT = 1 / 4
"""Share of kept nodes up to which a mask is run as a compact circuit: with more, its dense products
cost more than those of the sparse model."""

_LEAST_CONNECTED = 1 / 50
"""Share of kept nodes above which whole passes of a mask are run on the connected model, which is
then cheaper than a compact circuit."""

MaskPass = Callable[[TokenizedPairs, tuple[int, Tensor] | None, list[Tensor] | None], Tensor]
"""Maps a batch, `start_from` and `block_inputs` to the logit differences of one mask, (2P,)."""

Adversary = Callable[["Masks", Tensor, TokenizedPairs, float], bool]
"""Maps masks, one of them (G,), a batch and a target to whether an attack exceeds the target."""

CHECK_TOKENS = 1536
"""Tokens per pass of one mask. `Masks.within` stops after the first pass that decides, so small
passes save time. `losses` uses the same passes, because resampled values differ from pass to pass:
with others, the two would disagree."""


_FIRST_TOKENS = 384
"""Tokens of the first pass of `Masks.within`, which decides about masks far from the target."""


@old_attributes(
    all_differences="all_logit_diffs",
    differences="logit_diffs",
    falls="loss_increase",
    views="ablation_modes",
)
class Masks(ABC):
    """A transformer with gates on its parts: 1 keeps a part, 0 ablates it."""

    transformer: Transformer

    @property
    @abstractmethod
    def size(self) -> int:
        """G, the number of gates per mask."""

    @property
    @abstractmethod
    def layers(self) -> Tensor:
        """(G,) int64, by gate the first layer that depends on it; -1 for the embedding."""

    @abstractmethod
    def applied(self, gates: Tensor) -> AbstractContextManager[None]:
        """Apply masks (R, G) to the model inside a `with` block.

        A batch inside the block is R copies of the same prompts, one after the other; copy r is
        ablated with mask r.
        """

    def of_batch(self, batch: TokenizedPairs) -> "Masks":  # noqa: ARG002
        """Return the masks with the ablation values of a batch's prompts, if they have their own.

        `applied` then takes this batch alone.
        """
        return self

    @property
    def device(self) -> torch.device:
        """Device of the transformer."""
        return self.transformer.embed.weight.device

    @old_arguments(rows="batch", enter="start_from", keep="block_inputs")
    def logit_diffs(
        self,
        gates: Tensor,
        batch: TokenizedPairs,
        start_from: tuple[int, Tensor] | None = None,
        block_inputs: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the logit difference (right minus wrong answer) per mask, in one forward pass.

        Args:
            gates: (R, G); gradients flow to it.
            batch: P tokenised pairs.
            start_from: a layer and the residual stream before it, (2PR, T, D), to skip the layers
                before it; None to run all.
            block_inputs: list to which the residual stream before each block is appended.

        Returns:
            (R, 2P), in the dtype of the logits.
        """
        n_masks = len(gates)
        with self.of_batch(batch).applied(gates):
            logits = self.transformer(
                batch.tokens.repeat(n_masks, 1),
                batch.last_positions.repeat(n_masks),
                start_from,
                block_inputs,
            )
        return logit_difference(logits, batch.answers.repeat(n_masks, 1)).view(n_masks, -1)

    @abstractmethod
    def compact(self, gates: Tensor) -> CompactCircuit | None:
        """Return a small model with the outputs of one mask (G,); None to run the masked model."""

    def pass_of(self, gates: Tensor) -> MaskPass:
        """Return the forward pass of one mask (G,) without gradients, in the cheapest way.

        The weights must not change before the last call.
        """
        compact = self.compact(gates)
        if compact is not None:
            return compact.logit_diffs
        return lambda *inputs: self.logit_diffs(gates[None], *inputs)[0]

    def _small_circuit(self, gates: Tensor) -> CompactCircuit | None:
        """Return a small model of one mask (G,) if whole passes of it are cheapest, or None."""
        return self.compact(gates)

    def logit_diffs_together(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return `logit_diffs` of masks (R, G) in the cheapest way for many large masks.

        Gradients flow to the gates. The order of sums may be another one.
        """
        return self.logit_diffs(gates, batch)

    @old_arguments(rows="batch")
    @unchanged_weights()
    def loss_increase(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return the first-order increase in loss if a single gate of one mask is set to 0.

        This is minus the gradient of the loss with respect to the gate, summed over the prompts.

        Args:
            gates: (G,), one mask.
            batch: tokenised pairs of a task.

        Returns:
            (G,), nats, summed over the prompts.
        """
        leaf = gates.detach().clone().requires_grad_()
        total = torch.zeros_like(gates)
        for pairs in length_groups(batch, 1):
            loss = pair_losses(self.logit_diffs_together(leaf[None], batch.select(pairs))).sum()
            total -= torch.autograd.grad(loss, leaf)[0]
        return total

    @old_arguments(rows="batch")
    @torch.no_grad()
    @unchanged_weights()
    def losses(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return the task loss of each mask, in as many passes as needed for bounded memory.

        Args:
            gates: (R, G), at least one mask.
            batch: tokenised pairs of a task.

        Returns:
            (R,) float64, nats.
        """
        return task_loss(self.all_logit_diffs(gates, batch), self.loss_reduction)

    @old_arguments(rows="batch")
    @torch.no_grad()
    @unchanged_weights()
    def within(self, gates: Tensor, batch: TokenizedPairs, target: float) -> bool:
        """Return whether the task loss of one mask is at most `target` in every ablation mode.

        Args:
            gates: (G,).
            batch: tokenised pairs of a task.
            target: nats.
        """
        in_modes = (mode._within(gates, batch, target) for mode in self.ablation_modes())
        return all(in_modes) and self.withstands(gates, batch, target)

    def withstands(self, gates: Tensor, batch: TokenizedPairs, target: float) -> bool:  # noqa: ARG002
        """Return whether one mask stays within a target under a short attack, if there is one."""
        return True

    @property
    def is_resampled(self) -> bool:
        """Whether removed nodes take resampled values, which differ from pass to pass."""
        return False

    @property
    def loss_reduction(self) -> LossReduction:
        """How losses and targets combine the two prompts of a pair."""
        return "mean"

    def ablation_modes(self) -> "tuple[Masks, ...]":
        """Return these masks once per ablation mode; a target must be met in every mode.

        The mode that most masks fail comes first, so that the others are seldom run.
        """
        return (self,)

    def _within(self, gates: Tensor, batch: TokenizedPairs, target: float) -> bool:
        groups = (
            length_groups(batch, 1, CHECK_TOKENS) if self.is_resampled else _checked_groups(batch)
        )
        compact = self._small_circuit(gates)
        parts = (batch.select(pairs) for pairs in groups)
        by_part = (
            self.logit_diffs_together(gates[None], part)
            if compact is None
            else compact.logit_diffs(part)
            for part in parts
        )
        return sum_at_most(
            (float(pair_losses(logit_diffs.double()).sum()) for logit_diffs in by_part),
            largest_sum(target, len(batch.last_positions), self.loss_reduction),
        )

    @old_arguments(rows="batch")
    @torch.no_grad()
    @unchanged_weights()
    def all_logit_diffs(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return `logit_diffs` of any number of masks, in several passes for bounded memory.

        Args:
            gates: (R, G), at least one mask.
            batch: P tokenised pairs of a task.

        Returns:
            (R, 2P), on the device of the model and in the dtype of its logits.
        """
        groups, by_group = length_groups(batch, 1, CHECK_TOKENS), []
        compact = [self._small_circuit(mask) for mask in gates]
        is_plain = torch.tensor([circuit is None for circuit in compact])
        for pairs in groups:
            part = batch.select(pairs)
            by_mask = [circuit.logit_diffs(part) for circuit in compact if circuit is not None]
            n_masks = max(1, _TOKENS // part.tokens.numel())
            for some in torch.split(gates[is_plain], n_masks):
                by_mask.extend(self.logit_diffs_together(some, part) if len(some) else ())
            # Compact circuits come first, so that the order of the masks is restored.
            order = is_plain.sort(stable=True).indices.argsort()
            by_group.append(torch.stack(by_mask)[order].view(len(gates), -1, 2))
        return torch.cat(by_group, 1)[:, torch.cat(groups).argsort()].flatten(1)


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
        return CONNECTED_TOKENS if can_be_connected(self) else _TOKENS

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


def sum_at_most(losses: Iterable[float], limit: float) -> bool:
    """Return whether losses add up to at most a limit; stop at the first that exceeds it.

    Args:
        losses: numbers that are not negative; NaN counts as too large.
        limit: the largest allowed sum.
    """
    for loss in losses:
        limit -= loss
        if not limit >= 0:  # also true for NaN
            return False
    return True


def length_groups(batch: TokenizedPairs, n_masks: int, tokens: int = _TOKENS) -> list[Tensor]:
    """Split the pairs into groups of similar length, to keep padding small.

    Args:
        batch: tokenised pairs of a task.
        n_masks: masks evaluated in each forward pass.
        tokens: upper limit of tokens per group over all masks; a group has at least one pair.

    Returns:
        Indices of pairs, int64, one tensor per group, from the shortest to the longest pair.
    """
    lengths = batch.last_positions.view(-1, 2).amax(1) + 1
    groups: list[list[int]] = [[]]
    for pair in lengths.sort(stable=True).indices.tolist():
        if groups[-1] and 2 * n_masks * (len(groups[-1]) + 1) * int(lengths[pair]) > tokens:
            groups.append([])
        groups[-1].append(pair)
    return [torch.tensor(group) for group in groups]


def _checked_groups(batch: TokenizedPairs) -> list[Tensor]:
    """Split the pairs as `length_groups`, the first few shortest ones apart."""
    first, *others = length_groups(batch, 1, _FIRST_TOKENS)
    if not others:
        return [first]
    rest = torch.cat(others)
    return [first, *(rest[group] for group in length_groups(batch.select(rest), 1, CHECK_TOKENS))]


@contextmanager
def without_weight_gradients(transformer: Transformer) -> Iterator[None]:
    """Switch off the gradients of a model's weights inside the block, and restore them after it."""
    before = {parameter: parameter.requires_grad for parameter in transformer.parameters()}
    try:
        transformer.requires_grad_(False)
        yield
    finally:
        for parameter, requires_grad in before.items():
            parameter.requires_grad_(requires_grad)
