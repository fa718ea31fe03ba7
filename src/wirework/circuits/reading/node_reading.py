"""The reading of each node of a circuit: its role, contrast, effects and driving tokens.

Everything here is measured on pairs that the search has seen. It decides which sentences are
written; the sentences are then tested on held-out pairs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from wirework.circuits.reading.contrast import AtToken, Contrast, ends_of
from wirework.circuits.reading.driving_tokens import DrivingTokens
from wirework.circuits.reading.past_tokens import PastSource
from wirework.circuits.reading.patching import KeptNodes, Patcher, Swap
from wirework.circuits.reading.places import Place
from wirework.node_names import node_name
from wirework.summaries import NotMeasured, Report, absent

if TYPE_CHECKING:
    from wirework.data import Tokenizer

Role = Literal["constant", "signal", "referent", "marker", "token", "past", "other"]
"""`constant`: one value at all tokens does as well, also for all constants together. `signal`: it
carries which of the two contexts it is, as a swap shows. `referent`: it carries what the last token
names, as a swap with prompts of another last token shows. `marker`: it differs between one place
and the other tokens, in both contexts, and is needed. `token`: its value follows from the token
alone. `past`: it follows from the tokens so far (`past_tokens.py`). `other`: none of these."""

_MOST_CHANGE_OF_NODE = 0.01
"""Nats by which the loss may change if a constant node is fixed, or if a node that follows from the
token takes its average at that token."""
_MOST_CHANGE_TOGETHER = 0.025
"""Nats by which the loss may change if all constants are fixed together: half of what the sentence
about them may show on held-out pairs."""
_MOST_CHANGE_BY_PAST = 0.025
"""Nats by which the loss may change if a node takes the value that the tokens so far predict."""
_MOST_LEFT = 0.5
"""Share of the loss's change under the average that a prediction may leave: one that explains
nothing gives the average."""
_LEAST_MOVED_BY_NODE = 0.05
"""Share of the difference between the contexts that a swap of a signal node moves at least."""
LEAST_MOVED_BY_GROUP = 0.1
"""The same of the nodes of a sentence together."""
_MOST_CONTROL = 1 / 3
"""Share of a swap's movement that values of the same context may cause at most."""
_LEAST_STANDING_OUT = 0.2
"""Share of its range by which a marker differs between its place and other tokens at least."""
LEAST_RISE = 0.05
"""Nats by which the loss rises at least if a needed node is ablated."""


@dataclass(frozen=True, repr=False)
class NodeReading(Report):
    """What a node of a circuit does."""

    node: str
    """Name, `2.attn.v.21`."""
    site: str
    index: int
    """Its channel at the site."""
    role: Role
    contrast: float
    """Difference between the two contexts as a share of the node's range, -1 to 1."""
    at_place: Contrast
    """Its values, at the place where the nodes of its site have the larger effect."""
    swap: Swap
    """The experiment with this node alone."""
    swap_last: Swap | None
    """The same with prompts that end in another token, at the place where that has the largest
    effect; None without such prompts, or where it has no effect for all nodes of the site."""
    loss_if_fixed: float
    """Task loss in nats of the circuit with the node at its average value, at all tokens of all
    prompts."""
    loss_if_ablated: float
    """The same with the node at its mean over text, as if it were outside the circuit."""
    driving_tokens: DrivingTokens | NotMeasured
    ends: tuple[AtToken, AtToken] | None = absent()
    """The tokens of the prompts at which a node with the role `token` is highest and lowest."""
    past: PastSource | None = absent()
    """What a node with the role `past` mostly follows from."""


