"""One pass over many trials, each of which removes further edges from the current run.

Only values with a changed input are computed, and each distinct version once: a head whose inputs
change equally in two trials is computed once for both.
Shapes: R trials, U distinct versions of a value, S sources, N prompts, T tokens (1 if only the
last matters), D d_model, G heads of a group, K channels of a head.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wirework.circuits.path_patching.graph import QKV
from wirework.circuits.path_patching.patched import (
    attention_of_heads,
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
"""Logits computed at once, which need little memory compared with the rest of a pass."""


@torch.no_grad()
def run_trials(state: PatchedState, edges: list[EdgeNumbers], removed: Bools) -> Trials:
    """Measure the metric of the current run with further edges removed, for many trials at once.

    Args:
        state: the current run.
        edges: edges kept in the current run.
        removed: (edges, R), the edges that each trial removes.

    Returns:
        The metrics, and all values that differ from the current run.
    """
    return _Pass(state, edges, removed).run() if edges else Trials([])


class _DistinctInputs(NamedTuple):
    """The trials that change the input of a part of the model, grouped by equal inputs."""

    trials: Ints
    """(U,), one trial per distinct version of the input."""
    of_trial: Ints
    """(R,), index of each trial's version; -1 where the input need not be computed: it is that of
    the current run, or the trial's output does not depend on it."""


