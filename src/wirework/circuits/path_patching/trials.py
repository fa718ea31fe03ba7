"""One pass over many trials, each of which removes further edges from the current run.

Only values with a changed input are computed, and each distinct version once: a head whose inputs
change equally in two trials is computed once for both.
Shapes: R trials, U distinct versions of a value, S sources, N prompts, T tokens (1 if only the
last matters), D d_model, G heads of a group, K channels of a head.
"""

import numpy as np
import torch
from torch import Tensor

from wirework.circuits.path_patching.graph import QKV
from wirework.circuits.path_patching.patched import (
    attended,
    head_output,
    head_part,
    part_sites,
    stacked_heads,
)
from wirework.circuits.path_patching.state import (
    LAST_TOKEN,
    NO_TOKEN,
    Bools,
    EdgeNumbers,
    Ints,
    PatchedState,
    Trials,
    Versions,
)

_LOGITS = 1 << 22
"""Logits per call: small beside the other memory of a pass."""


@torch.no_grad()
def tried(state: PatchedState, edges: list[EdgeNumbers], removed: Bools) -> Trials:
    """Measure the metric of the current run with further edges removed, for many trials at once.

    Args:
        state: the current run.
        edges: edges kept in the current run.
        removed: (edges, R), the edges that each trial removes.
    """
    return _Pass(state, edges, removed).run() if edges else Trials([])


