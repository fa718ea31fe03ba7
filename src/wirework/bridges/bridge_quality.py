"""How well the bridges of a run map the two models onto each other, at each residual location.

Numbers are of held-out text. The same numbers of other maps say what training the bridges is worth:
untrained bridges, random orthogonal maps, and linear maps fitted by least squares afterwards, to
the run's sparse model or to one that was trained alone.
Shapes: B sequences, T tokens.
Source: Gao et al. 2025, sec. 2.3, App. A.3.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.bridges.bridged import Bridged, load_bridged
from wirework.bridges.held_out_text import text_batches
from wirework.circuits.masking.training_text import run_data
from wirework.errors import InputError
from wirework.model import Model, load
from wirework.nn import Transformer
from wirework.nn.bridges import Bridges
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.residual_locations import location_names, location_sites, record_streams, run_from
from wirework.summaries import Report, absent
from wirework.training.dense_model import check_same_layers

if TYPE_CHECKING:
    from wirework.data import Prepared

_TOKENS = 8_192
"""Tokens of held-out text, and of training text to which linear maps are fitted."""
_RIDGE = 1e-4
"""Penalty of the fitted maps, as a share of the mean square of their inputs."""


@dataclass(frozen=True, repr=False)
class LocationQuality(Report):
    """The bridges at one residual location. Losses and KL in nats per token."""

    location: str
    encoder_nmse: float
    """Normalised MSE of encoded dense streams: 1 minus the share of the sparse stream's variance
    that is explained."""
    decoder_nmse: float
    """The same of decoded sparse streams and the dense stream."""
    kl_dense_to_sparse: float
    """KL divergence from the dense model's predictions to those of the sparse model that goes on
    from the encoded stream."""
    kl_sparse_to_dense: float
    """The same of the dense model that goes on from the decoded stream."""
    loss_dense_to_sparse: float
    """Next-token loss of that pass of the sparse model."""
    loss_sparse_to_dense: float
    """Next-token loss of that pass of the dense model."""


@dataclass(frozen=True, repr=False)
class MapQuality(Report):
    """One set of maps between the two models."""

    maps: str
    """`trained`, or the name of the control."""
    locations: tuple[LocationQuality, ...]
    kl_twice_through_sparse: float
    """KL of passes that start dense, are sparse between two locations and end dense: a mean over
    all pairs of locations. The bridges are not trained for it."""
    kl_twice_through_dense: float
    """The same of passes that start and end sparse."""

    def mean(self, name: str) -> float:
        """Return the mean over the locations of one of their numbers."""
        return fmean(getattr(location, name) for location in self.locations)


@dataclass(frozen=True, repr=False)
class BridgeQuality(Report):
    """The bridges of a run beside controls."""

    n_tokens: int
    """Tokens of held-out text."""
    loss_dense: float
    """Next-token loss of the dense model, in nats."""
    loss_sparse: float
    """Next-token loss of the sparse model."""
    kl_sparse: float
    """KL divergence from the dense model's predictions to those of the sparse model by itself."""
    maps: tuple[MapQuality, ...]
    """The trained bridges, then the controls."""
    loss_alone: float | None = absent()
    """Next-token loss of the sparse model that was trained alone; absent if none was given."""


def bridge_quality(
    bridged: Bridged | str | Path,
    alone: Model | str | Path | None = None,
    *,
    data: "Prepared | None" = None,
    seed: int = 0,
) -> BridgeQuality:
    """Measure the bridges of a run, beside controls.

    Args:
        bridged: models and bridges; a path is loaded.
        alone: a sparse model of as many layers and the same tokeniser that was trained without
            bridges; linear maps are fitted to it as a control. None: this control is left out.
        data: text; None for that of the run.
        seed: seed of the controls.

    Raises:
        InputError: `alone` has another number of layers or another tokeniser, or there is no text.

    Source: Gao et al. 2025, sec. 2.3.
    """
    bridged = bridged if isinstance(bridged, Bridged) else load_bridged(bridged)
    dense, sparse = bridged.dense, bridged.sparse
    text = run_data(sparse, "linear maps and the quality of bridges") if data is None else data
    other = None if alone is None else load(alone)
    if other is not None:
        _check_alone(dense, other)
    models = [model.transformer for model in (dense, sparse, other) if model is not None]
    batches = list(text_batches(text.val, models, _TOKENS))
    fitting = [tokens for tokens, _ in text_batches(text.train, models, _TOKENS)]
    k = bridged.bridges.act_fraction
    controls = {
        "untrained": Bridges(len(bridged.bridges.encoders), *_widths(dense, sparse), k, seed + 1),
        "random orthogonal": orthogonal_maps(dense.transformer, sparse.transformer, fitting, seed),
        "fitted afterwards": fitted_maps(dense.transformer, sparse.transformer, fitting),
    }
    found = [map_quality("trained", dense, sparse, bridged.bridges, batches)]
    found += [map_quality(name, dense, sparse, maps, batches) for name, maps in controls.items()]
    loss_alone = None
    if other is not None:
        maps = fitted_maps(dense.transformer, other.transformer, fitting)
        found.append(map_quality("fitted to a model trained alone", dense, other, maps, batches))
        loss_alone = _own_loss(other.transformer, batches)
    return BridgeQuality(
        n_tokens=sum(targets.numel() for _, targets in batches),
        loss_dense=_own_loss(dense.transformer, batches),
        loss_sparse=_own_loss(sparse.transformer, batches),
        kl_sparse=_own_kl(dense.transformer, sparse.transformer, batches),
        maps=tuple(found),
        loss_alone=loss_alone,
    )


