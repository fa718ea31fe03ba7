"""The current patched run, kept piece by piece, and trials of removing more edges from it.

A pass tries many removals at once. Only what reads something changed is computed, and of every
piece only its distinct versions: a head whose inputs two trials change alike is computed once for
both. A source that has no path to the output is never computed, and one that only the last tokens'
outcome depends on is computed at these alone.
Shapes: R trials, U versions of a piece, N prompts, T tokens (1 where only the last counts),
D d_model, G heads of a group, K channels of a head.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wirework.circuits.acdc.graph import QKV
from wirework.circuits.acdc.patched import (
    Patched,
    attention_settings,
    head_output,
    head_part,
    part_sites,
)
from wirework.config import PathMetric
from wirework.nn import Site
from wirework.nn.attention import attention_at, causal_attention

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Edge = tuple[int, int]

_LOGITS = 1 << 22
"""Logits at once: with what is made of them they then stay far below what a pass needs anyway."""

DEAD, LAST, WHOLE = 0, 1, 2
"""How much of a source the output depends on: nothing, the last tokens, all tokens."""


@dataclass
class Versions:
    """A piece of the run as it is in each trial."""

    each: Tensor
    """(U, N, T, ...)."""
    of: Ints
    """(R,), which version a trial has."""

    def at(self, trials: Ints) -> Tensor:
        """Return the versions that these trials have."""
        wanted = self.of[trials]
        if np.array_equal(wanted, np.arange(len(self.each))):
            return self.each
        return self.each[torch.from_numpy(wanted).to(self.each.device)]


@dataclass
class Trials:
    """What became of a pass: each trial's metric, and all that it changes."""

    metric: list[float]
    written: dict[int, Versions] = field(default_factory=dict)
    """By source: its value less the ablated one."""
    inputs: dict[int, Versions] = field(default_factory=dict)
    """By destination."""
    parts: dict[int, Versions] = field(default_factory=dict)
    """By destination of a head: queries, keys or values before AbsTopK."""


