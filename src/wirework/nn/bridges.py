"""Bridges between a dense and a sparse transformer, at each residual location.

The encoder maps the dense model's residual stream to the sparse model's, the decoder maps back.
Shapes: B sequences, T tokens. Source: Gao et al. 2025, sec. 2.3, App. A.3.
"""

from collections.abc import Sequence
from random import Random
from typing import cast

import torch
from torch import Tensor, nn

from wirework.errors import InputError
from wirework.nn.kernels.linear import Linear
from wirework.nn.kernels.top_k import abs_top_k

_STREAM_STD = 0.02
"""Size of the initial embedding of a transformer, and so of the sparse model's first stream."""


class Bridges(nn.Module):
    """An encoder and a decoder for each residual location.

    Args:
        n_locations: number of residual locations, 2L+1.
        d_dense: width of the dense model.
        d_sparse: width of the sparse model.
        act_fraction: share of the encoder's output that AbsTopK keeps per token; None for all.
        seed: seed of the initial weights: normal, with a standard deviation of 1/sqrt(inputs) for
            decoders and 0.02/sqrt(inputs) for encoders, so that a stream of size 1 becomes one of
            the size of the sparse model's initial embedding. Biases are 0.

    Raises:
        InputError: `act_fraction` keeps nothing.

    Source: Gao et al. 2025, App. A.3.
    """

    def __init__(
        self,
        n_locations: int,
        d_dense: int,
        d_sparse: int,
        act_fraction: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.act_fraction = act_fraction
        self.k = None if act_fraction is None else int(act_fraction * d_sparse)
        if self.k == 0:
            raise InputError(
                f"bridges.act_fraction {act_fraction} keeps nothing of {d_sparse} channels"
            )
        encoders = nn.ModuleList(Linear(d_dense, d_sparse) for _ in range(n_locations))
        decoders = nn.ModuleList(Linear(d_sparse, d_dense) for _ in range(n_locations))
        self.encoders = cast(Sequence[Linear], encoders)
        self.decoders = cast(Sequence[Linear], decoders)
        # Not the random stream of the transformers, so that nothing begins as a copy.
        generator = torch.Generator().manual_seed(Random(f"bridges {seed}").getrandbits(63))
        with torch.no_grad():
            for layers, size in ((self.encoders, _STREAM_STD), (self.decoders, 1.0)):
                for layer in layers:
                    layer.weight.normal_(0.0, size * layer.in_features**-0.5, generator=generator)
                    layer.bias.zero_()

    def encode(self, location: int, dense: Tensor) -> Tensor:
        """Map a stream of the dense model to the sparse model.

        Args:
            location: number of the residual location.
            dense: (B, T, d_dense).

        Returns:
            (B, T, d_sparse), at most k nonzero per token, dtype of `dense`.
        """
        out: Tensor = self.encoders[location](dense).to(dense.dtype)
        return out if self.k is None else abs_top_k(out, self.k)

    def decode(self, location: int, sparse: Tensor) -> Tensor:
        """Map a stream of the sparse model to the dense model.

        Args:
            location: number of the residual location.
            sparse: (B, T, d_sparse).

        Returns:
            (B, T, d_dense), dtype of `sparse`.
        """
        out: Tensor = self.decoders[location](sparse).to(sparse.dtype)
        return out