def _check_alone(dense: Model, alone: Model) -> None:
    """Make sure that a model trained alone can stand in for the run's sparse model."""
    check_same_layers(dense, alone.config, str(dense.path))
    if dense.tokenizer is None or alone.tokenizer is None:
        raise InputError("a model without a tokeniser cannot be compared")
    if dense.tokenizer.fingerprint != alone.tokenizer.fingerprint:
        raise InputError(f"the tokenisers of {dense.path} and {alone.path} differ")


def _widths(dense: Model, sparse: Model) -> tuple[int, int]:
    return dense.config.d_model, sparse.config.d_model


@torch.no_grad()
@unchanged_weights()
def fitted_maps(dense: Transformer, sparse: Transformer, texts: Sequence[Tensor]) -> Bridges:
    """Return linear maps between the streams of two models, fitted by least squares, no AbsTopK.

    Args:
        dense, sparse: the models.
        texts: (B, T) int64 each.
    """
    maps = Bridges(2 * dense.config.n_layer + 1, dense.config.d_model, sparse.config.d_model)
    for location, (of_dense, of_sparse) in enumerate(_streams(dense, sparse, texts)):
        for layer, inputs, outputs in (
            (maps.encoders[location], of_dense, of_sparse),
            (maps.decoders[location], of_sparse, of_dense),
        ):
            means = inputs.mean(0), outputs.mean(0)
            centred = inputs - means[0]
            gram = centred.T @ centred
            penalty = _RIDGE * gram.diagonal().mean().clamp(min=torch.finfo(gram.dtype).tiny)
            gram += penalty * torch.eye(len(gram), dtype=gram.dtype)
            weight = torch.linalg.solve(gram, centred.T @ (outputs - means[1])).T
            layer.weight.copy_(weight)
            layer.bias.copy_(means[1] - weight @ means[0])
    return maps


@torch.no_grad()
@unchanged_weights()
def orthogonal_maps(
    dense: Transformer, sparse: Transformer, texts: Sequence[Tensor], seed: int
) -> Bridges:
    """Return random orthogonal maps, scaled to the size of the target stream, no AbsTopK.

    Args:
        dense, sparse: the models.
        texts: (B, T) int64 each, on which sizes are measured.
        seed: seed of the maps.
    """
    widths = dense.config.d_model, sparse.config.d_model
    maps = Bridges(2 * dense.config.n_layer + 1, *widths)
    generator = torch.Generator().manual_seed(seed)
    for location, streams in enumerate(_streams(dense, sparse, texts)):
        of_dense, of_sparse = (float(stream.square().mean().sqrt()) for stream in streams)
        rotation, _ = torch.linalg.qr(torch.randn(max(widths), min(widths), generator=generator))
        down = rotation.T if widths[0] > widths[1] else rotation  # (d_sparse, d_dense)
        # Into a wider model the same length is spread over more channels.
        widened = max(1.0, widths[1] / widths[0]) ** 0.5, max(1.0, widths[0] / widths[1]) ** 0.5
        maps.encoders[location].weight.copy_(down * (widened[0] * of_sparse / of_dense))
        maps.decoders[location].weight.copy_(down.T * (widened[1] * of_dense / of_sparse))
    return maps