class _Pass:
    """One pass over all changed values, from the first changed layer on."""

    def __init__(self, state: PatchedState, edges: list[EdgeNumbers], removed: Bools) -> None:
        self.state = state
        self.graph = state.graph
        self.removed: dict[int, dict[int, Bools]] = {}
        kept = np.repeat(state.kept[..., None], removed.shape[1], -1)
        for (source, destination), row in zip(edges, removed, strict=True):
            self.removed.setdefault(destination, {})[source] = row
            kept[destination, source] &= ~row
        self.alive: Bools = state.reach(kept) > NO_TOKEN  # (S, R)
        self.out = Trials([state.metric] * removed.shape[1])

    def run(self) -> Trials:
        """Compute the trials layer by layer and return their metrics and changes."""
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
        versions = self._versions([place for of_kind in places for place in of_kind], sources)
        if versions is None:
            return
        first, of = versions
        block = state.patched.block(layer)
        for kind, of_kind in enumerate(places):
            for head, place in zip(group, of_kind, strict=True):
                if self._touched(place):
                    x = self._read(place, first, of)
                    read = block.attn.act_in(block.read_by_attention(x, state.beside_at(place)))
                    part = head_part(block.attn, read, kind, head)
                    self.out.parts[place] = Versions(part, of)
        q, k, v = (
            stacked_heads(site, self._parts(of_kind, len(first)))
            for site, of_kind in zip(part_sites(block.attn), places, strict=True)
        )
        y = self._attended(layer, group, q, k, v)
        for own, head, source in zip(y.unbind(1), group, sources, strict=True):
            if state.reached[source]:
                own = own.view(len(first), -1, *own.shape[1:])  # (U, N, T, K)
                own = self._cut_if(own, state.reached[source] == LAST_TOKEN)
                self._write(source, head_output(block.attn, own, head), of)

    def _parts(self, places: list[int], count: int) -> list[Tensor]:
        """Return (U, N, T, K) for each of some destinations of one kind."""
        return [
            self.out.parts[place].each
            if place in self.out.parts
            else self.state.parts[place].expand(count, -1, -1, -1)
            for place in places
        ]

    def _attended(self, layer: int, group: list[int], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return a group's outputs (U*N, G, T, K) from its q, k, v and those of earlier tokens."""
        state = self.state
        last_positions, start, count = state.patched.contrast.last_positions, state.start, len(q)
        past = (part.expand(count, *part.shape) for part in state.past[layer, group[0]])
        k, v = (torch.cat(parts, -2) for parts in zip(past, (k, v), strict=True))
        q, k, v = (part.flatten(0, 1) for part in (q, k, v))
        whole = start and q.shape[-2] == k.shape[-2] - start
        if whole:  # pad queries for the earlier tokens; their outputs are dropped
            q = torch.nn.functional.pad(q, (0, 0, start, 0))
        y = attended(state.patched.block(layer).attn, q, k, v, group, last_positions.repeat(count))
        return y[..., start:, :] if whole else y

    def _mlp(self, layer: int) -> None:
        place, source = self.graph.mlp_input(layer), self.graph.mlp(layer)
        versions = self._versions([place], [source])
        if versions is not None:
            block = self.state.patched.block(layer)
            x = self._read(place, *versions)
            self._write(
                source, block.mlp(block.read_by_mlp(x, self.state.beside_at(place))), versions[1]
            )

    def _write(self, source: int, value: Tensor, of: Ints) -> None:
        value -= self.state.ablated[source] + self.state.written[source]
        self.out.changes[source] = Versions(value, of)

    def _measure(self) -> None:
        state, graph = self.state, self.graph
        versions = self._versions([graph.final], [])
        if versions is None:
            return
        first, of = versions
        transformer, last = state.patched.transformer, state.patched.contrast.last
        normed = transformer.norm(self._read(graph.final, first, of).squeeze(-2))  # (U, N, D)
        at_once = max(1, _LOGITS // (len(last) * transformer.config.vocab_size))
        each: list[float] = []
        for part in normed.split(at_once):
            each += state.measure(transformer.logits_of(part, last)).tolist()
        self.out.metric = [each[version] if version >= 0 else state.metric for version in of]

    def _touched(self, place: int) -> list[int]:
        """Return the sources whose contribution to a destination changes in some trial."""
        kept, removed = self.state.kept[place], self.removed.get(place, {})
        return sorted(s for s in {*self.out.changes, *removed} if kept[s])

    def _versions(self, places: list[int], sources: list[int]) -> tuple[Ints, Ints] | None:
        """Return one trial per distinct version of the destinations' inputs, and the versions.

        None if no trial changes them, or only trials in which the output does not depend on
        `sources`, which use these inputs.
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
        of = np.full(n_trials, -1)
        first: list[int] = []
        numbers: dict[bytes, int] = {}
        columns = np.ascontiguousarray(key.T)
        for trial in changed.nonzero()[0]:
            number = numbers.setdefault(columns[trial].tobytes(), len(first))
            if number == len(first):
                first.append(trial)
            of[trial] = number
        return np.array(first), of

    def _read(self, place: int, first: Ints, of: Ints) -> Tensor:
        """Compute and store the input of a destination in these trials, (U, N, T, D)."""
        state = self.state
        touched = self._touched(place)
        x = state.inputs[place].repeat(len(first), 1, 1, 1)
        self._add_changes_(x, place, [s for s in touched if s not in state.folded], first)
        for layer in sorted({state.folded[s] for s in touched if s in state.folded}):
            x += self._folded(place, layer, touched, first)
        self.out.inputs[place] = Versions(x, of)
        return x

    def _add_changes_(self, x: Tensor, place: int, sources: list[int], first: Ints) -> None:
        """Add to `x` (U, N, T, D) the changes in the contributions of some sources."""
        state, cut = self.state, self.state.read_at[place] == LAST_TOKEN
        removed = {s: row[first] for s, row in self.removed.get(place, {}).items()}
        gone = [source for source in sources if source in removed]
        if gone:
            away = torch.from_numpy(np.stack([removed[s] for s in gone], 1)).to(x)  # (U, k)
            written = torch.stack([self._cut_if(state.written[s], cut) for s in gone])
            x.flatten(1).addmm_(away, written.flatten(1), alpha=-1)
        for source in sources:
            if source in self.out.changes:
                versions = self.out.changes[source]
                of = versions.of[first]
                rows = (of >= 0) & ~removed.get(source, np.zeros_like(of, bool))
                self._add_(x, rows, self._cut_if(versions.each, cut), of[rows])

    @staticmethod
    def _add_(x: Tensor, rows: Bools, each: Tensor, of: Ints) -> None:
        """Add versions to their rows of `x` (U, N, T, D), without a copy if possible."""
        if rows.all() and len(of) == len(each) and (np.diff(of) == 1).all():
            x += each
        elif rows.any():
            places = torch.from_numpy(rows.nonzero()[0]).to(x.device)
            x.index_add_(0, places, each[torch.from_numpy(of).to(x.device)])

    def _folded(self, place: int, layer: int, touched: list[int], first: Ints) -> Tensor:
        """Return the change (U, N, T, D) of a layer's heads if AbsTopK acts on their sum."""
        state, cut = self.state, self.state.read_at[place] == LAST_TOKEN
        heads = range(self.graph.head(layer, 0), self.graph.mlp(layer))
        ablated = [state.patched.ablated[head][:, state.start :] for head in heads]
        before = self._cut_if(torch.stack(ablated).sum(0), cut)
        for head in heads:
            if state.kept[place, head]:
                before = before + self._cut_if(state.written[head], cut)
        after = before.repeat(len(first), 1, 1, 1)
        self._add_changes_(after, place, [head for head in heads if head in touched], first)
        return state.patched.view(layer, after) - state.patched.view(layer, before)

    def _cut_if(self, value: Tensor, cut: bool) -> Tensor:
        return self.state.cut(value) if cut else value
