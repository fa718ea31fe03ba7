"""Sentences about a circuit, one per group of nodes of a site, each with its experiment.

The words follow from fixed rules on the role of the nodes, their site and the edges between them.
A sentence whose experiment on held-out pairs fails is kept, marked as refused, with what was
measured. One kind of sentence needs no experiment: that a head without keys and queries averages.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.reading.attention import HeadAttention
from wirework.circuits.reading.contrast import Contrast
from wirework.circuits.reading.node_reading import (
    LEAST_MOVED_BY_GROUP,
    LEAST_RISE,
    NodeReading,
    is_predicted,
    is_referent,
    is_specific,
    kept_nodes,
)
from wirework.circuits.reading.past_tokens import Source
from wirework.circuits.reading.patching import Patcher, Swap
from wirework.circuits.reading.places import Place
from wirework.circuits.reading.subjects import subject
from wirework.circuits.reading.words import Contexts, code, listed, where
from wirework.errors import number_of
from wirework.summaries import Report, absent

Kind = Literal["signal", "referent", "marker", "token", "past", "constant", "attention"]

_MOST_CHANGE_OF_GROUP = 0.05
"""Nats by which the loss may change if all constants are fixed together, or if all nodes of a site
that follow from the token, or from the tokens so far, take the values that these predict."""


@dataclass(frozen=True, repr=False)
class Sentence(Report):
    """A statement about some nodes, and the experiment that backs or refuses it."""

    kind: Kind
    text: str
    nodes: tuple[str, ...]
    stands: bool
    """Whether the experiment confirms it."""
    experiment: str
    """What was done and measured, in words."""
    swap: Swap | None = absent()
    """The measured swap, of a sentence about a signal or a referent."""
    loss_before: float | None = absent()
    """Task loss in nats of the circuit on held-out pairs, a mean over both prompts of a pair."""
    loss_after: float | None = absent()
    """The same with the nodes ablated; or fixed, if they are constants; or at the values that the
    token, or the tokens so far, predict, if they follow from these."""
    loss_if_fixed: float | None = absent()
    """Control of a prediction: the same with the nodes at their averages."""


def sentences(
    circuit: NodeCircuit,
    readings: Sequence[NodeReading],
    heads: Sequence[HeadAttention],
    patcher: Patcher,
    contexts: Contexts,
) -> tuple[Sentence, ...]:
    """Return the sentences about a circuit in execution order, those about constants last.

    Args:
        circuit: the circuit.
        readings: the reading of each of its nodes.
        heads: the attention of its heads.
        patcher: runs the experiments.
        contexts: names of the contexts.
    """
    written: list[Sentence] = []
    for site, of_site in groupby(readings, lambda reading: reading.site):
        nodes = list(of_site)
        signal = [node for node in nodes if node.role == "signal"]
        is_scored = site.endswith((".q", ".k"))  # the sentence on the head's attention covers them
        markers = [node for node in nodes if node.role == "marker" and not is_scored]
        if site.endswith("attn.v"):
            layer = int(site.split(".")[0])
            written += [_attention(head, patcher) for head in heads if head.layer == layer]
        if signal:
            written.append(_signal(circuit, signal, patcher, contexts))
        for place, group in _by_place([node for node in nodes if node.role == "referent"]):
            written.append(_referent(group, place, patcher))
        if markers:
            written.append(_marker(markers, patcher))
        if by_token := [node for node in nodes if node.role == "token"]:
            written.append(_token(by_token, patcher))
        if by_past := [node for node in nodes if node.role == "past"]:
            written.append(_past(by_past, patcher))
    constants = [reading for reading in readings if reading.role == "constant"]
    return (*written, *([_constants(constants, patcher)] if constants else []))


def _signal(
    circuit: NodeCircuit, nodes: Sequence[NodeReading], patcher: Patcher, contexts: Contexts
) -> Sentence:
    place = nodes[0].at_place.place
    swap = patcher.swap(kept_nodes(nodes, patcher), place)
    values = _values(nodes, lambda at: _told_apart(at, contexts))
    return Sentence(
        kind="signal",
        text=f"{subject(circuit, nodes)} {where(place)}: {values}.",
        nodes=tuple(node.node for node in nodes),
        stands=is_specific(swap, LEAST_MOVED_BY_GROUP),
        experiment=_swap_text(swap, len(nodes)),
        swap=swap,
    )


def _by_place(nodes: Sequence[NodeReading]) -> Iterable[tuple[Place, list[NodeReading]]]:
    """Return nodes grouped by the place of their values."""
    groups: dict[Place, list[NodeReading]] = {}
    for node in nodes:
        groups.setdefault(node.at_place.place, []).append(node)
    return groups.items()


def _referent(nodes: Sequence[NodeReading], place: Place, patcher: Patcher) -> Sentence:
    swap = patcher.swap_last(kept_nodes(nodes, patcher), place)
    names = [node.node for node in nodes]
    values = _values(nodes, _by_token)
    carry = "carries" if len(nodes) == 1 else "carry"
    return Sentence(
        kind="referent",
        text=f"{listed(names)} {carry} what the last token names, {where(place)}: {values}.",
        nodes=tuple(names),
        stands=swap is not None and is_referent(swap, LEAST_MOVED_BY_GROUP),
        experiment="not possible: no two prompts differ in their last token alone"
        if swap is None
        else _swap_last_text(swap, len(nodes)),
        swap=swap,
    )


def _swap_last_text(swap: Swap, n_nodes: int) -> str:
    by_same = (
        "no control: no two prompts end in the same token"
        if swap.flipped_by_same is None
        else f"from one that ends in the same token {swap.flipped_by_same:.0%}"
    )
    return (
        f"{'its value' if n_nodes == 1 else 'their values'} there taken from a prompt that ends in "
        f"another token, {swap.flipped:.0%} of {number_of(swap.n_prompts, 'answer')} flip "
        f"({by_same}); the logit difference moves by {swap.moved:.0%} of the way"
    )


def _values(nodes: Sequence[NodeReading], words: Callable[[Contrast], str]) -> str:
    """Return the values of nodes in words, with their names if there are several."""
    return _each([node.node for node in nodes], [words(node.at_place) for node in nodes])


def _told_apart(at: Contrast, contexts: Contexts) -> str:
    """Return the values of a node by context, or by token if the means over tokens hide them."""
    if at.is_mixed:
        return _by_token(at)
    return f"{at.first:.2f} {contexts.first}, {at.second:.2f} {contexts.second}"


def _by_token(at: Contrast) -> str:
    """Return the values of a node on the tokens of its place, in words."""
    return ", ".join(f"{one.mean:.2f} on {code(one.token)}" for one in at.tokens)


def _swap_text(swap: Swap, n_nodes: int) -> str:
    by_same = (
        "no control: no two pairs have the same answers"
        if swap.flipped_by_same is None
        else f"with a prompt of the same answers {swap.flipped_by_same:.0%}"
    )
    values = "its value" if n_nodes == 1 else "their values"
    return (
        f"{values} there swapped with the other prompt of the pair, {swap.flipped:.0%} of "
        f"{number_of(swap.n_prompts, 'answer')} flip ({by_same}); the logit difference moves by "
        f"{swap.moved:.0%} of the way"
    )


def _marker(nodes: Sequence[NodeReading], patcher: Patcher) -> Sentence:
    before = patcher.loss()
    names = [node.node for node in nodes]
    after = patcher.loss_with(ablated=kept_nodes(nodes, patcher))
    place = nodes[0].at_place.place
    there = where(place).removeprefix("at ").replace("between", "the tokens between")
    values = _values(
        nodes, lambda at: f"{(at.first + at.second) / 2:.2f} there, {at.elsewhere:.2f} elsewhere"
    )
    verb = "marks" if len(nodes) == 1 else "mark"
    return Sentence(
        kind="marker",
        text=f"{listed(names)} {verb} {there} in both contexts: {values}.",
        nodes=tuple(names),
        stands=after - before >= LEAST_RISE,
        experiment=f"ablated to the mean over text, the loss rises from {before:.3f} to "
        f"{after:.3f} nats",
        loss_before=before,
        loss_after=after,
    )


def _token(nodes: Sequence[NodeReading], patcher: Patcher) -> Sentence:
    kept = kept_nodes(nodes, patcher)
    return _predicted(
        "token",
        nodes,
        patcher,
        after=patcher.loss_by_token(kept),
        what="the token alone",
        words=[_ends(node) for node in nodes],
        set_to="at each token set to the average at this token of other pairs",
    )


def _past(nodes: Sequence[NodeReading], patcher: Patcher) -> Sentence:
    kept = kept_nodes(nodes, patcher)
    return _predicted(
        "past",
        nodes,
        patcher,
        after=patcher.loss_by_past(kept),
        what="the tokens so far",
        words=[_source(node) for node in nodes],
        set_to="set to what a linear fit on other pairs gives for the token, the one before it, "
        "the share of each token so far and the position",
    )


def _predicted(
    kind: Kind,
    nodes: Sequence[NodeReading],
    patcher: Patcher,
    *,
    after: float,
    what: str,
    words: Sequence[str],
    set_to: str,
) -> Sentence:
    """Return the sentence about nodes that follow from tokens.

    Args:
        kind: `token` or `past`.
        nodes: the nodes.
        patcher: runs the control.
        after: task loss in nats with the predicted values.
        what: what the nodes follow from.
        words: what is said of each node.
        set_to: what was done in the experiment.
    """
    before, if_fixed = patcher.loss(), patcher.loss_with(fixed=kept_nodes(nodes, patcher))
    names = [node.node for node in nodes]
    follows = "follows" if len(nodes) == 1 else "follow"
    return Sentence(
        kind=kind,
        text=f"{listed(names)} {follows} from {what}: {_each(names, words)}.",
        nodes=tuple(names),
        stands=is_predicted(before, after, if_fixed, _MOST_CHANGE_OF_GROUP),
        experiment=f"{set_to}, the loss goes from {before:.3f} to {after:.3f} nats (at their "
        f"averages: {if_fixed:.3f})",
        loss_before=before,
        loss_after=after,
        loss_if_fixed=if_fixed,
    )


_SOURCES: dict[Source, str] = {
    "token": "the token itself",
    "before": "the token before it",
    "share": "the share of each token in the prompt so far",
    "position": "the number of tokens so far",
}


def _source(node: NodeReading) -> str:
    """Return in words what a node mostly follows from."""
    assert node.past is not None
    ends = [
        f"{word} with {' and '.join(map(code, tokens))}"
        for word, tokens in (("higher", node.past.highest), ("lower", node.past.lowest))
        if tokens
    ]
    if node.past.later is not None:
        ends = [f"{node.past.later} late in the prompt"]
    return f"set mostly by {_SOURCES[node.past.source]} ({', '.join(ends)})"


def _each(names: Sequence[str], words: Sequence[str]) -> str:
    """Return what is said of each node, with their names if there are several."""
    if len(names) == 1:
        return words[0]
    return "; ".join(f"{name} is {own}" for name, own in zip(names, words, strict=True))


def _ends(node: NodeReading) -> str:
    """Return in words at which tokens a node is highest and lowest."""
    assert node.ends is not None
    highest, lowest = node.ends
    return f"{highest.mean:.2f} on {code(highest.token)}, {lowest.mean:.2f} on {code(lowest.token)}"


def _attention(head: HeadAttention, patcher: Patcher) -> Sentence:
    before, after = patcher.loss(), head.loss_without_them
    seen = "the prompt" if head.window is None else f"the last {head.window} tokens"
    share = (
        f"from the last token, {head.deciding:.0%} of its attention goes to the deciding tokens "
        f"({head.if_even:.0%} of {seen}), {head.sink:.0%} to the sink"
    )
    if after is None:
        return Sentence(
            kind="attention",
            text=f"Head {head.name} averages over {seen}: {share}.",
            nodes=(),
            stands=True,
            experiment="by construction: it keeps no key and no query, so that all tokens have "
            "the same score",
        )
    nodes = head.keys_and_queries
    return Sentence(
        kind="attention",
        text=f"{listed(nodes)} {'sets' if len(nodes) == 1 else 'set'} what head {head.name} "
        f"attends to: {share}.",
        nodes=nodes,
        stands=after - before >= LEAST_RISE,
        experiment=f"ablated to the mean over text, the loss rises from {before:.3f} to "
        f"{after:.3f} nats",
        loss_before=before,
        loss_after=after,
    )


def _constants(nodes: Sequence[NodeReading], patcher: Patcher) -> Sentence:
    before = patcher.loss()
    after = patcher.loss_with(fixed=kept_nodes(nodes, patcher))
    names = [node.node for node in nodes]
    verb = "is a constant" if len(nodes) == 1 else "are constants"
    return Sentence(
        kind="constant",
        text=f"{listed(names)} {verb}: one value at all tokens does as well.",
        nodes=tuple(names),
        stands=abs(after - before) <= _MOST_CHANGE_OF_GROUP,
        experiment=f"all fixed at their averages, the loss goes from {before:.3f} to "
        f"{after:.3f} nats",
        loss_before=before,
        loss_after=after,
    )