class _Pass:
    """One pass over all changed values, from the first changed layer on."""

    def __init__(self, state: PatchedState, edges: list[EdgeNumbers], removed: Bools) -> None:
        self.state = state
        self.graph = state.graph
        self.removed: dict[int, dict[int, Bools]] = {}
        """By destination and source of an edge: (R,), the trials that remove it."""
        kept = np.repeat(state.kept[..., None], removed.shape[1], -1)
        for (source, destination), row in zip(edges, removed, strict=True):
            self.removed.setdefault(destination, {})[source] = row
            kept[destination, source] &= ~row
        self.is_needed: Bools = state.tokens_of_sources(kept) > NO_TOKEN
        """(S, R), whether the output of each trial depends on each source."""
        self.result = Trials([state.metric] * removed.shape[1])

    def run(self) -> Trials:
        """Compute the trials layer by layer and return their metrics and changes."""
        graph = self.graph
        per_layer = len(QKV) * graph.n_head + 1
        for layer in range(min(self.removed) // per_layer, graph.n_layer):
            for group in self.state.groups[layer]:
                self._compute_heads(layer, group)
            self._compute_mlp(layer)
        self._compute_metrics()
        return self.result

    def _compute_heads(self, layer: int, group: list[int]) -> None:
        """Compute the outputs of a group of heads in the trials that change their inputs."""
        graph, state = self.graph, self.state
        sources = [graph.head(layer, head) for head in group]
        by_kind = [
            [graph.head_input(layer, kind, head) for head in group] for kind in range(len(QKV))
        ]
        distinct = self._distinct_inputs([number for kind in by_kind for number in kind], sources)
        if distinct is None:
            return
        attn = state.patched.block(layer).attn
        for kind, destinations in enumerate(by_kind):
            for head, destination in zip(group, destinations, strict=True):
                if self._changed_sources(destination):
                    self._compute_part(layer, kind, head, distinct)
        q, k, v = (
            stacked_heads(site, self._parts(destinations, len(distinct.trials)))
            for site, destinations in zip(part_sites(attn), by_kind, strict=True)
        )
        outputs = self._attention(layer, group, q, k, v)
        for output, head, source in zip(outputs.unbind(1), group, sources, strict=True):
            if state.source_tokens[source] != NO_TOKEN:
                output = output.view(len(distinct.trials), -1, *output.shape[1:])  # (U, N, T, K)
                output = self._at_tokens(output, state.source_tokens[source])
                self._store_change(source, head_output(attn, output, head), distinct.of_trial)

    def _compute_part(self, layer: int, kind: int, head: int, distinct: _DistinctInputs) -> None:
        """Compute the queries, keys or values of a head from its changed input."""
        destination = self.graph.head_input(layer, kind, head)
        block = self.state.patched.block(layer)
        x = self._compute_input(destination, distinct)
        read = block.attn.act_in(block.read_by_attention(x, self.state.pos_at(destination)))
        part = head_part(block.attn, read, kind, head)
        self.result.parts[destination] = Versions(part, distinct.of_trial)

    def _parts(self, destinations: list[int], n_versions: int) -> list[Tensor]:
        """Return queries, keys or values (U, N, T, K) for each of some destinations."""
        return [
            self.result.parts[destination].values
            if destination in self.result.parts
            else self.state.parts[destination].expand(n_versions, -1, -1, -1)
            for destination in destinations
        ]

    def _attention(self, layer: int, group: list[int], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return a group's outputs (U*N, G, T, K) from its q, k, v and those of earlier tokens."""
        state, start, n_versions = self.state, self.state.start, len(q)
        past = (part.expand(n_versions, *part.shape) for part in state.past[layer, group[0]])
        k, v = (torch.cat(parts, -2) for parts in zip(past, (k, v), strict=True))
        q, k, v = (part.flatten(0, 1) for part in (q, k, v))
        needs_padding = start and q.shape[-2] == k.shape[-2] - start
        if needs_padding:  # queries for the earlier tokens; their outputs are dropped
            q = torch.nn.functional.pad(q, (0, 0, start, 0))
        attn = state.patched.block(layer).attn
        last_positions = state.patched.contrast.last_positions.repeat(n_versions)
        y = attention_of_heads(attn, q, k, v, group, last_positions)
        return y[..., start:, :] if needs_padding else y

    def _compute_mlp(self, layer: int) -> None:
        """Compute the output of an MLP in the trials that change its input."""
        destination, source = self.graph.mlp_input(layer), self.graph.mlp(layer)
        distinct = self._distinct_inputs([destination], [source])
        if distinct is not None:
            block = self.state.patched.block(layer)
            x = self._compute_input(destination, distinct)
            output = block.mlp(block.read_by_mlp(x, self.state.pos_at(destination)))
            self._store_change(source, output, distinct.of_trial)

    def _store_change(self, source: int, value: Tensor, of_trial: Ints) -> None:
        """Store by how much the value of a source differs from the current run; changes `value`."""
        value -= self.state.ablated[source] + self.state.deviations[source]
        self.result.changes[source] = Versions(value, of_trial)

    def _compute_metrics(self) -> None:
        """Compute the metric of each trial that changes the final residual stream."""
        state, graph = self.state, self.graph
        distinct = self._distinct_inputs([graph.final], [])
        if distinct is None:
            return
        transformer, last = state.patched.transformer, state.patched.contrast.last
        x = self._compute_input(graph.final, distinct)
        normed = transformer.norm(x.squeeze(-2))  # (U, N, D)
        at_once = max(1, _LOGITS // (len(last) * transformer.config.vocab_size))
        metrics: list[float] = []
        for part in normed.split(at_once):
            metrics += state.measure(transformer.logits_of(part, last)).tolist()
        self.result.metrics = [
            metrics[version] if version >= 0 else state.metric for version in distinct.of_trial
        ]

    def _changed_sources(self, destination: int) -> list[int]:
        """Return the sources whose contribution to a destination changes in some trial."""
        kept, removed = self.state.kept[destination], self.removed.get(destination, {})
        return sorted(source for source in {*self.result.changes, *removed} if kept[source])

    def _distinct_inputs(
        self, destinations: list[int], readers: list[int]
    ) -> _DistinctInputs | None:
        """Group the trials by the inputs of some destinations.

        Args:
            destinations: numbers of the destinations.
            readers: the sources computed from them. Trials whose output depends on none of these
                are left out; no readers means that the output depends on the destinations itself.

        Returns:
            None if no trial is left that changes an input.
        """
        n_trials = self.is_needed.shape[1]
        rows = []  # for each contribution: version in every trial; -1 unchanged, -2 removed
        for destination in destinations:
            removed = self.removed.get(destination, {})
            for source in self._changed_sources(destination):
                changes = self.result.changes.get(source)
                version = np.full(n_trials, -1) if changes is None else changes.of_trial
                rows.append(np.where(removed.get(source, False), -2, version))
        if not rows:
            return None
        key = np.stack(rows)
        if readers:
            key[:, ~self.is_needed[readers].any(0)] = -1
        is_changed = (key != -1).any(0)
        return _grouped(key, is_changed) if is_changed.any() else None

    def _compute_input(self, destination: int, distinct: _DistinctInputs) -> Tensor:
        """Compute and store the input of a destination in these trials, (U, N, T, D)."""
        state, trials = self.state, distinct.trials
        changed = self._changed_sources(destination)
        x = state.inputs[destination].repeat(len(trials), 1, 1, 1)
        added_directly = [source for source in changed if source not in state.top_k_layers]
        self._add_changes_(x, destination, added_directly, trials)
        for layer in sorted({state.top_k_layers[s] for s in changed if s in state.top_k_layers}):
            x += self._change_after_top_k(destination, layer, changed, trials)
        self.result.inputs[destination] = Versions(x, distinct.of_trial)
        return x

    def _add_changes_(self, x: Tensor, destination: int, sources: list[int], trials: Ints) -> None:
        """Add to `x` (U, N, T, D) the changes in the contributions of some sources.

        Args:
            x: input of the destination in the current run, once per version; changed.
            destination: number of the destination.
            sources: numbers of the sources.
            trials: (U,), the trial of each version.
        """
        state, tokens = self.state, self.state.destination_tokens[destination]
        removed = {
            source: in_trials[trials]
            for source, in_trials in self.removed.get(destination, {}).items()
        }
        removed_sources = [source for source in sources if source in removed]
        if removed_sources:
            is_removed = torch.from_numpy(np.stack([removed[s] for s in removed_sources], 1)).to(x)
            deviations = torch.stack(
                [self._at_tokens(state.deviations[s], tokens) for s in removed_sources]
            )
            x.flatten(1).addmm_(is_removed, deviations.flatten(1), alpha=-1)
        for source in sources:
            if source in self.result.changes:
                versions = self.result.changes[source]
                version = versions.of_trial[trials]
                rows = (version >= 0) & ~removed.get(source, np.zeros_like(version, bool))
                _add_rows_(x, rows, self._at_tokens(versions.values, tokens), version[rows])

    def _change_after_top_k(
        self, destination: int, layer: int, changed: list[int], trials: Ints
    ) -> Tensor:
        """Return the change (U, N, T, D) of a layer's attention output if AbsTopK acts on it."""
        state, tokens = self.state, self.state.destination_tokens[destination]
        heads = range(self.graph.head(layer, 0), self.graph.mlp(layer))
        ablated = [state.patched.ablated[head][:, state.start :] for head in heads]
        before = self._at_tokens(torch.stack(ablated).sum(0), tokens)
        for head in heads:
            if state.kept[destination, head]:
                before = before + self._at_tokens(state.deviations[head], tokens)
        after = before.repeat(len(trials), 1, 1, 1)
        changed_heads = [head for head in heads if head in changed]
        self._add_changes_(after, destination, changed_heads, trials)
        output = state.patched.attention_output
        return output(layer, after) - output(layer, before)

    def _at_tokens(self, value: Tensor, tokens: int) -> Tensor:
        """Return a value (..., N, T, D) at all tokens, or (..., N, 1, D) for LAST_TOKEN."""
        return self.state.last_tokens(value) if tokens == LAST_TOKEN else value


def _grouped(key: Ints, is_changed: Bools) -> _DistinctInputs:
    """Group trials with equal columns of `key`.

    Args:
        key: (contributions, R), the version of each contribution in each trial.
        is_changed: (R,), the trials to group; the others have version -1.
    """
    of_trial = np.full(key.shape[1], -1)
    trials: list[int] = []
    version_of: dict[bytes, int] = {}
    columns = np.ascontiguousarray(key.T)
    for trial in is_changed.nonzero()[0].tolist():
        version = version_of.setdefault(columns[trial].tobytes(), len(trials))
        if version == len(trials):
            trials.append(trial)
        of_trial[trial] = version
    return _DistinctInputs(np.array(trials), of_trial)


def _add_rows_(x: Tensor, rows: Bools, values: Tensor, versions: Ints) -> None:
    """Add versions of a change to some rows of `x`, without a copy where possible.

    Args:
        x: (U, N, T, D); changed.
        rows: (U,), the rows to change.
        values: (versions, N, T, D), all versions of the change.
        versions: index into `values` for each of these rows.
    """
    if rows.all() and len(versions) == len(values) and (np.diff(versions) == 1).all():
        x += values
    elif rows.any():
        row_numbers = torch.from_numpy(rows.nonzero()[0]).to(x.device)
        x.index_add_(0, row_numbers, values[torch.from_numpy(versions).to(x.device)])
