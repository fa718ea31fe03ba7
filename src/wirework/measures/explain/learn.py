"""Learn the patterns of a neuron by changing the context where it is active (Foote et al. 2023).

For each place where the neuron is active:
1. shorten the context while the activation stays;
2. replace each remaining token by random ones: a gap where they do as well;
3. replace each token that matters by likely ones: a new pattern where the activation stays.

A pattern predicts the mean activation over the places in the excerpts that it matches. Two things
are ours: likely tokens come from the model's embedding and the excerpts, and the mean, by which a
pattern that holds at few of its places predicts little.
"""

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.config import PatternConfig
from wirework.measures.explain.collect import activations
from wirework.measures.explain.patterns import ANY, Key, Pattern, Trie
from wirework.measures.explain.record import Excerpt, Neuron, NeuronRecord
from wirework.nn.kernels.sparse_linear import unchanged_weights

if TYPE_CHECKING:
    from wirework.nn import Transformer

_TOKENS = 1 << 13  # most tokens of one forward pass

_Activations = dict[Key, float]
"""Patterns and the activation that the model gives for each."""


class Probe:
    """Computes a neuron's activation at the last token of a context, once for each context.

    Args:
        transformer: the model.
        neuron: one of its neurons.
    """

    def __init__(self, transformer: "Transformer", neuron: Neuron) -> None:
        self._transformer = transformer
        self._neuron = neuron
        self._known: dict[Key, float] = {}

    def __call__(self, contexts: Sequence[Key]) -> list[float]:
        """Return the activation at the last token of each context."""
        new = sorted({key for key in contexts if key not in self._known}, key=lambda k: (len(k), k))
        while new:
            # Batches of similar lengths, padded with 0: later tokens do not affect earlier ones.
            count = next((i for i, key in enumerate(new) if (i + 1) * len(key) > _TOKENS), len(new))
            part, new = new[: max(1, count)], new[max(1, count) :]
            self._known.update(zip(part, self._ask(part), strict=True))
        return [self._known[key] for key in contexts]

    @torch.no_grad()
    def _ask(self, contexts: Sequence[Key]) -> list[float]:
        rows = torch.zeros(len(contexts), max(map(len, contexts)), dtype=torch.int64)
        for row, key in zip(rows, contexts, strict=True):
            row[: len(key)] = torch.tensor(key)
        last = torch.tensor([len(key) - 1 for key in contexts])
        values = activations(self._transformer, [self._neuron], rows)[..., 0]
        last_values: list[float] = values[torch.arange(len(contexts)), last].tolist()
        return last_values


@unchanged_weights()
def learn_patterns(
    record: NeuronRecord, transformer: "Transformer", config: PatternConfig
) -> list[Pattern]:
    """Return the patterns of a neuron, ordered by activation times number of matches.

    Args:
        record: only its excerpts of training text are read.
        transformer: the model.
        config: settings.

    Source: Foote et al. 2023, sec. 3.
    """
    generator = random.Random(record.neuron.name)
    probe = Probe(transformer, record.neuron)
    excerpts = (*record.top, *record.random)
    vocabulary = sorted({token for excerpt in excerpts for token in excerpt.tokens})
    seeds = _seeds(excerpts, record.peak, config)
    short = _shortened(seeds, probe, config)
    masked = _masked(short, probe, config, generator, vocabulary)
    likely = _SubstituteTokens(transformer, [*short], config.alternatives)
    values: _Activations = {}
    for key, base in sorted(short.items(), key=lambda item: (item[1], item[0])):
        values[masked[key]] = base  # of equal patterns the strongest stays
    for key, value in _varied(short, masked, probe, config, likely):
        values.setdefault(key, value)
    return _calibrated(values, excerpts)


def _seeds(
    excerpts: Sequence[Excerpt], peak: float, config: PatternConfig
) -> list[tuple[Key, float]]:
    """Return contexts that end where the neuron is active, with its activation there.

    Of contexts with the same last two tokens, only the strongest is returned.
    """
    places = [
        (value, excerpt.tokens[: i + 1])
        for excerpt in excerpts
        for i, value in enumerate(excerpt.activations)
        if value >= config.seed_share * peak
    ]
    places.sort(key=lambda place: (-place[0], place[1]))
    strongest: dict[Key, tuple[Key, float]] = {}
    for value, context in places:
        strongest.setdefault(context[-2:], (context, value))
    return list(strongest.values())[: config.seeds]


