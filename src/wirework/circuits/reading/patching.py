"""Patching experiments on the nodes of a circuit: swap, fix or ablate them, and see what changes.

A swap replaces the values of some nodes at some tokens of a prompt by those that they have in
another prompt. With the other prompt of the pair the answer must flip if the nodes carry what
tells the contexts apart; with a prompt that has the same answers it must not. In a task of two
steps other nodes carry what the last token names, as a variable whose type is asked for: with a
prompt that ends in another token the answer must move, with one that ends in the same it must not.
Shapes: P pairs (two prompts each), T tokens, k nodes of a site, j of them chosen.
Source: Vig et al. 2020; Geiger et al. 2021 (interchange interventions).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import moved
from wirework.circuits.masking.compact import KeptEdits
from wirework.circuits.masking.masked_circuit import MaskedCircuit, Runner, passes
from wirework.circuits.reading.past_tokens import PastTokens
from wirework.circuits.reading.places import Place, Recorded
from wirework.errors import InputError
from wirework.nn import Edit
from wirework.nn.positions import select_positions
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs

KeptEditsOf = Callable[[TokenizedPairs, Tensor], KeptEdits]
"""Maps the pairs of one pass and their prompt indices to edits of kept nodes."""

KeptNodes = Mapping[str, Tensor]
"""Site to (j,) int64, some nodes as indices into the kept nodes of that site."""

NO_NODES: KeptNodes = MappingProxyType({})


@dataclass(frozen=True, repr=False)
class Swap(Report):
    """What a swap of some nodes did to the circuit's answers."""

    place: Place
    """Tokens at which the nodes took other values."""
    n_prompts: int
    """Prompts that the circuit answers rightly without the swap and that another prompt fits; the
    shares are of these."""
    flipped: float
    """Share of them with the wrong answer after a swap with the other prompt of the pair, or with a
    prompt that ends in another token."""
    moved: float
    """Change of the logit difference as a share of that between the two prompts of a pair: 0 is no
    effect, 1 is as if the whole prompt were swapped."""
    flipped_by_same: float | None
    """Control: the share with values of another prompt that has the same answers, or ends in the
    same token. None if there is no such prompt."""
    moved_by_same: float | None
    """Control: the mean magnitude of the change with these values, as such a share."""


