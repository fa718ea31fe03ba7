"""Clean and corrupted prompts for path patching, and the metrics of a patched run.

Shapes: N clean prompts, T tokens, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.config import PathMetric
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs, logit_difference, pair_losses

Metric = Callable[[Tensor], Tensor]
"""Maps logits (..., N, V) at the last tokens to (...); lower is better."""


@dataclass(frozen=True)
class Contrast:
    """Clean prompts, each with a corrupted prompt of the same length."""

    clean: Tensor
    """(N, T) int64, padded on the right."""
    corrupted: Tensor
    """(N, T) int64."""
    last_positions: Tensor
    """(N,) int64, position of the last token of each prompt."""
    answers: Tensor
    """(N, 2) int64, right and wrong answer after the clean prompt."""

    @classmethod
    def of(cls, batch: TokenizedPairs, *, symmetric: bool = False) -> "Contrast":
        """Use the first prompt of each pair as clean prompt, the second as its corrupted prompt.

        Args:
            batch: tokenised pairs of a task.
            symmetric: use each prompt of a pair as the clean one in turn, which doubles N.

        Raises:
            InputError: the prompts of a pair differ in length.
        """
        lengths = (batch.last_positions + 1).view(-1, 2)
        unequal_pairs = (lengths[:, 0] != lengths[:, 1]).nonzero().flatten().tolist()
        if unequal_pairs:
            first, second = lengths[unequal_pairs[0]].tolist()
            raise InputError(
                "path edges are patched token by token, so the prompts of a pair must have equal "
                f"length: pair {unequal_pairs[0] + 1} has {first} and {second} tokens"
            )
        rows = torch.arange(
            0, len(batch.last_positions), 1 if symmetric else 2, device=batch.last_positions.device
        )
        return cls(
            batch.tokens[rows],
            batch.tokens[rows ^ 1],  # the other prompt of the pair
            batch.last_positions[rows],
            batch.answers[rows],
        )

    @property
    def last(self) -> Tensor:
        """(N,) int64, the last token of each clean prompt."""
        return self.clean[
            torch.arange(len(self.last_positions), device=self.last_positions.device),
            self.last_positions,
        ]

    def metric(self, name: PathMetric, reference: Tensor) -> Metric:
        """Return a metric, which maps the logits of a run to one number; lower is better.

        Args:
            name: `kl`: KL divergence in nats from the clean model's next-token distribution, mean
                over prompts; `logit_difference`: minus the mean of right minus wrong logit;
                `task_loss`: mean cross-entropy in nats of the right answer of two.
            reference: (N, V), logits of the clean run.
        """
        if name == "kl":
            return _divergence_from(reference)
        if name == "logit_difference":
            return lambda logits: -self.logit_diffs(logits).mean(-1)
        return lambda logits: pair_losses(self.logit_diffs(logits)).mean(-1)

    def logit_diffs(self, logits: Tensor) -> Tensor:
        """Return the logit differences (..., N) of logits (..., N, V)."""
        answers = self.answers.expand(*logits.shape[:-1], 2).reshape(-1, 2)
        return logit_difference(logits.flatten(0, -2), answers).view(logits.shape[:-1])


def _divergence_from(reference: Tensor) -> Metric:
    """Return the metric `kl`: mean KL divergence from fixed logits (N, V).

    It is cross-entropy minus entropy, which reads the logits of a run only twice.
    """
    log_probabilities = reference.log_softmax(-1)
    probabilities = log_probabilities.exp()
    entropy = -torch.linalg.vecdot(probabilities, log_probabilities)

    def divergence(logits: Tensor) -> Tensor:
        cross_entropy = logits.logsumexp(-1) - torch.linalg.vecdot(probabilities, logits)
        mean: Tensor = (cross_entropy - entropy).mean(-1)
        return mean

    return divergence
