"""Mean activations of the nodes over the training text: the values of mean ablation.

There are two samples of windows of this text that do not overlap: masks are fitted with the means
of the first sample, and the circuit is judged with those of the second. `saved_means.py` keeps them
beside the model.
Shapes: N nodes at one site, S groups of windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuit_format import EMBED
from wirework.circuits.masking.node_statistics import (
    MeansError,
    NodeSums,
    ablated_sites,
    means_error,
    node_sums,
)
from wirework.circuits.masking.training_text import disjoint_windows, run_data, windows_at
from wirework.errors import InputError
from wirework.nn import Transformer

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_GROUPS = 8
"""Equal parts of the second sample, whose spread gives the standard error of a loss."""


@dataclass(frozen=True)
class Means:
    """Node means over two disjoint samples of the training text."""

    first: Mapping[str, Tensor]
    """Site to (N,) float32: means of the first sample, used by searches."""
    groups: Mapping[str, Tensor] | None = None
    """Site to (S, N) float32: means of S equal parts of the second sample. None if there is no
    second sample: the means were given (`save_means`) or the text is a single window."""
    n_tokens: int | None = None
    """Tokens per sample; None if the means were given."""
    first_error: Mapping[str, Tensor] | None = None
    """Site to (N,) float32: standard error of `first`; None if it was not recorded."""
    second_error: Mapping[str, Tensor] | None = None
    """Site to (N,) float32: standard error of `second`; None as above, or without `second`."""
    deviation: Mapping[str, Tensor] | None = None
    """Site to (N,) float32: standard deviation of the activation over the tokens of both samples;
    None if it was not recorded."""

    @property
    def error(self) -> MeansError | None:
        """Standard error of the means with which circuits are judged, in short."""
        errors = self.first_error if self.groups is None else self.second_error
        if errors is None or self.deviation is None:
            return None
        return means_error(errors, self.deviation)

    @property
    def n_groups(self) -> int:
        """S, the number of parts of the second sample."""
        return 0 if self.groups is None else len(next(iter(self.groups.values())))

    @property
    def second(self) -> dict[str, Tensor] | None:
        """Site to (N,) float32: means of the whole second sample; None if there is none."""
        if self.groups is None:
            return None
        return {site: part.double().mean(0).float() for site, part in self.groups.items()}


def measured_means(model: "Model", tokens: "Tokens", mean_tokens: int) -> Means:
    """Measure the node means of both samples, with their standard errors.

    Args:
        model: the model.
        tokens: training text.
        mean_tokens: minimum tokens per sample. Of a shorter text all is used, half in each sample.
    """
    n_ctx = min(model.config.n_ctx, tokens.n_tokens)
    first, groups = _samples(tokens, n_ctx, mean_tokens)

    def sums(starts: Sequence[int]) -> NodeSums:
        return node_sums(model.transformer, windows_at(tokens, starts, n_ctx))

    of_first = sums(first)
    of_groups = [sums(group) for group in groups]
    of_second = sum(of_groups[1:], of_groups[0]) if of_groups else None
    group_means = [group.means() for group in of_groups]
    return Means(
        first=of_first.means(),
        groups=_stacked(group_means) or None,
        n_tokens=of_first.n_tokens,
        first_error=of_first.errors(),
        second_error=None if of_second is None else of_second.errors(),
        deviation=(of_first if of_second is None else of_first + of_second).deviations(),
    )


def _samples(tokens: "Tokens", n_ctx: int, mean_tokens: int) -> tuple[list[int], list[list[int]]]:
    """Return the first token of each window of the first sample, and of each part of the second."""
    n_windows = -(-mean_tokens // n_ctx)
    first, second = disjoint_windows(tokens, n_ctx, -(-n_windows // _GROUPS) * _GROUPS)
    n_groups = min(_GROUPS, len(second))
    if n_groups:  # groups of equal size, so that the mean of their means is that of the sample
        second = second[: len(second) - len(second) % n_groups]
    return first, [second[group::n_groups] for group in range(n_groups)]


def with_embedding_means(
    means: Means, model: "Model", data: "Tokens | None", mean_tokens: int
) -> Means:
    """Return means with those of the embedding (`embed`), on windows chosen as for nodes.

    They are not saved: tokens are counted, the model is not run.

    Args:
        means: node means; without a second sample, none is taken of the embedding.
        model: the model.
        data: training text; None for that of the model's run.
        mean_tokens: minimum tokens per sample.

    Raises:
        InputError: there is no text.
    """
    text = run_data(model, "embedding edges (--embedding-edges)").train if data is None else data
    embed = model.transformer.embed.weight.detach().double().cpu()
    n_ctx = min(model.config.n_ctx, text.n_tokens)

    def mean_at(starts: Sequence[int]) -> Tensor:
        counts = torch.zeros(len(embed), dtype=torch.float64)
        for batch in windows_at(text, starts, n_ctx):
            counts += torch.bincount(batch.flatten(), minlength=len(embed))
        return (counts @ embed / counts.sum()).float()

    first, parts = _samples(text, n_ctx, mean_tokens)
    groups = means.groups
    if groups is not None:
        groups = {**groups, EMBED: torch.stack([mean_at(starts) for starts in parts])}
    return replace(means, first={**means.first, EMBED: mean_at(first)}, groups=groups)


def _stacked(of_groups: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return site to (S, N) of S mappings from site to (N,); empty for none."""
    sites = of_groups[0] if of_groups else ()
    return {site: torch.stack([group[site] for group in of_groups]) for site in sites}


def check_means(
    means: dict[str, Tensor], transformer: Transformer, where: str
) -> dict[str, Tensor]:
    """Return `means` if they are complete.

    Args:
        means: site to (N,).
        transformer: the model that they belong to.
        where: where they come from, for the error message.

    Returns:
        `means`, unchanged.

    Raises:
        InputError: a site of `ablated_sites` is missing, has another width or a value that is not
            finite.
    """
    sites = transformer.sites
    for name in ablated_sites(transformer):
        shape = tuple(means[name].shape) if name in means else None
        if shape != (sites[name].width,):
            raise InputError(f"{where}: expected {sites[name].width} means of {name}, got {shape}")
        if not bool(means[name].isfinite().all()):
            raise InputError(f"{where}: the means of {name} are not all finite")
    return means
