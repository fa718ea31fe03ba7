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
        """Use the prompts of each pair as clean and corrupted prompt.

        Args:
            batch: tokenised pairs of a task.
            symmetric: use each prompt of a pair as the clean one once, not only the first.

        Raises:
            InputError: the prompts of a pair differ in length.
        """
        lengths = (batch.last_positions + 1).view(-1, 2)
        uneven = (lengths[:, 0] != lengths[:, 1]).nonzero().flatten().tolist()
        if uneven:
            first, second = lengths[uneven[0]].tolist()
            raise InputError(
                "path edges are patched token by token, so the prompts of a pair must have equal "
                f"length: pair {uneven[0] + 1} has {first} and {second} tokens"
            )
        places = torch.arange(
            0, len(batch.last_positions), 1 if symmetric else 2, device=batch.last_positions.device
        )
        return cls(
            batch.tokens[places],
            batch.tokens[places ^ 1],
            batch.last_positions[places],
            batch.answers[places],
        )

    @property
    def last(self) -> Tensor:
        """(N,) int64, the last token of each clean prompt."""
        return self.clean[
            torch.arange(len(self.last_positions), device=self.last_positions.device),
            self.last_positions,
        ]

    def metric(self, name: PathMetric, reference: Tensor) -> Metric:
        """Return a metric; its increase is the cost of removing an edge.

        Args:
            name: `kl`, KL divergence from the clean model's next-token distribution, mean;
                `logit_difference`, minus the mean of right minus wrong logit; `task_loss`, mean
                cross-entropy of the two answers. In nats, except for the logit difference.
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
    """Return the mean KL divergence from fixed logits, with two passes over the vocabulary."""
    odds = reference.log_softmax(-1)
    shares = odds.exp()
    entropy = -torch.linalg.vecdot(shares, odds)

    def divergence(logits: Tensor) -> Tensor:
        cross = logits.logsumexp(-1) - torch.linalg.vecdot(shares, logits)
        mean: Tensor = (cross - entropy).mean(-1)
        return mean

    return divergence