@dataclass(frozen=True)
class Patcher:
    """A circuit, and its values on the pairs of the experiments."""

    masked_circuit: MaskedCircuit
    recorded: Recorded
    logit_diffs: Tensor
    """(2P,) logit differences of the circuit, nothing patched."""
    means: Mapping[str, Tensor]
    """Site to (width,), the values of ablated nodes: means over text."""
    averages: Mapping[str, Tensor]
    """Site to (width,), the values of fixed nodes: averages over the tokens of other pairs."""
    others: Recorded
    """These other pairs."""

    @classmethod
    def of(
        cls,
        masked_circuit: MaskedCircuit,
        batch: TokenizedPairs,
        means: Mapping[str, Tensor],
        others: Recorded,
    ) -> "Patcher":
        """Record a circuit on the pairs of the experiments.

        Args:
            masked_circuit: the circuit.
            batch: held-out pairs.
            means: site to (width,), the values of ablated nodes.
            others: the circuit's values on pairs of which the averages are taken.

        Raises:
            InputError: the circuit answers wrongly on average.
        """
        means = moved(means, masked_circuit.transformer)
        averages = {
            site: means[site].index_copy(0, channels, others.averages(site))
            for site, channels in others.channels.items()
        }
        recorded = Recorded.of(masked_circuit, batch)
        logit_diffs = masked_circuit.logit_diffs(batch)
        if not logit_diffs.mean() > 0:  # also true for NaN
            raise InputError(
                f"the circuit's mean logit difference is {float(logit_diffs.mean()):.3g}: it does "
                "not do the task, so that there is nothing to explain"
            )
        return cls(masked_circuit, recorded, logit_diffs, means, averages, others)

    def loss(self) -> float:
        """Return the task loss in nats, nothing patched."""
        return self.masked_circuit.loss_of(self.logit_diffs)

    @cached_property
    def _partner(self) -> Tensor:
        """(2P,) int64, the other prompt of each prompt's pair."""
        return torch.arange(len(self.logit_diffs), device=self.logit_diffs.device) ^ 1

    @cached_property
    def _same_context(self) -> Tensor:
        """(2P,) int64, the prompts of the control; see `_same_context`."""
        return _same_context(self.recorded.batch, self.recorded.places["deciding"])

    @cached_property
    def _by_last_token(self) -> tuple[Tensor, Tensor]:
        """(2P,) int64 each, prompts by their last token; see `_by_last_token`."""
        return _by_last_token(self.recorded.batch, self.recorded.places["deciding"])

    def swap(self, nodes: KeptNodes, place: Place, control: bool = True) -> Swap:
        """Swap nodes at a place with the other prompt of the pair, and with the control's prompt.

        Args:
            nodes: the nodes.
            place: the tokens of both prompts; if one has more of them, its last ones take the
                last value of the other's.
            control: False leaves the control out, which takes as long as the swap.
        """
        same = self._same_context if control else torch.full_like(self._partner, -1)
        return self._exchange(nodes, place, self._partner, same)

    def swap_last(self, nodes: KeptNodes, place: Place, control: bool = True) -> Swap | None:
        """Swap nodes at a place with a prompt that ends in another token, and in the same.

        These prompts have the same answers and deciding tokens. Arguments are those of `swap`.

        Returns:
            None if there is no prompt that ends in another token.
        """
        other, same = self._by_last_token
        if not bool(((other >= 0) & (self.logit_diffs > 0)).any()):
            return None
        return self._exchange(nodes, place, other, same if control else torch.full_like(same, -1))

    def _exchange(self, nodes: KeptNodes, place: Place, donors: Tensor, same: Tensor) -> Swap:
        """Take values from donors, and from those of the control; (2P,) each, -1 for none."""
        before = self.logit_diffs
        right, whole = before > 0, before + before[self._partner]

        def after(donors: Tensor) -> Tensor:
            return self._run(
                self._taking(nodes, self.recorded.places[place], donors.clamp(min=0), place)
            )

        swapped, has_donor = after(donors), donors >= 0
        flipped_by_same = moved_by_same = None
        has_same = (same >= 0) & has_donor
        if bool((has_same & right).any()):
            by_same = after(same)
            flipped_by_same = _share((by_same < 0)[has_same & right])
            # Magnitudes: the donors are the same prompts in another order, so that changes of a
            # node that adds to the logit difference have a mean of 0 whatever it carries.
            change = (before - by_same)[has_same].abs().mean()
            moved_by_same = float(change / whole[has_same].mean())
        return Swap(
            place=place,
            n_prompts=int((right & has_donor).sum()),
            flipped=_share((swapped < 0)[right & has_donor]),
            moved=float((before - swapped)[has_donor].mean() / whole[has_donor].mean()),
            flipped_by_same=flipped_by_same,
            moved_by_same=moved_by_same,
        )

    def loss_with(self, *, ablated: KeptNodes = NO_NODES, fixed: KeptNodes = NO_NODES) -> float:
        """Return the task loss with nodes at constant values, at all tokens of all prompts.

        Args:
            ablated: nodes at their means over text, as if they were outside the circuit.
            fixed: other nodes, at their averages over the tokens of other pairs.
        """
        values = {site: value.clone() for site, value in self.means.items()}
        for site, nodes in fixed.items():
            channels = self.recorded.channels[site][nodes]
            values[site][channels] = self.averages[site][channels]
        edits = {}
        for site in {**ablated, **fixed}:
            numbers = torch.cat([part[site] for part in (ablated, fixed) if site in part])
            channels = self.recorded.channels[site][numbers]
            edits[site] = _constant(numbers, values[site][channels])
        return self.masked_circuit.loss_of(self._run(lambda _part, _rows: edits))

    def loss_by_token(self, nodes: KeptNodes) -> float:
        """Return the task loss with nodes that depend on the token alone.

        At each token of all prompts they take their average at the same token of other pairs.
        """
        return self._loss_with_values(nodes, self._by_token)

    def loss_by_past(self, nodes: KeptNodes) -> float:
        """Return the task loss with nodes that the tokens so far predict.

        At each token of all prompts they take what the model of `past_tokens.py` gives, which was
        fitted on other pairs.
        """
        return self._loss_with_values(nodes, self._by_past)

    @cached_property
    def _by_token(self) -> dict[str, Tensor]:
        """Site to (2P, T, k), the average of each node at the same token of other pairs."""
        tokens = self.recorded.batch.tokens
        return {site: self.others.by_token(site, tokens) for site in self.recorded.channels}

    @cached_property
    def _by_past(self) -> dict[str, Tensor]:
        """Site to (2P, T, k), the value of each node that the tokens so far predict."""
        tokens = self.recorded.batch.tokens
        return {site: self.past.predicted(site, tokens) for site in self.recorded.channels}

    @cached_property
    def past(self) -> PastTokens:
        """The model that predicts nodes from the tokens so far, fitted on other pairs."""
        return PastTokens(self.others)

    def _loss_with_values(self, nodes: KeptNodes, values_of: Mapping[str, Tensor]) -> float:
        """Return the task loss with nodes at given values, (2P, T, k) for each site."""
        values = {site: values_of[site][..., numbers] for site, numbers in nodes.items()}

        def edits(part: TokenizedPairs, rows: Tensor) -> KeptEdits:
            length = part.tokens.shape[1]
            everywhere = torch.ones_like(part.tokens, dtype=torch.bool)[..., None]
            return {
                site: _replaced(
                    numbers, everywhere, values[site][rows, :length], part.last_positions
                )
                for site, numbers in nodes.items()
            }

        return self.masked_circuit.loss_of(self._run(edits))

    @torch.no_grad()
    def _run(self, edits_of: KeptEditsOf) -> Tensor:
        """Return the logit differences (2P,) with edits of the circuit's nodes.

        What lies before the first edited layer is not computed anew.
        """
        logit_diffs = self.logit_diffs.clone()
        for rows, part, block_inputs in self._passes:
            if edits := edits_of(part, rows):
                first = min(int(site.partition(".")[0]) for site in edits)
                start_from = first, block_inputs[first]
                logit_diffs[rows] = self._runner(part, edits, start_from)
        return logit_diffs

    @cached_property
    def _runner(self) -> Runner:
        return self.masked_circuit.runner()

    @cached_property
    def _passes(self) -> list[tuple[Tensor, TokenizedPairs, list[Tensor]]]:
        """Prompt indices, prompts and the residual stream before each block, nothing patched.

        They are kept until the patcher goes: layers x 2P x T x D values for all passes together.
        """
        recorded = []
        for rows, part in passes(self.recorded.batch):
            block_inputs: list[Tensor] = []
            with torch.no_grad():
                self._runner(part, block_inputs=block_inputs)
            recorded.append((rows, part, block_inputs))
        return recorded

    def _taking(self, nodes: KeptNodes, mask: Tensor, donors: Tensor, place: Place) -> KeptEditsOf:
        """Return the edits with which nodes take, at some tokens, the values of a donor prompt.

        Args:
            nodes: the nodes.
            mask: (2P, T) bool, the tokens.
            donors: (2P,) the prompt that each prompt takes values from.
            place: the tokens of the donors from which the values come.
        """
        sources = _matching_tokens(mask, self.recorded.places[place][donors])  # (2P, T)
        taken = {}
        for site, numbers in nodes.items():
            of_donors = self.recorded.values[site][..., numbers][donors]
            index = sources[..., None].expand(-1, -1, len(numbers))
            taken[site] = of_donors.gather(1, index)

        def edits(part: TokenizedPairs, rows: Tensor) -> KeptEdits:
            length = part.tokens.shape[1]
            return {
                site: _replaced(
                    numbers,
                    mask[rows, :length, None],
                    taken[site][rows, :length],
                    part.last_positions,
                )
                for site, numbers in nodes.items()
            }

        return edits


