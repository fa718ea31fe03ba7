"""Removed embedding entries: what the embedding gives instead, token by token.

Shapes: R masks, U token groups, C channels, B prompts, T tokens, V vocabulary, D d_model.
"""

from typing import NamedTuple

from torch import Tensor

from wirework.nn.rewire import Rewiring


class RemovedEntries(NamedTuple):
    """Embedding entries that R masks remove, by token group and channel."""

    group_of_token: Tensor
    """(V,) int64, the group of each token; U if it is in none."""
    channels: Tensor
    """(C,) int64, the channels with removed entries."""
    kept: Tensor
    """(R, U + 1, C), 1 for kept and 0 for removed entries."""
    has_mean: Tensor
    """(U + 1, C) bool, whether removed entries take the channel's mean; others are zero."""

    def change(self, tokens: Tensor, entries: Tensor, mean: Tensor) -> Tensor:
        """Return what is added to the embedding, (B, T, C).

        Args:
            tokens: (B, T) int64, R copies of the same prompts or, with one mask, any prompts.
            entries: (B, T, C), the embedding of the tokens at the channels.
            mean: (D,), the mean of the embedding over text.
        """
        n_masks, _, width = self.kept.shape
        groups = self.group_of_token[tokens].view(n_masks, -1, 1).expand(-1, -1, width)
        removed = (1 - self.kept).gather(1, groups).view_as(entries).to(entries.dtype)
        values = self.has_mean * mean[self.channels]
        return removed * (values[self.group_of_token[tokens]] - entries)

    def rewiring(self, mean: Tensor) -> Rewiring:
        """Return the change as a function of the tokens and the output of the embedding."""

        def rewire(tokens: Tensor, x: Tensor) -> Tensor:
            change = self.change(tokens, x[..., self.channels], mean)
            return x.index_add(-1, self.channels, change)

        return rewire