def read_nodes(
    patcher: Patcher,
    driving: Mapping[str, tuple[DrivingTokens, ...]] | NotMeasured,
    tokenizer: "Tokenizer",
) -> tuple[NodeReading, ...]:
    """Return the reading of each node of a circuit, in the order of the circuit.

    Args:
        patcher: runs the experiments, on pairs that the search has seen.
        driving: site to the driving tokens of each kept node.
        tokenizer: names tokens.
    """
    before, recorded = patcher.loss(), patcher.recorded
    readings = []
    for site, channels in recorded.channels.items():
        every_node = {site: torch.arange(len(channels))}
        place = _place(patcher, every_node)
        places_of_last = _places_of_last(patcher, every_node)
        for number, index in enumerate(channels.tolist()):
            node = {site: torch.tensor([number])}
            swap, swap_last = patcher.swap(node, place), _strongest(patcher, node, places_of_last)
            if_fixed, if_ablated = patcher.loss_with(fixed=node), patcher.loss_with(ablated=node)
            contrast = Contrast.of(recorded, site, number, place, tokenizer)
            role = _role(contrast, swap, swap_last, if_fixed - before, if_ablated - before)
            if role == "referent" and swap_last is not None:
                contrast = Contrast.of(recorded, site, number, swap_last.place, tokenizer)
            readings.append(
                NodeReading(
                    node=node_name(site, index),
                    site=site,
                    index=index,
                    role=role,
                    contrast=contrast.contrast,
                    at_place=contrast,
                    swap=swap,
                    swap_last=swap_last,
                    loss_if_fixed=if_fixed,
                    loss_if_ablated=if_ablated,
                    driving_tokens=driving
                    if isinstance(driving, NotMeasured)
                    else driving[site][number],
                )
            )
    readings = _with_joint_constants(readings, patcher, before)
    readings = _without_weak_groups(readings, patcher)
    return tuple(
        _with_prediction(reading, patcher, before, tokenizer)
        if reading.role == "other"
        else reading
        for reading in readings
    )


def kept_nodes(readings: Iterable[NodeReading], patcher: Patcher) -> KeptNodes:
    """Return nodes as indices into the kept nodes of their sites."""
    by_site: dict[str, list[int]] = {}
    for reading in readings:
        by_site.setdefault(reading.site, []).append(reading.index)
    return {
        site: torch.searchsorted(patcher.recorded.channels[site].cpu(), torch.tensor(indices))
        for site, indices in by_site.items()
    }


def _with_joint_constants(
    readings: Sequence[NodeReading], patcher: Patcher, before: float
) -> list[NodeReading]:
    """Return the readings with fewer constants if these cannot be fixed together.

    Those whose values matter least alone stay, as many as change the loss little together; the rest
    are `other`.
    """
    constants = sorted(
        (reading for reading in readings if reading.role == "constant"),
        key=lambda reading: abs(reading.loss_if_fixed - before),
    )

    def can_be_fixed(count: int) -> bool:
        loss = patcher.loss_with(fixed=kept_nodes(constants[:count], patcher))
        return abs(loss - before) <= _MOST_CHANGE_TOGETHER

    n_all = len(constants)
    count, too_many = (n_all, n_all + 1) if can_be_fixed(n_all) else (0, n_all)
    while too_many - count > 1:
        middle = (count + too_many) // 2
        count, too_many = (middle, too_many) if can_be_fixed(middle) else (count, middle)
    dropped = {reading.node for reading in constants[count:]}
    return [
        replace(reading, role="other") if reading.node in dropped else reading
        for reading in readings
    ]


def _without_weak_groups(readings: Sequence[NodeReading], patcher: Patcher) -> list[NodeReading]:
    """Return the readings with signals and referents as `other` where a swap of all does little.

    The nodes of a site that carry the same at the same place become one sentence, whose swap must
    move more than that of a single node.
    """
    groups: dict[tuple[str, Role, Place], list[NodeReading]] = {}
    for reading in readings:
        if reading.role in ("signal", "referent"):
            key = (reading.site, reading.role, reading.at_place.place)
            groups.setdefault(key, []).append(reading)
    weak = set()
    for (_, role, place), group in groups.items():
        nodes = kept_nodes(group, patcher)
        if role == "signal":
            stands = is_specific(patcher.swap(nodes, place), LEAST_MOVED_BY_GROUP)
        else:
            swap_last = patcher.swap_last(nodes, place)
            stands = swap_last is not None and is_referent(swap_last, LEAST_MOVED_BY_GROUP)
        weak |= set() if stands else {reading.node for reading in group}
    return [
        replace(reading, role="other") if reading.node in weak else reading for reading in readings
    ]


