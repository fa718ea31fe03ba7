"""Do two models find the same tokens hard? A joint histogram of their losses, token by token.

Source: Gao et al. 2025, Fig. 33. Shapes: B sequences, T tokens, V vocabulary, N = all held-out
tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from wirework.data import Batch
from wirework.model import Model
from wirework.nn.kernels.sparse_linear import unchanged_weights

TokenLossArray = NDArray[np.float64]

_BINS = 40
_TAIL = 0.999  # share of the losses that the histogram's range holds; the rest is in its last bins


@torch.no_grad()
@unchanged_weights()
def token_losses(model: Model, batches: Sequence[Batch]) -> TokenLossArray:
    """Return the next-token loss (nats) of each token of the batches, (N,)."""
    batch_losses = []
    for tokens, targets in batches:
        logits = model(torch.from_numpy(tokens)).flatten(0, 1).float()
        losses = F.cross_entropy(logits, torch.from_numpy(targets).flatten(), reduction="none")
        batch_losses.append(losses.double().numpy())
    return np.concatenate(batch_losses)


def joint(first: TokenLossArray, second: TokenLossArray) -> dict[str, Any]:
    """Compare two models on the same tokens.

    Args:
        first: (N,) losses of one model, nats.
        second: (N,) of the other.

    Returns:
        `correlation` (Pearson; None if a model has the same loss everywhere), `n_tokens`, `means`
        of both, `top` (nats) and `counts`: tokens by bin of the first (rows) and the second loss
        (columns). Bins are equal, from 0 to `top`; the last ones also hold all larger losses.
    """
    top = float(max(np.quantile(losses, _TAIL) for losses in (first, second))) or 1.0
    edges = np.linspace(0, top, _BINS + 1)
    clipped = [np.clip(losses, 0, top) for losses in (first, second)]
    counts, _, _ = np.histogram2d(clipped[0], clipped[1], bins=(edges, edges))
    constant = first.std() == 0 or second.std() == 0
    return {
        "correlation": None if constant else float(np.corrcoef(first, second)[0, 1]),
        "n_tokens": len(first),
        "means": [float(first.mean()), float(second.mean())],
        "top": top,
        "counts": counts.astype(int).tolist(),
    }
