"""Cached values of the current patched run, and the tokens at which the output depends on them.

Two savings keep trials cheap:

- A source that the output does not depend on is not computed. A source that matters only at the
  last token is computed only there.
- Tokens before the first corrupted one are the same in every run. They are computed once, and T
  counts tokens from the first corrupted one on.

Shapes: R trials, U distinct versions of a value, N prompts, T tokens (1 if only the last matters),
D d_model, G heads of a group, K channels of a head, M destinations, S sources.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wirework.circuits.path_patching.graph import QKV
from wirework.circuits.path_patching.patched import (
    Patched,
    head_part,
    part_sites,
    stacked_heads,
)
from wirework.config import PathMetric

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
EdgeNumbers = tuple[int, int]
"""(source, destination) of an edge, as numbers of a `Graph`."""

NO_TOKEN, LAST_TOKEN, ALL_TOKENS = 0, 1, 2
"""Tokens at which the output depends on a value: none, the last token of each prompt, or all."""


@dataclass
class Versions:
    """Values of one part of the run in the trials where it differs from the current run."""

    values: Tensor
    """(U, N, T, ...), one entry per distinct version."""
    of_trial: Ints
    """(R,), index of each trial's version in `values`; -1 for the value of the current run."""


@dataclass
class Trials:
    """Result of a pass: the metric of each trial, and all values that differ from the run."""

    metrics: list[float]
    """Metric of each trial, R numbers."""
    changes: dict[int, Versions] = field(default_factory=dict)
    """By source number: its value minus that in the current run, (U, N, T, D)."""
    inputs: dict[int, Versions] = field(default_factory=dict)
    """By destination number: its input, (U, N, T, D)."""
    parts: dict[int, Versions] = field(default_factory=dict)
    """By destination number of a head: queries, keys or values before AbsTopK, (U, N, T, K)."""