def _with_prediction(
    reading: NodeReading, patcher: Patcher, before: float, tokenizer: "Tokenizer"
) -> NodeReading:
    """Return the reading with the role `token` or `past` if what these predict does as well."""
    node, site = kept_nodes([reading], patcher), reading.site
    number = int(node[site])

    def predicts(after: float, most: float) -> bool:
        return is_predicted(before, after, reading.loss_if_fixed, most)

    if predicts(patcher.loss_by_token(node), _MOST_CHANGE_OF_NODE):
        ends = ends_of(patcher.recorded, site, number, tokenizer)
        return replace(reading, role="token", ends=ends)
    if predicts(patcher.loss_by_past(node), _MOST_CHANGE_BY_PAST):
        past = patcher.past.strongest(site, number, tokenizer)
        return replace(reading, role="past", past=past)
    return reading


def is_predicted(before: float, after: float, if_fixed: float, most: float) -> bool:
    """Return whether a prediction of nodes does as well as their values, and more than an average.

    Args:
        before: task loss in nats with their values.
        after: with the prediction.
        if_fixed: with their averages.
        most: nats by which the loss may change.
    """
    change = abs(after - before)
    return change <= most and change <= _MOST_LEFT * abs(if_fixed - before)


def _place(patcher: Patcher, every_node: KeptNodes) -> Place:
    """Return the place at which a swap of all nodes of a site moves the answer more."""
    moved = {
        place: patcher.swap(every_node, place, control=False).moved
        for place in patcher.recorded.places
    }
    return max(moved, key=lambda place: moved[place])


def _places_of_last(patcher: Patcher, every_node: KeptNodes) -> list[Place]:
    """Return the places at which prompts of another last token move the answer, for a site."""
    swaps = [
        patcher.swap_last(every_node, place, control=False) for place in patcher.recorded.places
    ]
    return [s.place for s in swaps if s is not None and s.moved >= _LEAST_MOVED_BY_NODE]


def _strongest(patcher: Patcher, node: KeptNodes, places: Sequence[Place]) -> Swap | None:
    """Return the swap with prompts of another last token that moves the answer most."""
    swaps = [patcher.swap_last(node, place) for place in places]
    return max((s for s in swaps if s is not None), key=lambda swap: swap.moved, default=None)


def _role(
    contrast: Contrast, swap: Swap, swap_last: Swap | None, if_fixed: float, if_ablated: float
) -> Role:
    """Return the role of a node from its contrast and the changes of the loss in nats."""
    if abs(if_fixed) <= _MOST_CHANGE_OF_NODE:
        return "constant"
    if swap_last is not None and swap_last.moved > swap.moved and is_referent(swap_last):
        return "referent"
    if swap.moved >= _LEAST_MOVED_BY_NODE:
        return "signal"
    if abs(contrast.stands_out) >= _LEAST_STANDING_OUT and if_ablated >= LEAST_RISE:
        return "marker"
    return "other"


def is_specific(swap: Swap, least: float = _LEAST_MOVED_BY_NODE) -> bool:
    """Return whether a swap moves the answer by a share or more, and its control a third at most.

    Args:
        swap: the swap.
        least: the share.
    """
    control = abs(swap.moved_by_same or 0.0)
    return swap.moved >= least and control <= _MOST_CONTROL * swap.moved


def is_referent(swap_last: Swap, least: float = _LEAST_MOVED_BY_NODE) -> bool:
    """Return whether a swap with prompts of another last token is specific, and has a control."""
    return swap_last.moved_by_same is not None and is_specific(swap_last, least)