def with_common_places(*patchers: Patcher) -> list[Patcher]:
    """Return patchers of the same circuit with the places that the prompts of all of them have."""
    places = [patcher.recorded.places for patcher in patchers]
    common = [name for name in places[0] if all(name in others for others in places)]
    return [
        replace(
            patcher,
            recorded=replace(patcher.recorded, places={name: own[name] for name in common}),
        )
        for patcher, own in zip(patchers, places, strict=True)
    ]


def _share(values: Tensor) -> float:
    """Return the share of True values (n,), at least one value."""
    return float(values.double().mean())


def _same_context(batch: TokenizedPairs, deciding: Tensor) -> Tensor:
    """Return (2P,) int64: the next prompt, on the same side, of a pair with the same answers.

    It has the same deciding tokens if there is such a prompt: with others, the values at several
    deciding tokens may stand in another order. -1 where no prompt has the same answers. The last
    pair is followed by the first.

    Args:
        batch: the pairs.
        deciding: (2P, T) bool, the deciding tokens.
    """
    same_answers = _next_alike(_sided_answers(batch))
    same_tokens = _next_alike(_contexts(batch, deciding))
    return torch.where(same_tokens >= 0, same_tokens, same_answers).to(batch.answers.device)


def _by_last_token(batch: TokenizedPairs, deciding: Tensor) -> tuple[Tensor, Tensor]:
    """Return (2P,) each: a prompt of the same context with another last token, and with the same.

    -1 where there is none. Contexts are alike if answers and deciding tokens are the same.
    """
    contexts = _contexts(batch, deciding)
    last = batch.tokens.gather(1, batch.last_positions[:, None])[:, 0].tolist()
    same = _next_alike([(*key, token) for key, token in zip(contexts, last, strict=True)])
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, key in enumerate(contexts):
        rows_of.setdefault(key, []).append(row)
    other = torch.full((len(last),), -1)
    for rows in rows_of.values():
        for place, row in enumerate(rows):
            following = rows[place + 1 :] + rows[:place]
            other[row] = next((one for one in following if last[one] != last[row]), -1)
    device = batch.answers.device
    return other.to(device), same.to(device)