class State:
    """The run with the edges removed so far, every piece of it at hand.

    Args:
        patched: the model and the prompts.
        metric: the name of what is measured.
    """

    def __init__(self, patched: Patched, metric: PathMetric) -> None:
        self.patched = patched
        self.graph = graph = patched.graph
        self.name: PathMetric = metric
        self.kept: Bools = np.zeros((len(graph.destinations), len(graph.sources)), bool)
        for source, destination in graph.edges:
            self.kept[destination, source] = True
        self.beside = patched.transformer.entry(patched.contrast.clean)[1]
        self.groups = [self._groups(layer) for layer in range(graph.n_layer)]
        self.folded = self._folded()
        self._fill()
        self._narrow()

    def _fill(self) -> None:
        """Compute all pieces of the run with nothing removed."""
        graph, transformer = self.graph, self.patched.transformer
        clean = self.patched.run()
        self.reference = clean.logits
        self.metric = float(self.measure(clean.logits))
        both = zip(clean.values, self.patched.ablated, strict=True)
        self.written = [value - ablated for value, ablated in both]
        self.ablated = list(self.patched.ablated)
        self.inputs: list[Tensor] = []
        self.parts: dict[int, Tensor] = {}
        x = clean.values[0]
        for layer, block in enumerate(transformer.blocks):
            self.inputs += [x] * (len(QKV) * graph.n_head)
            read = block.attn.act_in(block.read_by_attention(x, self.beside))
            for kind in range(len(QKV)):
                for head in range(graph.n_head):
                    place = graph.head_input(layer, kind, head)
                    self.parts[place] = head_part(block.attn, read, kind, head)
            heads = clean.values[graph.head(layer, 0) : graph.mlp(layer)]
            x = x + self.patched.view(layer, torch.stack(heads).sum(0))
            self.inputs.append(x)
            x = x + clean.values[graph.mlp(layer)]
        self.inputs.append(x)

    def in_float32(self) -> "State":
        """Return a copy in float32."""
        quick = copy.copy(self)
        quick.patched = self.patched.to(torch.float32)
        quick.reference = self.reference.float()
        quick.kept = self.kept.copy()
        quick.beside = None if self.beside is None else self.beside.float()
        quick.written = [value.float() for value in self.written]
        quick.ablated = [value.float() for value in self.ablated]
        quick.inputs = [value.float() for value in self.inputs]
        quick.parts = {place: value.float() for place, value in self.parts.items()}
        return quick

    def measure(self, logits: Tensor) -> Tensor:
        """Return the metric, (...), of logits (..., N, V)."""
        return self.patched.contrast.metric(self.name, self.reference)(logits)

    # What there is to compute

    def _folded(self) -> dict[int, int]:
        """Return the heads, with their layers, on whose sum AbsTopK acts."""
        return {
            self.graph.head(layer, head): layer
            for layer, block in enumerate(self.patched.transformer.blocks)
            if block.attn.resid_delta.k is not None
            for head in range(self.graph.n_head)
        }

    def _groups(self, layer: int) -> list[list[int]]:
        """Return the heads of a layer in groups that AbsTopK makes depend on one another."""
        attn = self.patched.transformer.blocks[layer].attn
        alone = all(site.k is None for site in part_sites(attn))
        heads = range(self.graph.n_head)
        return [[head] for head in heads] if alone else [list(heads)]

    def reach(self, kept: Bools) -> list[int]:
        """Return of every source how much of it the output depends on, given the edges kept."""
        graph = self.graph
        found = kept[graph.final] * LAST
        for layer in reversed(range(graph.n_layer)):
            at = int(found[graph.mlp(layer)])
            if at:
                np.maximum(found, kept[graph.mlp_input(layer)] * at, out=found)
            for group in self.groups[layer]:
                at = max(int(found[graph.head(layer, head)]) for head in group)
                if at:
                    inputs = [
                        [graph.head_input(layer, kind, h) for h in group] for kind in range(3)
                    ]
                    np.maximum(found, kept[inputs[0]].any(0) * at, out=found)
                    np.maximum(found, kept[inputs[1] + inputs[2]].any(0) * WHOLE, out=found)
        return [int(one) for one in found]

    def reads(self, destination: int, reach: list[int]) -> int:
        """Return at how many tokens a destination is read: DEAD, LAST or WHOLE."""
        graph = self.graph
        if destination == graph.final:
            return LAST
        layer, place = divmod(destination, len(QKV) * graph.n_head + 1)
        kind, head = divmod(place, graph.n_head)
        if kind == len(QKV):
            return reach[graph.mlp(layer)]
        group = next(group for group in self.groups[layer] if head in group)
        at = max(reach[graph.head(layer, one)] for one in group)
        return WHOLE if at and kind else at

    # Trials

    @torch.no_grad()
    def tried(self, edges: list[Edge], removed: Bools) -> Trials:
        """Measure the run with more edges removed, in many ways at once.

        Args:
            edges: edges that are kept so far.
            removed: (edges, R), which of them a trial does without.
        """
        return _Pass(self, edges, removed).run() if edges else Trials([])

    def take_(self, trials: Trials | None, chosen: int, gone: Iterable[Edge]) -> None:
        """Make a trial the current run.

        Args:
            trials: of a pass, of this state or its twin in another dtype; None if nothing changes
                but edges that have no say.
            chosen: which.
            gone: the edges that are removed with it.
        """
        for source, destination in gone:
            self.kept[destination, source] = False
        if trials is not None:
            self.metric = trials.metric[chosen]
            one = np.array([chosen])
            dtype = self.reference.dtype
            for source, versions in trials.written.items():
                self.written[source] = versions.at(one)[0].to(dtype)
            for destination, versions in trials.inputs.items():
                self.inputs[destination] = versions.at(one)[0].to(dtype)
            for destination, versions in trials.parts.items():
                self.parts[destination] = versions.at(one)[0].to(dtype)
        self._narrow()

    def _narrow(self) -> None:
        """Look again what the output depends on; cut what counts at the last tokens to them."""
        self.reached = self.reach(self.kept)
        self.read_at = [self.reads(d, self.reached) for d in range(len(self.inputs))]
        for source, at in enumerate(self.reached):
            if at == LAST:
                self.written[source] = self.cut(self.written[source])
                self.ablated[source] = self.cut(self.ablated[source])
        for destination, at in enumerate(self.read_at):
            if at == LAST:
                self.inputs[destination] = self.cut(self.inputs[destination])
                if destination in self.parts:
                    self.parts[destination] = self.cut(self.parts[destination])

    def cut(self, x: Tensor) -> Tensor:
        """Return (..., N, 1, D), the last tokens of (..., N, T, D); what is cut already stays."""
        if x.shape[-2] == 1:
            return x
        at = self.patched.contrast.at
        return x[..., torch.arange(len(at), device=at.device), at, :].unsqueeze(-2)

    def beside_at(self, destination: int) -> Tensor | None:
        """Return the positions (N, T, P) beside what a destination reads."""
        if self.beside is None or self.read_at[destination] == WHOLE:
            return self.beside
        return self.cut(self.beside)