def _shortened(
    seeds: Sequence[tuple[Key, float]], probe: Probe, config: PatternConfig
) -> _Activations:
    """Return the shortest suffix of each context that keeps its activation, else its last token."""
    shortest: _Activations = {}
    waiting = list(seeds)
    for length in range(1, config.max_context + 1):
        values = probe([context[-length:] for context, _ in waiting])
        is_kept = [v >= config.keep_share * a for v, (_, a) in zip(values, waiting, strict=True)]
        for (context, _), value, keeps in zip(waiting, values, is_kept, strict=True):
            if keeps:
                shortest[context[-length:]] = value
        waiting = [seed for seed, keeps in zip(waiting, is_kept, strict=True) if not keeps]
    for context, value in waiting:
        shortest.setdefault(context[-1:], value)
    return shortest


def _masked(
    short: _Activations,
    probe: Probe,
    config: PatternConfig,
    generator: random.Random,
    vocabulary: Sequence[int],
) -> dict[Key, Key]:
    """Return each context with gaps where random tokens keep the activation."""
    tries = {
        (key, i): [_put(key, i, generator.choice(vocabulary)) for _ in range(config.substitutes)]
        for key in short
        for i in range(len(key))
    }
    probe([context for row in tries.values() for context in row])  # fills the cache in one batch
    masked_contexts = {}
    for key, base in short.items():
        means = [sum(probe(tries[key, i])) / config.substitutes for i in range(len(key))]
        free = [mean >= config.keep_share * base for mean in means]
        masked = [ANY if is_free else token for token, is_free in zip(key, free, strict=True)]
        while len(masked) > 1 and masked[0] == ANY:
            del masked[0]
        masked_contexts[key] = tuple(masked)
    return masked_contexts


def _put(key: Key, place: int, token: int) -> Key:
    return (*key[:place], token, *key[place + 1 :])


class _SubstituteTokens:
    """Likely substitutes for a token: tokens of other contexts, then the nearest embeddings.

    Args:
        transformer: the model.
        contexts: contexts of one neuron.
        count: most tokens of each kind.
    """

    def __init__(self, transformer: "Transformer", contexts: Sequence[Key], count: int) -> None:
        self._contexts = contexts
        self._count = count
        self._embedding = transformer.embed.weight.detach()
        self._near: dict[int, list[int]] = {}

    def __call__(self, token: int, from_end: int) -> list[int]:
        """Return substitutes for a token at place `from_end` (1: last) of its context."""
        same_place = [key[-from_end] for key in self._contexts if len(key) >= from_end]
        others = list(dict.fromkeys(i for i in same_place if i != token))[: self._count]
        return list(dict.fromkeys([*others, *self._nearest(token)]))

    def _nearest(self, token: int) -> list[int]:
        if token not in self._near:
            self._near[token] = _nearest(self._embedding, token, self._count)
        return self._near[token]


def _nearest(embedding: Tensor, token: int, count: int) -> list[int]:
    cosine = torch.nn.functional.cosine_similarity(embedding, embedding[token][None], dim=1)
    cosine[token] = -torch.inf
    nearest: list[int] = cosine.topk(min(count, len(cosine) - 1)).indices.tolist()
    return nearest


def _varied(
    short: _Activations,
    masked: dict[Key, Key],
    probe: Probe,
    config: PatternConfig,
    likely: _SubstituteTokens,
) -> Iterator[tuple[Key, float]]:
    """Yield patterns with one token replaced by a likely one, if the activation stays."""
    tries = [
        (key, len(key) - from_end, token)
        for key in short
        for from_end, old in enumerate(reversed(masked[key]), 1)
        if old != ANY
        for token in likely(old, from_end)
    ]
    values = probe([_put(*substitution) for substitution in tries])
    for (key, place, token), value in zip(tries, values, strict=True):
        if value >= config.keep_share * short[key]:
            yield _put(masked[key], place - len(key) + len(masked[key]), token), value


def _calibrated(values: _Activations, excerpts: Sequence[Excerpt]) -> list[Pattern]:
    """Return patterns with their mean activation, over the probe and the places that they match.

    Each place of the excerpts counts once, for the longest pattern that matches it.
    """
    trie = Trie(Pattern(key, value) for key, value in values.items())
    total, n_places = dict(values), dict.fromkeys(values, 0)
    for excerpt in excerpts:
        for place, value in enumerate(excerpt.activations):
            fits = trie.find(excerpt.tokens, place)
            if fits is not None:
                total[fits.tokens] += value
                n_places[fits.tokens] += 1
    patterns = [Pattern(key, total[key] / (n_places[key] + 1), n_places[key]) for key in values]
    return sorted(
        patterns, key=lambda pattern: (-pattern.activation * (pattern.n_places + 1), pattern.tokens)
    )
