"""Activations at a model's sites over text, batch by batch, computed no further than needed.

Shapes: B sequences, T tokens.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from wirework.config import ModelConfig
from wirework.nn import Edit, Transformer
from wirework.nn.sites import edited, look_up, recorded


class _LastSiteReached(Exception):  # noqa: N818
    """Ends a forward pass: no later site is needed."""


@torch.no_grad()
def site_values(
    transformer: Transformer, sites: Iterable[str], batches: Iterable[Tensor]
) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
    """Yield each batch of tokens with the activations at the named sites, after AbsTopK.

    Each forward pass ends at the last of the sites. One batch is in memory at a time.

    Args:
        transformer: the model.
        sites: names of one or more sites.
        batches: each (B, T) int64.

    Yields:
        Tokens (B, T) on the model's device, and activations (B, T, width) by site.

    Raises:
        InputError: the model has no site of that name; raised before any batch is drawn.
    """
    all_sites = transformer.sites
    chosen = look_up(all_sites, sites)
    last = [name for name in all_sites if name in chosen][-1]  # in execution order
    device = transformer.embed.weight.device
    for batch in batches:
        tokens = batch.to(device)
        values = {}
        try:
            with recorded(all_sites, chosen) as values, edited(all_sites, {last: _stop}):
                transformer.state(tokens)
        except _LastSiteReached:
            yield tokens, values


def _stop(_: Tensor) -> Tensor:
    raise _LastSiteReached


def from_position(first: int, edit: Edit) -> Edit:
    """Return an edit that leaves the first tokens of each sequence unchanged.

    Args:
        first: number of tokens to leave.
        edit: applied to the tokens after them.
    """
    if not first:
        return edit
    return lambda x: torch.cat([x[:, :first], edit(x[:, first:])], 1)


def median_norm(norms: Tensor) -> Tensor:
    """Return the median (a scalar) of the nonzero norms (n,); 0 if all are 0.

    AbsTopK can set most tokens of a site to 0, and then the median over all of them would be 0.
    """
    positive = norms[norms > 0]
    return positive.median() if len(positive) else norms.new_zeros(())


def up_to_norm(bound: Tensor | float, edit: Edit) -> Edit:
    """Return an edit that leaves tokens of a larger norm unchanged.

    Args:
        bound: largest norm of a token that is edited.
        edit: applied to these tokens.
    """
    return lambda x: torch.where(norms_of(x)[..., None] <= bound, edit(x), x)


def norms_of(x: Tensor) -> Tensor:
    """Return the Euclidean norm (..., ) of values (..., D), in float32."""
    norms: Tensor = torch.linalg.vector_norm(x.float(), dim=-1)
    return norms


def default_site(config: ModelConfig) -> str:
    """Return the MLP output three quarters down the model, `6.mlp.resid_delta` of 8 layers.

    Ferrao et al. 2025 say "layer 6"; their code's `blocks.6.hook_mlp_out` counts from 0.
    """
    return f"{config.n_layer * 6 // 8}.mlp.resid_delta"