def _streams(
    dense: Transformer, sparse: Transformer, texts: Sequence[Tensor]
) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield for each location the streams of both models, (tokens, width) float64 each."""
    recorded = [[record_streams(model, tokens)[1] for tokens in texts] for model in (dense, sparse)]
    for location in range(2 * dense.config.n_layer + 1):
        of_dense, of_sparse = (
            torch.cat([streams[location].flatten(0, 1) for streams in by_text]).double()
            for by_text in recorded
        )
        yield of_dense, of_sparse


@torch.no_grad()
@unchanged_weights()
def map_quality(
    name: str,
    dense: Model,
    sparse: Model,
    maps: Bridges,
    batches: Sequence[tuple[Tensor, Tensor]],
) -> MapQuality:
    """Measure one set of maps.

    Args:
        name: name of the maps.
        dense, sparse: the models.
        maps: encoders and decoders of all locations.
        batches: tokens and targets, (B, T) int64 each.
    """
    models = dense.transformer, sparse.transformer
    names = location_names(dense.config.n_layer)
    errors = [torch.zeros(len(names), dtype=torch.float64) for _ in range(2)]
    streams: list[list[list[Tensor]]] = [[], []]
    sums = torch.zeros(2, len(names), 2, dtype=torch.float64)  # direction, location, KL and loss
    twice = torch.zeros(2, dtype=torch.float64)
    n_tokens = sum(targets.numel() for _, targets in batches)
    for tokens, targets in batches:
        state, of_dense = record_streams(models[0], tokens)
        _, of_sparse = record_streams(models[1], tokens)
        log_probs = models[0].logits_of(state, tokens).log_softmax(-1)
        encoded = {i: maps.encode(i, stream) for i, stream in enumerate(of_dense)}
        decoded = {i: maps.decode(i, stream) for i, stream in enumerate(of_sparse)}
        for way, (mapped, own) in enumerate(((encoded, of_sparse), (decoded, of_dense))):
            for i, stream in enumerate(own):
                errors[way][i] += (mapped[i] - stream).double().square().sum()
            streams[way].append(own)
        for way, (model, starts) in enumerate(((models[1], encoded), (models[0], decoded))):
            states = run_from(model, starts, tokens)
            sums[way] += torch.stack(
                [_kl_and_loss(model, one, tokens, targets, log_probs) for one in states]
            )
        twice[0] += _twice(models[1], models[0], encoded, maps.decode, tokens, log_probs)
        twice[1] += _twice(models[0], models[1], decoded, maps.encode, tokens, log_probs)
    nmse = [
        [
            float(errors[way][i]) / _spread([one[i] for one in streams[way]])
            for i in range(len(names))
        ]
        for way in range(2)
    ]
    per_token = (sums / n_tokens).tolist()
    n_pairs = len(names) * (len(names) - 1) // 2
    through_sparse, through_dense = (twice / (n_tokens * n_pairs)).tolist()
    return MapQuality(
        maps=name,
        locations=tuple(
            LocationQuality(
                location=location,
                encoder_nmse=nmse[0][i],
                decoder_nmse=nmse[1][i],
                kl_dense_to_sparse=per_token[0][i][0],
                kl_sparse_to_dense=per_token[1][i][0],
                loss_dense_to_sparse=per_token[0][i][1],
                loss_sparse_to_dense=per_token[1][i][1],
            )
            for i, location in enumerate(names)
        ),
        kl_twice_through_sparse=through_sparse,
        kl_twice_through_dense=through_dense,
    )


def _twice(
    middle: Transformer,
    outer: Transformer,
    starts: Mapping[int, Tensor],
    back: Callable[[int, Tensor], Tensor],
    tokens: Tensor,
    log_probs: Tensor,
) -> float:
    """Return the sum of the KL of all passes that are in one model between two locations.

    Args:
        middle: the model between the locations.
        outer: the model before and after them.
        starts: stream (B, T, D) of `middle` at every location, mapped from `outer`.
        back: maps a stream of `middle` at a location to `outer`.
        tokens: (B, T) int64.
        log_probs: (B, T, V) log-probabilities to compare with.
    """
    sites, total = location_sites(middle.config.n_layer), 0.0
    for first in range(len(sites) - 1):
        with middle.recorded(sites[first + 1 :]) as values:
            run_from(middle, {first: starts[first]}, tokens)
        second = {i: back(i, values[sites[i]]) for i in range(first + 1, len(sites))}
        for state in run_from(outer, second, tokens):
            total += float(_kl(log_probs, outer.logits_of(state, tokens).log_softmax(-1)))
    return total


def _kl_and_loss(
    model: Transformer, state: Tensor, tokens: Tensor, targets: Tensor, log_probs: Tensor
) -> Tensor:
    """Return (2,) float64, sums over tokens: KL from given odds, and next-token loss."""
    own = model.logits_of(state, tokens).log_softmax(-1)
    loss = -own.gather(2, targets[..., None]).double().sum()
    return torch.stack([_kl(log_probs, own), loss])


def _kl(log_probs: Tensor, others: Tensor) -> Tensor:
    """Return the KL divergence between (B, T, V) log-probabilities, float64, summed over tokens."""
    return (log_probs.exp() * (log_probs - others)).double().sum()


def _spread(streams: Sequence[Tensor]) -> float:
    """Return the sum of the squares of (B, T, D) streams about the mean of each channel."""
    together = torch.cat([stream.flatten(0, 1) for stream in streams]).double()
    spread = float((together - together.mean(0)).square().sum())
    return max(spread, torch.finfo(together.dtype).tiny)


@torch.no_grad()
@unchanged_weights()
def _own_loss(model: Transformer, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the next-token loss of a model, a mean over tokens."""
    sums = [float(model.loss(*batch)) * batch[1].numel() for batch in batches]
    return sum(sums) / sum(targets.numel() for _, targets in batches)


@torch.no_grad()
@unchanged_weights()
def _own_kl(
    dense: Transformer, sparse: Transformer, batches: Sequence[tuple[Tensor, Tensor]]
) -> float:
    """Return the KL divergence from one model's predictions to another's, a mean over tokens."""
    sums = [
        float(_kl(dense(tokens).log_softmax(-1), sparse(tokens).log_softmax(-1)))
        for tokens, _ in batches
    ]
    return sum(sums) / sum(targets.numel() for _, targets in batches)
