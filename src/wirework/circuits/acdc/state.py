"""The current patched run, kept piece by piece, and trials of removing more edges from it.

A pass tries many removals at once. Only what reads something changed is computed, and of every
piece only its distinct versions: a head whose inputs two trials change alike is computed once for
both. A source that has no path to the output is never computed, and one that only the last tokens'
outcome depends on is computed at these alone. Tokens before the first that corruption changes are
what they are in every run and are left out: T counts those from there on.
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
    attended,
    head_output,
    head_part,
    part_sites,
    side_by_side,
)
from wirework.config import PathMetric

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Edge = tuple[int, int]

_LOGITS = 1 << 22
"""Logits at once: with what is made of them they then stay far below what a pass needs anyway."""

DEAD, LAST, WHOLE = 0, 1, 2
"""How much of a source the output depends on: nothing, the last tokens, all tokens."""


@dataclass
class Versions:
    """A piece of the run as it is in each trial, where it is not as in the current run."""

    each: Tensor
    """(U, N, T, ...)."""
    of: Ints
    """(R,), which version a trial has; -1 for the current one."""


@dataclass
class Trials:
    """What became of a pass: each trial's metric, and all that it changes."""

    metric: list[float]
    changes: dict[int, Versions] = field(default_factory=dict)
    """By source: its value less the current one."""
    inputs: dict[int, Versions] = field(default_factory=dict)
    """By destination: what it reads."""
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
        self.start = patched.first_change()
        beside = patched.transformer.entry(patched.contrast.clean)[1]
        self.beside = None if beside is None else beside[:, self.start :]
        self.groups = [self._groups(layer) for layer in range(graph.n_layer)]
        self.folded = self._folded()
        self._fill()
        self._narrow()

    def _fill(self) -> None:
        """Compute all pieces of the run with nothing removed."""
        graph = self.graph
        clean = self.patched.run()
        self.reference = clean.logits
        self.measure = self.patched.contrast.metric(self.name, clean.logits)
        self.metric = float(self.measure(clean.logits))
        self.ablated = [value[:, self.start :] for value in self.patched.ablated]
        both = zip(clean.values, self.ablated, strict=True)
        self.written = [value[:, self.start :] - ablated for value, ablated in both]
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
                    side_by_side(site, [part[:, : self.start] for part in of_group])
                    for site, of_kind in zip(part_sites(block.attn)[1:], parts[1:], strict=True)
                    for of_group in [[of_kind[head] for head in group]]
                ]
            heads_sum = torch.stack(clean.values[graph.head(layer, 0) : graph.mlp(layer)]).sum(0)
            x = x + self.patched.view(layer, heads_sum)
            self.inputs.append(x[:, self.start :])
            x = x + clean.values[graph.mlp(layer)]
        self.inputs.append(x[:, self.start :])

    def in_float32(self) -> "State":
        """Return a copy in float32."""
        quick = copy.copy(self)
        quick.patched = self.patched.to(torch.float32)
        quick.measure = self.patched.contrast.metric(self.name, self.reference.float())
        quick.kept = self.kept.copy()
        quick.beside = None if self.beside is None else self.beside.float()
        quick.written = [value.float() for value in self.written]
        quick.ablated = [value.float() for value in self.ablated]
        quick.inputs = [value.float() for value in self.inputs]
        quick.past = {key: [part.float() for part in both] for key, both in self.past.items()}
        quick.parts = {place: value.float() for place, value in self.parts.items()}
        return quick

    # What there is to compute

    def _folded(self) -> dict[int, int]:
        """Return the heads, with their layers, on whose sum AbsTopK acts."""
        return {
            self.graph.head(layer, head): layer
            for layer in range(self.graph.n_layer)
            if self.patched.block(layer).attn.resid_delta.k is not None
            for head in range(self.graph.n_head)
        }

    def _groups(self, layer: int) -> list[list[int]]:
        """Return the heads of a layer in groups that AbsTopK makes depend on one another."""
        attn = self.patched.block(layer).attn
        alone = all(site.k is None for site in part_sites(attn))
        heads = range(self.graph.n_head)
        return [[head] for head in heads] if alone else [list(heads)]

    def reach(self, kept: Bools) -> Ints:
        """Return how much of every source the output depends on, given the edges kept.

        Args:
            kept: (destinations, sources, ...), of one run or of many.

        Returns:
            (sources, ...) of DEAD, LAST and WHOLE.
        """
        graph, n_head = self.graph, self.graph.n_head
        found: Ints = kept[graph.final] * np.int8(LAST)
        for layer in reversed(range(graph.n_layer)):
            at = found[graph.mlp(layer)]
            np.maximum(found, kept[graph.mlp_input(layer)] * at, out=found)
            heads = found[graph.head(layer, 0) : graph.mlp(layer)]  # (H, ...)
            if len(self.groups[layer]) == 1:
                heads = np.broadcast_to(heads.max(0), heads.shape)
            if heads.any():
                first = graph.head_input(layer, 0, 0)
                q, kv = kept[first : first + n_head], kept[first + n_head : first + 3 * n_head]
                np.maximum(found, (q * heads[:, None]).max(0), out=found)
                whole = np.concatenate([heads, heads]) > DEAD
                np.maximum(found, (kv & whole[:, None]).any(0) * np.int8(WHOLE), out=found)
        return found

    def reads(self, destination: int, reach: Ints) -> int:
        """Return at how many tokens a destination is read: DEAD, LAST or WHOLE."""
        graph = self.graph
        if destination == graph.final:
            return LAST
        layer, place = divmod(destination, len(QKV) * graph.n_head + 1)
        kind, head = divmod(place, graph.n_head)
        if kind == len(QKV):
            return int(reach[graph.mlp(layer)])
        group = next(group for group in self.groups[layer] if head in group)
        at = max(int(reach[graph.head(layer, one)]) for one in group)
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
            trials: of a pass; None if nothing changes but edges that have no say.
            chosen: which.
            gone: the edges that are removed with it.
        """
        for source, destination in gone:
            self.kept[destination, source] = False
        if trials is not None:
            self.metric = trials.metric[chosen]
            for source, versions in trials.changes.items():
                if (version := versions.of[chosen]) >= 0:
                    self.written[source] = self.written[source] + versions.each[version]
            for pieces, found in ((self.inputs, trials.inputs), (self.parts, trials.parts)):
                for destination, versions in found.items():
                    if (version := versions.of[chosen]) >= 0:
                        pieces[destination] = versions.each[version]
        self._narrow()

    def follow_(self, exact: "State", trials: Trials | None) -> None:
        """Round again what `exact`, which this is the twin of, took from a pass."""
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
        at = self.patched.contrast.at - self.start
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
        kept = np.repeat(state.kept[..., None], removed.shape[1], -1)
        for (source, destination), row in zip(edges, removed, strict=True):
            self.removed.setdefault(destination, {})[source] = row
            kept[destination, source] &= ~row
        self.alive: Bools = state.reach(kept) > DEAD  # (S, R)
        self.out = Trials([state.metric] * removed.shape[1])

    def run(self) -> Trials:
        """Compute it."""
        graph = self.graph
        per_layer = len(QKV) * graph.n_head + 1
        for layer in range(min(self.removed) // per_layer, graph.n_layer):
            for group in self.state.groups[layer]:
                self._attend(layer, group)
            self._mlp(layer)
        self._measure()
        return self.out

    def _attend(self, layer: int, group: list[int]) -> None:
        graph, state = self.graph, self.state
        sources = [graph.head(layer, head) for head in group]
        places = [[graph.head_input(layer, kind, head) for head in group] for kind in range(3)]
        found = self._versions([place for of_kind in places for place in of_kind], sources)
        if found is None:
            return
        first, of = found
        block = state.patched.block(layer)
        for kind, of_kind in enumerate(places):
            for head, place in zip(group, of_kind, strict=True):
                if self._touched(place):
                    x = self._read(place, first, of)
                    read = block.attn.act_in(block.read_by_attention(x, state.beside_at(place)))
                    part = head_part(block.attn, read, kind, head)
                    self.out.parts[place] = Versions(part, of)
        q, k, v = (
            side_by_side(site, self._parts(of_kind, len(first)))
            for site, of_kind in zip(part_sites(block.attn), places, strict=True)
        )
        y = self._attended(layer, group, q, k, v)
        for own, head, source in zip(y.unbind(1), group, sources, strict=True):
            if state.reached[source]:
                own = own.view(len(first), -1, *own.shape[1:])  # (U, N, T, K)
                own = self._seen(own, state.reached[source] == LAST)
                self._write(source, head_output(block.attn, own, head), of)

    def _parts(self, places: list[int], count: int) -> list[Tensor]:
        """Return (U*N, T, K) for each of some destinations of one kind."""
        return [
            self.out.parts[place].each.flatten(0, 1)
            if place in self.out.parts
            else self.state.parts[place].repeat(count, 1, 1)
            for place in places
        ]

    def _attended(self, layer: int, group: list[int], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return a group's outputs, (U*N, G, T, K), with keys and values of the tokens before."""
        state = self.state
        at, start = state.patched.contrast.at, state.start
        count = len(q) // len(at)
        past = (part.repeat(count, 1, 1, 1) for part in state.past[layer, group[0]])
        k, v = (torch.cat(both, -2) for both in zip(past, (k, v), strict=True))
        whole = start and q.shape[-2] == k.shape[-2] - start
        if whole:  # queries of the tokens before, whose outcome is cut off again
            q = torch.nn.functional.pad(q, (0, 0, start, 0))
        y = attended(state.patched.block(layer).attn, q, k, v, group, at.repeat(count))
        return y[..., start:, :] if whole else y

    def _mlp(self, layer: int) -> None:
        place, source = self.graph.mlp_input(layer), self.graph.mlp(layer)
        found = self._versions([place], [source])
        if found is not None:
            block = self.state.patched.block(layer)
            x = self._read(place, *found)
            self._write(
                source, block.mlp(block.read_by_mlp(x, self.state.beside_at(place))), found[1]
            )

    def _write(self, source: int, value: Tensor, of: Ints) -> None:
        value -= self.state.ablated[source] + self.state.written[source]
        self.out.changes[source] = Versions(value, of)

    def _measure(self) -> None:
        state, graph = self.state, self.graph
        found = self._versions([graph.final], [])
        if found is None:
            return
        first, of = found
        transformer, last = state.patched.transformer, state.patched.contrast.last
        normed = transformer.norm(self._read(graph.final, first, of).squeeze(-2))  # (U, N, D)
        at_once = max(1, _LOGITS // (len(last) * transformer.config.vocab_size))
        each: list[float] = []
        for part in normed.split(at_once):
            each += state.measure(transformer.logits_of(part, last)).tolist()
        self.out.metric = [each[one] if one >= 0 else state.metric for one in of]

    def _touched(self, place: int) -> list[int]:
        """Return the sources whose share in what a destination reads a trial changes."""
        kept, removed = self.state.kept[place], self.removed.get(place, {})
        return sorted(s for s in {*self.out.changes, *removed} if kept[s])

    def _versions(self, places: list[int], sources: list[int]) -> tuple[Ints, Ints] | None:
        """Return a trial for each version of what destinations read, and each trial's version.

        None if no trial changes it, or only where the output does not depend on `sources`, which
        read it.
        """
        n_trials, rows = self.alive.shape[1], []
        for place in places:
            removed = self.removed.get(place, {})
            for source in self._touched(place):
                changes = self.out.changes.get(source)
                version = np.full(n_trials, -1) if changes is None else changes.of
                rows.append(np.where(removed.get(source, False), -2, version))
        if not rows:
            return None
        key = np.stack(rows)
        if sources:
            key[:, ~self.alive[sources].any(0)] = -1
        changed = (key != -1).any(0)
        if not changed.any():
            return None
        _, first, inverse = np.unique(
            key[:, changed], axis=1, return_index=True, return_inverse=True
        )
        of = np.full(key.shape[1], -1)
        of[changed] = inverse.reshape(-1)
        return changed.nonzero()[0][first], of

    def _read(self, place: int, first: Ints, of: Ints) -> Tensor:
        """Return what a destination reads in these trials, (U, N, T, D), and keep it."""
        state = self.state
        touched = self._touched(place)
        x = state.inputs[place].repeat(len(first), 1, 1, 1)
        self._add_changes_(x, place, [s for s in touched if s not in state.folded], first)
        for layer in sorted({state.folded[s] for s in touched if s in state.folded}):
            x += self._folded(place, layer, touched, first)
        self.out.inputs[place] = Versions(x, of)
        return x

    def _add_changes_(self, x: Tensor, place: int, sources: list[int], first: Ints) -> None:
        """Add to (U, N, T, D) what these trials change in the sum of some sources' shares."""
        state, cut = self.state, self.state.read_at[place] == LAST
        removed = {s: row[first] for s, row in self.removed.get(place, {}).items()}
        gone = [source for source in sources if source in removed]
        if gone:
            away = torch.from_numpy(np.stack([removed[s] for s in gone], 1)).to(x)  # (U, k)
            written = torch.stack([self._seen(state.written[s], cut) for s in gone])
            x.flatten(1).addmm_(away, written.flatten(1), alpha=-1)
        for source in sources:
            if source in self.out.changes:
                versions = self.out.changes[source]
                of = versions.of[first]
                rows = (of >= 0) & ~removed.get(source, np.zeros_like(of, bool))
                self._add_(x, rows, self._seen(versions.each, cut), of[rows])

    @staticmethod
    def _add_(x: Tensor, rows: Bools, each: Tensor, of: Ints) -> None:
        """Add versions to the rows of (U, N, T, D) that have them, without a copy if need be."""
        if rows.all() and len(of) == len(each) and (np.diff(of) == 1).all():
            x += each
        elif rows.any():
            places = torch.from_numpy(rows.nonzero()[0]).to(x.device)
            x.index_add_(0, places, each[torch.from_numpy(of).to(x.device)])

    def _folded(self, place: int, layer: int, touched: list[int], first: Ints) -> Tensor:
        """Return what changes of a layer's heads, (U, N, T, D), where AbsTopK acts on their sum."""
        state, cut = self.state, self.state.read_at[place] == LAST
        heads = range(self.graph.head(layer, 0), self.graph.mlp(layer))
        ablated = [state.patched.ablated[head][:, state.start :] for head in heads]
        before = self._seen(torch.stack(ablated).sum(0), cut)
        for head in heads:
            if state.kept[place, head]:
                before = before + self._seen(state.written[head], cut)
        after = before.repeat(len(first), 1, 1, 1)
        self._add_changes_(after, place, [head for head in heads if head in touched], first)
        return state.patched.view(layer, after) - state.patched.view(layer, before)

    def _seen(self, value: Tensor, cut: bool) -> Tensor:
        return self.state.cut(value) if cut else value