def _sided_answers(batch: TokenizedPairs) -> list[tuple[int, ...]]:
    """Return the side and the answers of each prompt."""
    return [(row % 2, *answers) for row, answers in enumerate(batch.answers.tolist())]


def _contexts(batch: TokenizedPairs, deciding: Tensor) -> list[tuple[int, ...]]:
    """Return side, answers and deciding tokens of each prompt; `deciding` is (2P, T) bool."""
    ids = [row[mask].tolist() for row, mask in zip(batch.tokens, deciding, strict=True)]
    return [(*key, *own) for key, own in zip(_sided_answers(batch), ids, strict=True)]


def _next_alike(keys: Sequence[tuple[int, ...]]) -> Tensor:
    """Return (n,) int64: the next index with the same key, cyclic; -1 where there is none."""
    indices_of: dict[tuple[int, ...], list[int]] = {}
    for index, key in enumerate(keys):
        indices_of.setdefault(key, []).append(index)
    following = torch.full((len(keys),), -1)
    for indices in indices_of.values():
        if len(indices) > 1:
            following[torch.tensor(indices)] = torch.tensor([*indices[1:], indices[0]])
    return following


def _matching_tokens(mask: Tensor, donor_mask: Tensor) -> Tensor:
    """Return (R, T) int64: for the i-th True token of a row, the i-th True token of its donor.

    A row with more of them takes the donor's last one for the rest; other tokens get any index.
    """
    number = (mask.cumsum(1) - 1).clamp(min=0)
    most = donor_mask.sum(1, keepdim=True) - 1
    # Stable sort: the positions of True tokens come first, in order.
    positions = donor_mask.int().sort(dim=1, descending=True, stable=True).indices
    return positions.gather(1, torch.minimum(number, most))


def _replaced(numbers: Tensor, mask: Tensor, values: Tensor, last: Tensor) -> Edit:
    """Return the edit of a site's kept nodes that replaces some of them where a mask says so.

    Args:
        numbers: (j,) indices of these nodes among the site's kept nodes.
        mask: (B, T, 1) bool.
        values: (B, T, j).
        last: (B,) the position of each prompt's last token, the only one that late sites compute.
    """

    def edit(x: Tensor) -> Tensor:
        narrow = x.shape[1] != mask.shape[1]
        where, new = ((select_positions(y, last) if narrow else y) for y in (mask, values))
        here = numbers.to(x.device)
        return x.index_copy(-1, here, torch.where(where, new, x[..., here]))

    return edit


def _constant(numbers: Tensor, values: Tensor) -> Edit:
    """Return the edit of a site's kept nodes that sets some of them, (j,) each, to constants."""
    return lambda x: x.index_copy(-1, numbers.to(x.device), values.expand(*x.shape[:2], -1))
