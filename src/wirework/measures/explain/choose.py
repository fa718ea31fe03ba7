"""Choose the neurons to explain (named ones, or a seeded sample) and the length of excerpts."""

import random

from wirework.config import ExplainConfig
from wirework.errors import InputError, nearest, number_of
from wirework.measures.explain.record import Neuron
from wirework.nn import Transformer
from wirework.nn.sites import look_up
from wirework.node_names import NEGATED

_EXCERPT = 64
"""Tokens of an excerpt, if the context is long enough (Bills et al. 2023)."""


def choose_neurons(transformer: Transformer, config: ExplainConfig) -> list[Neuron]:
    """Return the neurons that the settings ask for, in order of site and index.

    Raises:
        InputError: the model has no such site or neuron.
    """
    if config.only:
        chosen = {_named(transformer, name) for name in config.only}
    else:
        layers = range(transformer.config.n_layer)
        names = config.sites or tuple(f"{layer}.mlp.post_act" for layer in layers)
        sites = look_up(transformer.sites, names)
        candidates = [Neuron(name, i) for name, site in sites.items() for i in range(site.width)]
        count = len(candidates) if config.neurons is None else min(config.neurons, len(candidates))
        chosen = set(random.Random(config.seed).sample(candidates, count))
    order = {name: place for place, name in enumerate(transformer.sites)}
    return sorted(chosen, key=lambda n: (order[n.site], n.index, n.negated))


def excerpt_length(n_ctx: int, config: ExplainConfig) -> int:
    """Return the number of tokens of an excerpt, for a model with a context of `n_ctx`.

    Raises:
        InputError: the settings ask for more than the context.
    """
    if config.excerpt_tokens is None:
        return min(_EXCERPT, n_ctx)
    if config.excerpt_tokens > n_ctx:
        raise InputError(
            f"excerpt_tokens {config.excerpt_tokens} is more than the model's context of "
            f"{number_of(n_ctx, 'token')}: lower it"
        )
    return config.excerpt_tokens


def _named(transformer: Transformer, name: str) -> Neuron:
    site, _, index = name.removesuffix(NEGATED).rpartition(".")
    if not site or not index.isdecimal():
        raise InputError(f"a neuron is named SITE.INDEX, as 0.mlp.post_act.17, got {name!r}")
    if site not in transformer.sites:
        raise InputError(f"no site {site!r} in this model{nearest(site, transformer.sites)}")
    width = transformer.sites[site].width
    if int(index) >= width:
        raise InputError(f"{site} has neurons 0 .. {width - 1}, got {index}")
    return Neuron(site, int(index), name.endswith(NEGATED))