class PatchedState:
    """The run without the edges removed so far, with all intermediate values cached.

    Attributes:
        kept: (M, S) bool, the edges that are not removed.
        start: first position at which removing edges can change an activation.
        groups: by layer, the groups of heads that are computed together.
        top_k_layers: layer of each head source whose layer applies AbsTopK to the sum of its heads.
        metric: metric of this run.
        ablated: by source, the value that its removed edges contribute, (N, T, D).
        deviations: by source, its value in this run minus its ablated value, (N, T, D).
        inputs: by destination, its input in this run, (N, T, D).
        parts: by destination of a head, queries, keys or values before AbsTopK, (N, T, K).
        past: by layer and first head of a group, its keys and values before `start`, each
            (N, G, start, K).
        pos: (N, T, P), position vectors concatenated to every input; None if there are none.
        source_tokens: (S,), tokens at which the output depends on each source.
        destination_tokens: tokens at which the output depends on each destination.

    Args:
        patched: the model and the prompts.
        metric: name of the metric.
    """

    def __init__(self, patched: Patched, metric: PathMetric) -> None:
        self.patched = patched
        self.graph = graph = patched.graph
        self.metric_name: PathMetric = metric
        self.kept: Bools = np.zeros((len(graph.destinations), len(graph.sources)), bool)
        for source, destination in graph.edges:
            self.kept[destination, source] = True
        self.start = patched.first_change()
        pos = patched.transformer.entry(patched.contrast.clean)[1]
        self.pos = None if pos is None else pos[:, self.start :]
        self.groups = [self._groups(layer) for layer in range(graph.n_layer)]
        self.top_k_layers = self._top_k_layers()
        self._compute_clean_run()
        self._drop_unneeded_tokens()

    def _compute_clean_run(self) -> None:
        """Compute and cache all values of the run with nothing removed."""
        graph, start = self.graph, self.start
        clean = self.patched.run()
        self.reference = clean.logits
        self.measure = self.patched.contrast.metric(self.metric_name, clean.logits)
        self.metric = float(self.measure(clean.logits))
        self.ablated = [value[:, start:] for value in self.patched.ablated]
        self.deviations = [
            value[:, start:] - ablated
            for value, ablated in zip(clean.values, self.ablated, strict=True)
        ]
        self.inputs: list[Tensor] = []
        self.parts: dict[int, Tensor] = {}
        self.past: dict[tuple[int, int], list[Tensor]] = {}
        x, pos = clean.values[0], self.patched.transformer.entry(self.patched.contrast.clean)[1]
        for layer in range(graph.n_layer):
            self.inputs += [x[:, start:]] * (len(QKV) * graph.n_head)
            self._cache_queries_keys_values(layer, x, pos)
            heads_sum = torch.stack(clean.values[graph.head(layer, 0) : graph.mlp(layer)]).sum(0)
            x = x + self.patched.attention_output(layer, heads_sum)
            self.inputs.append(x[:, start:])
            x = x + clean.values[graph.mlp(layer)]
        self.inputs.append(x[:, start:])

    def _cache_queries_keys_values(self, layer: int, x: Tensor, pos: Tensor | None) -> None:
        """Fill `parts` and `past` of a layer from the residual stream before it, (N, tokens, D)."""
        block = self.patched.block(layer)
        read = block.attn.act_in(block.read_by_attention(x, pos))
        by_kind = [
            [head_part(block.attn, read, kind, head) for head in range(self.graph.n_head)]
            for kind in range(len(QKV))
        ]
        for kind, heads in enumerate(by_kind):
            for head, part in enumerate(heads):
                self.parts[self.graph.head_input(layer, kind, head)] = part[:, self.start :]
        for group in self.groups[layer]:
            self.past[layer, group[0]] = [
                stacked_heads(site, [heads[head][:, : self.start] for head in group])
                for site, heads in zip(part_sites(block.attn)[1:], by_kind[1:], strict=True)
            ]

    def in_float32(self) -> "PatchedState":
        """Return a copy in float32."""
        rounded = copy.copy(self)
        rounded.patched = self.patched.to(torch.float32)
        rounded.measure = self.patched.contrast.metric(self.metric_name, self.reference.float())
        rounded.kept = self.kept.copy()
        rounded.pos = None if self.pos is None else self.pos.float()
        rounded.deviations = [value.float() for value in self.deviations]
        rounded.ablated = [value.float() for value in self.ablated]
        rounded.inputs = [value.float() for value in self.inputs]
        rounded.past = {key: [part.float() for part in kv] for key, kv in self.past.items()}
        rounded.parts = {number: value.float() for number, value in self.parts.items()}
        return rounded

    def _top_k_layers(self) -> dict[int, int]:
        """Return the layer of each head source whose layer applies AbsTopK to the sum of heads."""
        return {
            self.graph.head(layer, head): layer
            for layer in range(self.graph.n_layer)
            if self.patched.block(layer).attn.resid_delta.k is not None
            for head in range(self.graph.n_head)
        }

    def _groups(self, layer: int) -> list[list[int]]:
        """Return groups of heads that must be computed together because of AbsTopK."""
        attn = self.patched.block(layer).attn
        are_independent = all(site.k is None for site in part_sites(attn))
        heads = range(self.graph.n_head)
        return [[head] for head in heads] if are_independent else [list(heads)]

    def tokens_of_sources(self, kept: Bools) -> Ints:
        """Return the tokens at which the output depends on each source, given the kept edges.

        Args:
            kept: (M, S, ...) bool, for one run or several.

        Returns:
            (S, ...) of NO_TOKEN, LAST_TOKEN and ALL_TOKENS.
        """
        graph, n_head = self.graph, self.graph.n_head
        needed: Ints = kept[graph.final] * np.int8(LAST_TOKEN)
        for layer in reversed(range(graph.n_layer)):
            mlp = needed[graph.mlp(layer)]
            np.maximum(needed, kept[graph.mlp_input(layer)] * mlp, out=needed)
            heads = needed[graph.head(layer, 0) : graph.mlp(layer)]  # (H, ...)
            if len(self.groups[layer]) == 1:
                heads = np.broadcast_to(heads.max(0), heads.shape)
            if heads.any():
                first = graph.head_input(layer, 0, 0)
                q, kv = kept[first : first + n_head], kept[first + n_head : first + 3 * n_head]
                # a query matters where its head does; keys and values matter at all tokens
                np.maximum(needed, (q * heads[:, None]).max(0), out=needed)
                is_needed = np.concatenate([heads, heads]) > NO_TOKEN
                at_all_tokens = (kv & is_needed[:, None]).any(0) * np.int8(ALL_TOKENS)
                np.maximum(needed, at_all_tokens, out=needed)
        return needed

    def tokens_of_destination(self, destination: int, source_tokens: Ints) -> int:
        """Return the tokens at which the output depends on a destination.

        Args:
            destination: its number.
            source_tokens: (S,), the result of `tokens_of_sources`.

        Returns:
            NO_TOKEN, LAST_TOKEN or ALL_TOKENS.
        """
        graph = self.graph
        if destination == graph.final:
            return LAST_TOKEN
        layer, index_in_layer = divmod(destination, len(QKV) * graph.n_head + 1)
        kind, head = divmod(index_in_layer, graph.n_head)
        if kind == len(QKV):
            return int(source_tokens[graph.mlp(layer)])
        group = next(group for group in self.groups[layer] if head in group)
        needed = max(int(source_tokens[graph.head(layer, head)]) for head in group)
        return ALL_TOKENS if needed and kind else needed

    def adopt_(self, trials: Trials | None, trial: int, removed: Iterable[EdgeNumbers]) -> None:
        """Make one trial of a pass the current run.

        Args:
            trials: result of the pass; None if only edges without effect are removed.
            trial: index of the trial.
            removed: the edges that the trial removes.
        """
        for source, destination in removed:
            self.kept[destination, source] = False
        if trials is not None:
            self.metric = trials.metrics[trial]
            for source, versions in trials.changes.items():
                if (version := versions.of_trial[trial]) >= 0:
                    self.deviations[source] = self.deviations[source] + versions.values[version]
            for cached, changed in ((self.inputs, trials.inputs), (self.parts, trials.parts)):
                for destination, versions in changed.items():
                    if (version := versions.of_trial[trial]) >= 0:
                        cached[destination] = versions.values[version]
        self._drop_unneeded_tokens()

    def copy_from_(self, exact: "PatchedState", trials: Trials | None) -> None:
        """Bring this float32 copy up to date after `exact` adopted a trial.

        Args:
            exact: the float64 run.
            trials: the pass whose trial `exact` adopted; None if it changed no values.
        """
        self.kept, self.metric = exact.kept.copy(), exact.metric
        if trials is not None:
            for source in trials.changes:
                self.deviations[source] = exact.deviations[source].float()
            for destination in trials.inputs:
                self.inputs[destination] = exact.inputs[destination].float()
            for destination in trials.parts:
                self.parts[destination] = exact.parts[destination].float()
        self._drop_unneeded_tokens()

    def _drop_unneeded_tokens(self) -> None:
        """Update which tokens matter; keep only the last token of values that matter only there."""
        self.source_tokens = self.tokens_of_sources(self.kept)
        self.destination_tokens = [
            self.tokens_of_destination(destination, self.source_tokens)
            for destination in range(len(self.inputs))
        ]
        for source, tokens in enumerate(self.source_tokens):
            if tokens == LAST_TOKEN:
                self.deviations[source] = self.last_tokens(self.deviations[source])
                self.ablated[source] = self.last_tokens(self.ablated[source])
        for destination, tokens in enumerate(self.destination_tokens):
            if tokens == LAST_TOKEN:
                self.inputs[destination] = self.last_tokens(self.inputs[destination])
                if destination in self.parts:
                    self.parts[destination] = self.last_tokens(self.parts[destination])

    def last_tokens(self, x: Tensor) -> Tensor:
        """Return (..., N, 1, D), the last token of each prompt in (..., N, T, D)."""
        if x.shape[-2] == 1:
            return x
        last_positions = self.patched.contrast.last_positions - self.start
        prompts = torch.arange(len(last_positions), device=last_positions.device)
        return x[..., prompts, last_positions, :].unsqueeze(-2)

    def pos_at(self, destination: int) -> Tensor | None:
        """Return the concatenated positions (N, T, P) for the input of a destination."""
        if self.pos is None or self.destination_tokens[destination] == ALL_TOKENS:
            return self.pos
        return self.last_tokens(self.pos)
