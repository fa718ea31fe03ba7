"""Multiply-adds that the training of a model needs, to compare models given equal compute.

Counted are the matrix products of the forward pass, of the gradients of activations and of the
gradients of weights, and the products of attention over the tokens before. A product with a sparse
matrix counts its nonzero entries. The gradient of a weight matrix counts all entries, because dense
gradients choose which weights come back (with `gradient: live`, only those that are trained).
Activations count as dense. Not counted: look-ups, additions, norms, softmax, projections, the
optimizer and evaluations.
"""

import torch
from torch import nn

from wirework.config import ModelConfig, TrainConfig, WeightSparsityConfig
from wirework.nn import Transformer
from wirework.nn.transformer import Prunable
from wirework.training.schedule import nonzero_fraction
from wirework.training.weight_sparsity import kept_entries


def training_multiply_adds(config: TrainConfig, model: ModelConfig) -> int:
    """Return the multiply-adds of a whole training run.

    Args:
        config: its settings.
        model: its transformer, with the size of the vocabulary.
    """
    with torch.device("meta"):
        matrices = [entry for entry in Transformer(model).prunable() if _is_product(entry, model)]
    attention = 3 * model.n_layer * model.n_head * model.d_head * (model.n_ctx + 1)
    per_token = config.steps * attention
    per_token += sum(_products(matrices, step, config) for step in range(config.steps))
    return per_token * config.batch_size * model.n_ctx


def _is_product(entry: Prunable, model: ModelConfig) -> bool:
    """Return whether a tensor is multiplied: biases are added, and embeddings looked up."""
    is_lookup = entry.name == "embed.weight" and not model.tied_embedding
    return entry.parameter.dim() == 2 and not is_lookup


def _products(matrices: list[Prunable], step: int, config: TrainConfig) -> int:
    """Return the multiply-adds with all matrices for one token of a step."""
    sizes = [entry.parameter.numel() for entry in matrices]
    sparsity = config.weight_sparsity
    if sparsity is None:
        return 3 * sum(sizes)
    # A step uses the weights that the step before it left.
    fraction = (
        nonzero_fraction(step - 1, config.steps, sparsity) if step else sparsity.start_fraction
    )
    kept = [_kept(entry.parameter, entry.floor_dim, fraction, sparsity) for entry in matrices]
    return sum(
        2 * nonzero + _trained(size, nonzero, fraction, sparsity)
        for size, nonzero in zip(sizes, kept, strict=True)
    )


def _kept(
    parameter: nn.Parameter, dim: int | None, fraction: float, sparsity: WeightSparsityConfig
) -> int:
    """Return the nonzero entries of a matrix."""
    least = 0
    if dim is not None:
        least = parameter.shape[dim] * min(sparsity.floor, parameter.shape[1 - dim])
    return max(kept_entries(fraction, parameter.numel()), least)


def _trained(size: int, nonzero: int, fraction: float, sparsity: WeightSparsityConfig) -> int:
    """Return the entries of a matrix whose gradients are computed, mean over steps."""
    if sparsity.gradient == "exact" or fraction > sparsity.live_below:
        return size
    return min(size, round((1 + sparsity.candidates) * nonzero + size / sparsity.dense_every))
