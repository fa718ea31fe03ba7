"""Folding of RMSNorm gains into the next weight matrices, which does not change L0.

A gain scales a channel; the next matrix can scale that channel's column instead, and a scaled
column keeps its zeros (Gao et al. 2025, sec. 2.1). AbsTopK lies between a block's norm and its
matrix and selects channels by their magnitude *after* the gain. There a fold is exact only if all
gains have the same magnitude.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn

from wirework.errors import InputError
from wirework.nn.block import Block
from wirework.nn.kernels.norm import RMSNorm
from wirework.nn.sites import Site
from wirework.nn.transformer import Transformer


def fold_norms(transformer: Transformer) -> Transformer:
    """Return an equivalent transformer with all RMSNorm gains 1, folded into the next matrices.

    Values at `act_in` sites and after the final norm lose their gains; those at other sites do not
    change. L0 does not change, with one exception: weights that read a channel with gain 0 have no
    effect, and become 0.

    Args:
        transformer: the model; it is not changed.

    Raises:
        InputError: the model has no RMSNorm; AbsTopK follows a norm whose gains differ in magnitude
            (the fold would change what it keeps); or the final gains are not 1 and the unembedding
            is tied to the embedding, which must not be scaled.

    Source: Gao et al. 2025, sec. 2.1.
    """
    if transformer.config.norm != "rms":
        kind = "LayerNorm" if transformer.config.norm == "layer" else "no norm"
        raise InputError(f"only RMSNorm gains can be folded, this model has {kind}")
    folded = copy.deepcopy(transformer)
    final = cast(RMSNorm, folded.norm)
    if folded.config.tied_embedding and not bool((final.weight == 1).all()):
        raise InputError(
            "the final norm's gain cannot be folded: the unembedding is tied to the embedding"
        )
    for layer, block in enumerate(folded.blocks):
        _fold_block_(block, layer)
    if not folded.config.tied_embedding:
        _fold_(folded.unembed, [final])
    return folded


def _fold_block_(block: Block, layer: int) -> None:
    for norms, site, matrix, name in (
        ((block.norm1, block.pos_norm1), block.attn.act_in, block.attn.qkv, "attn"),
        ((block.norm2, block.pos_norm2), block.mlp.act_in, block.mlp.up, "mlp"),
    ):
        present = [cast(RMSNorm, norm) for norm in norms if norm is not None]
        _check(_gains(present), site, f"{layer}.{name}.act_in")
        _fold_(matrix, present)


def _check(gains: Tensor, site: Site, name: str) -> None:
    magnitudes = gains.abs()
    low, high = float(magnitudes.min()), float(magnitudes.max())
    if site.k is not None and site.k < site.width and low != high:
        raise InputError(
            f"the gains before {name} cannot be folded: AbsTopK keeps {site.k} of {site.width} "
            f"channels by magnitude, and gains from {low:.3g} to {high:.3g} decide which"
        )


@torch.no_grad()
def _fold_(matrix: nn.Linear, norms: list[RMSNorm]) -> None:
    """Scale the columns (out, D [+ P]) by the gains of their channels, then set the gains to 1."""
    matrix.weight.mul_(_gains(norms))
    for norm in norms:
        norm.weight.fill_(1.0)


def _gains(norms: list[RMSNorm]) -> Tensor:
    return torch.cat([norm.weight.detach() for norm in norms])