class _Pass:
    """One pass over what the trials change, from the first layer on that they do."""

    def __init__(self, state: State, edges: list[Edge], removed: Bools) -> None:
        self.state = state
        self.graph = state.graph
        self.removed: dict[int, dict[int, Bools]] = {}
        for (source, destination), row in zip(edges, removed, strict=True):
            self.removed.setdefault(destination, {})[source] = row
        self.n_trials = removed.shape[1]
        self.out = Trials([])

    def run(self) -> Trials:
        """Compute it."""
        graph = self.graph
        per_layer = len(QKV) * graph.n_head + 1
        for layer in range(min(self.removed) // per_layer, graph.n_layer):
            for group in self.state.groups[layer]:
                if any(self.state.reached[graph.head(layer, head)] for head in group):
                    self._attend(layer, group)
            if self.state.reached[graph.mlp(layer)]:
                self._mlp(layer)
        self.out.metric = self._metric()
        return self.out

    def _attend(self, layer: int, group: list[int]) -> None:
        graph, state = self.graph, self.state
        places = [[graph.head_input(layer, kind, head) for head in group] for kind in range(3)]
        found = self._versions([place for kind in places for place in kind])
        if found is None:
            return
        first, of = found
        block = state.patched.transformer.blocks[layer]
        attn = block.attn
        for kind, of_kind in enumerate(places):
            for head, place in zip(group, of_kind, strict=True):
                x = self._read(place, first, of)
                if x is not None:
                    read = attn.act_in(block.read_by_attention(x, state.beside_at(place)))
                    part = head_part(attn, read, kind, head)
                    self.out.parts[place] = Versions(part, of)
        q, k, v = (
            self._side_by_side(site, of_kind, first)
            for site, of_kind in zip(part_sites(attn), places, strict=True)
        )
        settings = attention_settings(attn, group)
        if q.shape[-2] == k.shape[-2]:
            y = causal_attention(q, k, v, **settings)
        else:
            y = attention_at(q, k, v, state.patched.contrast.at.repeat(len(first)), **settings)
        for i, head in enumerate(group):
            source = graph.head(layer, head)
            at = state.reached[source]
            if at:
                own = y[:, i].unflatten(0, (len(first), -1))  # (U, N, T, K)
                self._write(
                    source, head_output(attn, state.cut(own) if at == LAST else own, head), of
                )

    def _side_by_side(self, site: Site, places: list[int], first: Ints) -> Tensor:
        """Return (U*N, G, T, K) of a group's queries, keys or values, after AbsTopK."""
        joined = torch.cat([self._part(place, first) for place in places], -1)
        joined = joined if site.k is None else site(joined)
        return joined.flatten(0, 1).unflatten(-1, (len(places), -1)).transpose(1, 2)

    def _part(self, place: int, first: Ints) -> Tensor:
        if place in self.out.parts:
            return self.out.parts[place].at(first)
        part = self.state.parts[place]
        return part.expand(len(first), *part.shape)

    def _mlp(self, layer: int) -> None:
        place = self.graph.mlp_input(layer)
        found = self._versions([place])
        if found is None:
            return
        x = self._read(place, *found)
        block = self.state.patched.transformer.blocks[layer]
        read = block.read_by_mlp(x, self.state.beside_at(place))
        self._write(self.graph.mlp(layer), block.mlp(read), found[1])

    def _write(self, source: int, value: Tensor, of: Ints) -> None:
        self.out.written[source] = Versions(value - self.state.ablated[source], of)

    def _metric(self) -> list[float]:
        state, graph = self.state, self.graph
        found = self._versions([graph.final])
        if found is None:
            return [state.metric] * self.n_trials
        x = self._read(graph.final, *found)
        transformer, last = state.patched.transformer, state.patched.contrast.last
        normed = transformer.norm(x.squeeze(-2))  # (U, N, D)
        at_once = max(1, _LOGITS // (len(last) * transformer.config.vocab_size))
        measured = [
            state.measure(transformer.logits_of(part, last)) for part in normed.split(at_once)
        ]
        each = torch.cat(measured).tolist()
        return [each[version] for version in found[1]]

    def _touched(self, place: int) -> list[int]:
        """Return the sources whose share in what a destination reads a trial changes."""
        kept = self.state.kept[place]
        removed = self.removed.get(place, {})
        return sorted(s for s in {*self.out.written, *removed} if kept[s])

    def _versions(self, places: list[int]) -> tuple[Ints, Ints] | None:
        """Return a trial for each version of what destinations read, and each trial's version."""
        rows = []
        for place in places:
            for source in self._touched(place):
                row = self.removed.get(place, {}).get(source)
                if row is not None:
                    rows.append(row.astype(np.int64))
                if source in self.out.written:
                    rows.append(self.out.written[source].of)
        if not rows:
            return None
        _, first, of = np.unique(np.stack(rows), axis=1, return_index=True, return_inverse=True)
        return first, of.reshape(-1)

    def _read(self, place: int, first: Ints, of: Ints) -> Tensor | None:
        """Return what a destination reads, (U, N, T, D), and keep it; None if nothing changes."""
        touched = self._touched(place)
        if not touched:
            return None
        state = self.state
        base = state.inputs[place]
        removed = {
            source: torch.from_numpy(row[first]).to(base.device)
            for source, row in self.removed.get(place, {}).items()
        }
        cut = state.read_at[place] == LAST
        x = base.repeat(len(first), 1, 1, 1)
        plain = [source for source in touched if source not in state.folded]
        gone = [source for source in plain if source not in self.out.written]
        if gone:
            away = torch.stack([removed[source] for source in gone], 1).to(base.dtype)  # (U, k)
            written = torch.stack([self._seen(state.written[source], cut) for source in gone])
            x.flatten(1).addmm_(away, written.flatten(1), alpha=-1)
        for source in plain:
            if source in self.out.written:
                x += self._share(source, first, removed, cut)
                x -= self._seen(state.written[source], cut)
        for layer in sorted({state.folded[source] for source in touched if source in state.folded}):
            x += self._folded(place, layer, first, removed, cut)
        self.out.inputs[place] = Versions(x, of)
        return x

    def _share(self, source: int, first: Ints, removed: dict[int, Tensor], cut: bool) -> Tensor:
        """Return what a kept source's edge brings beside its ablated value, (U or 1, N, T, D)."""
        if source in self.out.written:
            value = self._seen(self.out.written[source].at(first), cut)
        else:
            value = self._seen(self.state.written[source], cut).unsqueeze(0)
        return value * ~removed[source].view(-1, 1, 1, 1) if source in removed else value

    def _folded(
        self, place: int, layer: int, first: Ints, removed: dict[int, Tensor], cut: bool
    ) -> Tensor:
        """Return by how much a layer's heads change what is read where AbsTopK acts on their sum."""
        state = self.state
        heads = range(self.graph.head(layer, 0), self.graph.mlp(layer))
        before = torch.stack([self._seen(state.patched.ablated[h], cut) for h in heads]).sum(0)
        after = before
        for head in heads:
            if state.kept[place, head]:
                after = after + self._share(head, first, removed, cut)
                before = before + self._seen(state.written[head], cut)
        return state.patched.view(layer, after) - state.patched.view(layer, before)

    def _seen(self, value: Tensor, cut: bool) -> Tensor:
        return self.state.cut(value) if cut else value
