"""Cached state of the current patched run, and which parts of it the output depends on.

Sources without a path to the output are not computed; sources that matter only at the last token
are computed only there. Tokens before the first corrupted one are the same in every run and are
not recomputed: T counts tokens from there on.
Shapes: R trials, U distinct versions of a value, N prompts, T tokens (1 if only the last matters),
D d_model, G heads of a group, K channels of a head.
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
"""At which tokens of a source the output depends on it: none, the last token, all."""


@dataclass
class Versions:
    """Values of one part of the run in the trials where it differs from the current run."""

    each: Tensor
    """(U, N, T, ...)."""
    of: Ints
    """(R,), index of each trial's version; -1 for the value of the current run."""


@dataclass
class Trials:
    """Result of a pass: the metric of each trial, and all values that it changes."""

    metric: list[float]
    changes: dict[int, Versions] = field(default_factory=dict)
    """By source: change of its value from the current run."""
    inputs: dict[int, Versions] = field(default_factory=dict)
    """By destination: its input."""
    parts: dict[int, Versions] = field(default_factory=dict)
    """By head destination: queries, keys or values before AbsTopK."""


class PatchedState:
    """The run without the edges removed so far, with all intermediate values cached.

    Args:
        patched: the model and the prompts.
        metric: name of the metric.
    """

    def __init__(self, patched: Patched, metric: PathMetric) -> None:
        self.patched = patched
        self.graph = graph = patched.graph
        self.name: PathMetric = metric
        self.kept: Bools = np.zeros((len(graph.destinations), len(graph.sources)), bool)
        for source, destination in graph.edges:
            self.kept[destination, source] = True
        self.start = patched.first_change()
        beside = patched.transformer.entry(patched.contrast.clean)[1]
        self.beside = None if beside is None else beside[:, self.start :]
        self.groups = [self._groups(layer) for layer in range(graph.n_layer)]
        self.folded = self._folded()
        self._fill()
        self._narrow()

    def _fill(self) -> None:
        """Compute all intermediate values of the run with nothing removed."""
        graph = self.graph
        clean = self.patched.run()
        self.reference = clean.logits
        self.measure = self.patched.contrast.metric(self.name, clean.logits)
        self.metric = float(self.measure(clean.logits))
        self.ablated = [value[:, self.start :] for value in self.patched.ablated]
        values = zip(clean.values, self.ablated, strict=True)
        self.written = [value[:, self.start :] - ablated for value, ablated in values]
        self.inputs: list[Tensor] = []
        self.parts: dict[int, Tensor] = {}
        self.past: dict[tuple[int, int], list[Tensor]] = {}
        x, beside = clean.values[0], self.patched.transformer.entry(self.patched.contrast.clean)[1]
        for layer in range(graph.n_layer):
            block = self.patched.block(layer)
            self.inputs += [x[:, self.start :]] * (len(QKV) * graph.n_head)
            read = block.attn.act_in(block.read_by_attention(x, beside))
            heads = range(graph.n_head)
            parts = [[head_part(block.attn, read, kind, h) for h in heads] for kind in range(3)]
            for kind, of_kind in enumerate(parts):
                for head, part in enumerate(of_kind):
                    place = graph.head_input(layer, kind, head)
                    self.parts[place] = part[:, self.start :]
            for group in self.groups[layer]:
                self.past[layer, group[0]] = [
                    stacked_heads(site, [part[:, : self.start] for part in of_group])
                    for site, of_kind in zip(part_sites(block.attn)[1:], parts[1:], strict=True)
                    for of_group in [[of_kind[head] for head in group]]
                ]
            heads_sum = torch.stack(clean.values[graph.head(layer, 0) : graph.mlp(layer)]).sum(0)
            x = x + self.patched.view(layer, heads_sum)
            self.inputs.append(x[:, self.start :])
            x = x + clean.values[graph.mlp(layer)]
        self.inputs.append(x[:, self.start :])

    def in_float32(self) -> "PatchedState":
        """Return a copy in float32."""
        quick = copy.copy(self)
        quick.patched = self.patched.to(torch.float32)
        quick.measure = self.patched.contrast.metric(self.name, self.reference.float())
        quick.kept = self.kept.copy()
        quick.beside = None if self.beside is None else self.beside.float()
        quick.written = [value.float() for value in self.written]
        quick.ablated = [value.float() for value in self.ablated]
        quick.inputs = [value.float() for value in self.inputs]
        quick.past = {key: [part.float() for part in kv] for key, kv in self.past.items()}
        quick.parts = {place: value.float() for place, value in self.parts.items()}
        return quick

    def _folded(self) -> dict[int, int]:
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
        alone = all(site.k is None for site in part_sites(attn))
        heads = range(self.graph.n_head)
        return [[head] for head in heads] if alone else [list(heads)]

    def reach(self, kept: Bools) -> Ints:
        """Return at which tokens of each source the output depends on it, given the kept edges.

        Args:
            kept: (destinations, sources, ...) bool, for one run or several.

        Returns:
            (sources, ...) of NO_TOKEN, LAST_TOKEN and ALL_TOKENS.
        """
        graph, n_head = self.graph, self.graph.n_head
        reach: Ints = kept[graph.final] * np.int8(LAST_TOKEN)
        for layer in reversed(range(graph.n_layer)):
            mlp = reach[graph.mlp(layer)]
            np.maximum(reach, kept[graph.mlp_input(layer)] * mlp, out=reach)
            heads = reach[graph.head(layer, 0) : graph.mlp(layer)]  # (H, ...)
            if len(self.groups[layer]) == 1:
                heads = np.broadcast_to(heads.max(0), heads.shape)
            if heads.any():
                first = graph.head_input(layer, 0, 0)
                q, kv = kept[first : first + n_head], kept[first + n_head : first + 3 * n_head]
                np.maximum(reach, (q * heads[:, None]).max(0), out=reach)
                whole = np.concatenate([heads, heads]) > NO_TOKEN
                np.maximum(reach, (kv & whole[:, None]).any(0) * np.int8(ALL_TOKENS), out=reach)
        return reach

    def reads(self, destination: int, reach: Ints) -> int:
        """Return at which tokens a destination matters: NO_TOKEN, LAST_TOKEN or ALL_TOKENS."""
        graph = self.graph
        if destination == graph.final:
            return LAST_TOKEN
        layer, place = divmod(destination, len(QKV) * graph.n_head + 1)
        kind, head = divmod(place, graph.n_head)
        if kind == len(QKV):
            return int(reach[graph.mlp(layer)])
        group = next(group for group in self.groups[layer] if head in group)
        needed = max(int(reach[graph.head(layer, head)]) for head in group)
        return ALL_TOKENS if needed and kind else needed

    def take_(self, trials: Trials | None, chosen: int, gone: Iterable[EdgeNumbers]) -> None:
        """Make a trial the current run.

        Args:
            trials: result of a pass; None if only edges without effect are removed.
            chosen: index of the trial.
            gone: the removed edges.
        """
        for source, destination in gone:
            self.kept[destination, source] = False
        if trials is not None:
            self.metric = trials.metric[chosen]
            for source, versions in trials.changes.items():
                if (version := versions.of[chosen]) >= 0:
                    self.written[source] = self.written[source] + versions.each[version]
            for pieces, changed in ((self.inputs, trials.inputs), (self.parts, trials.parts)):
                for destination, versions in changed.items():
                    if (version := versions.of[chosen]) >= 0:
                        pieces[destination] = versions.each[version]
        self._narrow()

    def follow_(self, exact: "PatchedState", trials: Trials | None) -> None:
        """Update this float32 copy from the values that `exact` took from a pass."""
        self.kept, self.metric = exact.kept.copy(), exact.metric
        if trials is not None:
            for source in trials.changes:
                self.written[source] = exact.written[source].float()
            for destination in trials.inputs:
                self.inputs[destination] = exact.inputs[destination].float()
            for destination in trials.parts:
                self.parts[destination] = exact.parts[destination].float()
        self._narrow()

    def _narrow(self) -> None:
        """Recompute dependencies; keep only the last token of values that matter only there."""
        self.reached = self.reach(self.kept)
        self.read_at = [self.reads(d, self.reached) for d in range(len(self.inputs))]
        for source, tokens in enumerate(self.reached):
            if tokens == LAST_TOKEN:
                self.written[source] = self.cut(self.written[source])
                self.ablated[source] = self.cut(self.ablated[source])
        for destination, tokens in enumerate(self.read_at):
            if tokens == LAST_TOKEN:
                self.inputs[destination] = self.cut(self.inputs[destination])
                if destination in self.parts:
                    self.parts[destination] = self.cut(self.parts[destination])

    def cut(self, x: Tensor) -> Tensor:
        """Return (..., N, 1, D), the last tokens of (..., N, T, D); already cut values stay."""
        if x.shape[-2] == 1:
            return x
        last_positions = self.patched.contrast.last_positions - self.start
        prompts = torch.arange(len(last_positions), device=last_positions.device)
        return x[..., prompts, last_positions, :].unsqueeze(-2)

    def beside_at(self, destination: int) -> Tensor | None:
        """Return the concatenated positions (N, T, P) for the input of a destination."""
        if self.beside is None or self.read_at[destination] == ALL_TOKENS:
            return self.beside
        return self.cut(self.beside)
