"""The losses of bridges as functions of streams and models.

Shapes: B sequences, T tokens, V vocabulary. A location is the number of a residual location.
Source: Gao et al. 2025, sec. 2.3, App. A.3.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from wirework.nn import Transformer
from wirework.nn.bridges import Bridges
from wirework.nn.kernels.kl_loss import kl_loss
from wirework.nn.residual_locations import run_from

_LEAST_SPREAD = 1e-12
"""Least mean square of a target about its mean: a constant stream gives no division by 0."""


def normalised_mse(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error / the mean square of the target about its mean.

    The mean of the target is that of each channel over batch and tokens, so the result is 1 minus
    the share of the variance explained. Gradients flow to both arguments.

    Args:
        estimate: (B, T, D).
        target: (B, T, D).

    Returns:
        Scalar.

    Source: Gao et al. 2025, App. A.3 (normalised MSE; the normaliser is ours).
    """
    spread = (target - target.mean((0, 1))).square().mean()
    return (estimate - target).square().mean() / spread.clamp(min=_LEAST_SPREAD)


def kl_from(
    transformer: Transformer,
    starts: Mapping[int, Tensor],
    tokens: Tensor,
    log_probs: Tensor,
    coef: float = 1.0,
) -> Tensor:
    """Return the KL divergences from given probabilities to a model that runs from given streams.

    Args:
        transformer: the model; gradients flow to its parameters and to the streams.
        starts: (B, T, D) stream by the location at which the model starts with it.
        tokens: (B, T) int64.
        log_probs: (B, T, V) log-probabilities to compare with.
        coef: coefficient of the result.

    Returns:
        Scalar: `coef` times the sum over the locations of the mean over tokens, in nats.

    Source: Gao et al. 2025, App. A.3.
    """
    states = run_from(transformer, starts, tokens)
    offsets = transformer.logit_offsets(tokens)
    return kl_loss(
        log_probs.flatten(0, 1),
        states.flatten(1, 2),
        transformer.unembed,
        None if offsets is None else offsets.expand(*tokens.shape, -1).flatten(0, 1),
        coef,
    )


def reconstruction_losses(
    bridges: Bridges, locations: Iterable[int], dense: Sequence[Tensor], sparse: Sequence[Tensor]
) -> tuple[Tensor, Tensor, dict[int, Tensor], dict[int, Tensor]]:
    """Map the streams of some locations both ways.

    Args:
        bridges: encoders and decoders.
        locations: the locations to map.
        dense: (B, T, d_dense) stream of the dense model at every location.
        sparse: (B, T, d_sparse) stream of the sparse model at every location.

    Returns:
        Sum over the locations of the normalised MSE of encoders, the same of decoders, and encoded
        and decoded streams by location.

    Source: Gao et al. 2025, App. A.3.
    """
    encoded = {i: bridges.encode(i, dense[i]) for i in locations}
    decoded = {i: bridges.decode(i, sparse[i]) for i in encoded}
    encoder_nmse = torch.stack([normalised_mse(encoded[i], sparse[i]) for i in encoded]).sum()
    decoder_nmse = torch.stack([normalised_mse(decoded[i], dense[i]) for i in encoded]).sum()
    return encoder_nmse, decoder_nmse, encoded, decoded
