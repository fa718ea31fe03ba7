"""Masks: the common interface to a model with gates on its parts, many masks per pass.

- `Ablation` (ablation.py) has one gate per node of the model.
- `EdgeMasks` (edge_masks.py) has one gate per node and per edge of one circuit.

Logit differences, task losses and their gradients are computed here, in passes of bounded memory.
Shapes: R masks, G gates, P pairs (two prompts each), T tokens, D d_model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from wirework.circuits.masking.compact import CompactCircuit
from wirework.config import LossReduction
from wirework.nn import Transformer
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.renamed_names import old_arguments, old_attributes
from wirework.tasks import TokenizedPairs, logit_difference, pair_losses
from wirework.tasks.task_loss import largest_sum, task_loss

PASS_TOKENS = 6144
"""Tokens of all masks in one forward pass. At d_mlp 1024 a tensor of so many tokens is smaller than
32 MB. malloc returns larger ones to the system when they are freed, so that each new one pays for
fresh pages, which is 2 to 3 times slower."""

MaskPass = Callable[[TokenizedPairs, tuple[int, Tensor] | None, list[Tensor] | None], Tensor]
"""Maps a batch, `start_from` and `block_inputs` to the logit differences of one mask, (2P,)."""

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
            n_masks = max(1, PASS_TOKENS // part.tokens.numel())
            for some in torch.split(gates[is_plain], n_masks):
                by_mask.extend(self.logit_diffs_together(some, part) if len(some) else ())
            # Compact circuits come first, so that the order of the masks is restored.
            order = is_plain.sort(stable=True).indices.argsort()
            by_group.append(torch.stack(by_mask)[order].view(len(gates), -1, 2))
        return torch.cat(by_group, 1)[:, torch.cat(groups).argsort()].flatten(1)


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


def length_groups(batch: TokenizedPairs, n_masks: int, tokens: int = PASS_TOKENS) -> list[Tensor]:
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
