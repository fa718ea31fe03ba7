"""Activation cache: node activations on training text, for resample ablation.

Removed nodes then take values that occur in real text instead of their mean.
Shapes: N nodes of one site, S tokens in the cache, B sequences, T tokens.
Source: Gao et al. 2025, App. E (resampled values from the pretraining distribution).
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuits.masking.training_text import disjoint_windows, training_text_of, windows_at
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.nn import Edit, Transformer

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_TOKENS = 1024
"""Tokens of training text whose activations are cached."""
_WINDOWS = 64
"""Windows of text, of n_ctx tokens each, from which these tokens are drawn."""

ActivationCache = Mapping[str, Tensor]
"""Site to (S, N): activations of all its nodes at the same S tokens of training text."""


def activation_cache_of(
    model: "Model", text: "Tokens", seed: int = 0, *, second_sample: bool = True
) -> ActivationCache:
    """Return the activations of a model's nodes at 1,024 random tokens of its training text.

    Args:
        model: the model.
        text: its training text.
        seed: selects the tokens.
        second_sample: use windows of text that no search uses. A text of a single window has no
            others; then the search's window is used.

    Returns:
        Site to (S, N), with S at most 1,024, in the model's dtype and on its device.

    Raises:
        InputError: the text is shorter than a context.
    """
    n_ctx = model.config.n_ctx
    first, second = disjoint_windows(text, n_ctx, _WINDOWS)
    starts = second if second_sample and second else first
    return activation_cache(model.transformer, windows_at(text, starts, n_ctx), _TOKENS, seed)


def activation_cache_of_search(
    model: "Model", data: "Tokens | None", config: PruneConfig, *, second_sample: bool = False
) -> ActivationCache | None:
    """Return the activation cache for a search with resample ablation; None for others.

    Args:
        model: the model.
        data: training text; None for the text of the model's run.
        config: settings of the search.
        second_sample: use the second sample of text, with which a circuit is judged, instead of the
            first, which the search uses.

    Raises:
        InputError: there is no text, or it is shorter than a context.
    """
    if config.ablation != "resample":
        return None
    return activation_cache_of(
        model, training_text_of(model, data), seed=1 + config.seed, second_sample=second_sample
    )


@torch.no_grad()
def activation_cache(
    transformer: Transformer, batches: Iterable[Tensor], n: int, seed: int = 0
) -> ActivationCache:
    """Record the activations of all nodes at `n` tokens drawn uniformly without replacement.

    Memory: n activations per node and one forward pass.

    Args:
        transformer: the model.
        batches: each (B, T) int64.
        n: how many tokens to draw; all tokens if there are fewer.
        seed: seed of the draw.

    Returns:
        Site to (min(n, tokens), N), in the model's dtype and on its device.

    Raises:
        InputError: no token at all, or `n` is below 1.
    """
    generator, device = torch.Generator().manual_seed(seed), transformer.embed.weight.device
    # Every token gets a random key; the cache holds the tokens with the n largest keys so far.
    keys = torch.empty(0, dtype=torch.float64)
    cache: dict[str, Tensor] = {}
    for tokens in batches:
        n_cached = len(keys)
        new_keys = torch.rand(tokens.numel(), generator=generator, dtype=torch.float64)
        keys = torch.cat([keys, new_keys])
        drawn = keys.topk(min(max(n, 0), len(keys))).indices.sort().values
        keys, staying = keys[drawn], drawn[drawn < n_cached].to(device)
        entering = drawn[drawn >= n_cached] - n_cached
        new_values: dict[str, Tensor] = {}
        with transformer.edited(_recorders(transformer, entering, new_values)):
            transformer.state(tokens.to(device))
        cache = {
            name: torch.cat([cache[name][staying], new]) if cache else new
            for name, new in new_values.items()
        }
    if not len(keys):
        raise InputError(
            f"an activation cache of {n} tokens needs at least one token of training text"
        )
    return cache


def _recorders(
    transformer: Transformer, token_numbers: Tensor, recorded: dict[str, Tensor]
) -> dict[str, Edit]:
    """Return edits that copy the activations of some tokens to `recorded` and change nothing.

    Args:
        transformer: the model.
        token_numbers: int64, 1-d, indices into the B T tokens of a batch.
        recorded: filled with site to (len(token_numbers), N) when the model runs.
    """

    def recorder(name: str) -> Edit:
        def record(x: Tensor) -> Tensor:
            recorded[name] = x.flatten(0, 1)[token_numbers.to(x.device)]
            return x

        return record

    return {name: recorder(name) for name in transformer.node_sites}
