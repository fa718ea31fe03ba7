"""Position vectors, and the values at one position of each sequence.

Shapes: B sequences, T tokens, D d_model, P d_pos.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wirework.config import ModelConfig


class Positions(nn.Module):
    """Position vectors, (T, D) to add to the embedding or (T, P) to concatenate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.d_pos or config.d_model
        if config.positions == "sinusoidal_concat":
            self.register_buffer("weight", _sinusoids(config.n_ctx, width))
        else:
            self.weight = nn.Parameter(torch.empty(config.n_ctx, width))

    def forward(self, length: int) -> Tensor:
        """Return the vectors of the first `length` positions."""
        return self.weight[:length]


def _sinusoids(length: int, width: int) -> Tensor:
    """(T, P): sines, then cosines, with log-spaced periods from 4 tokens to the whole context."""
    n_periods = max(1, width // 2)
    periods = torch.logspace(math.log10(4), math.log10(max(4, length)), n_periods)
    angles = torch.arange(length)[:, None] * (2 * math.pi / periods)
    waves = torch.cat([angles.sin(), angles.cos()], -1)
    return F.pad(waves, (0, width - waves.shape[1]))  # zeros if the width is odd


def select_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Return (B, 1, D), the values at one position of each sequence; unchanged if T is 1."""
    return (
        x if x.shape[1] == 1 else x[torch.arange(len(x), device=x.device), positions].unsqueeze(1)
    )


def match_positions(x: Tensor, pos: Tensor | None, positions: Tensor | None) -> Tensor | None:
    """Return position vectors (B, T, P) for as many tokens as `x` has."""
    if pos is None or positions is None or pos.shape[1] == x.shape[1]:
        return pos
    return select_positions(pos, positions)
