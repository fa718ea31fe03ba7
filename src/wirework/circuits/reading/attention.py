"""Attention of a circuit's heads from the last token: on the deciding tokens, and on the sink.

Shapes: P pairs (two prompts each), T tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.adversarial.heads import kept_heads, patterns
from wirework.circuits.adversarial.reading import CircuitOnModel
from wirework.circuits.reading.patching import Patcher
from wirework.circuits.reading.places import Recorded
from wirework.node_names import head_name, node_name
from wirework.summaries import Report, absent


@dataclass(frozen=True, repr=False)
class HeadAttention(Report):
    """Attention from the last token of a head with a kept value, means over prompts."""

    layer: int
    head: int
    deciding: float
    """Share of the attention on the deciding tokens."""
    if_even: float
    """Their share if attention were even over the tokens that the head sees."""
    sink: float
    """Share on the sink; 0 in a model without sinks."""
    window: int | None
    """Number of last tokens that the head sees; None for the whole prompt."""
    keys_and_queries: tuple[str, ...]
    """Names of its kept key and query nodes. Without any, all tokens have the same score."""
    loss_without_them: float | None = absent()
    """Task loss in nats on held-out pairs with these at their means over text."""

    @property
    def name(self) -> str:
        """Name of the head, such as `2.attn.1`."""
        return head_name(self.layer, self.head)


def head_attention(circuit: CircuitOnModel, patcher: Patcher) -> tuple[HeadAttention, ...]:
    """Measure the attention of each kept head on the pairs of the experiments.

    Args:
        circuit: the circuit on its model.
        patcher: runs the experiments, on held-out pairs.
    """
    recorded, width = patcher.recorded, circuit.model.config.d_head
    deciding = recorded.places["deciding"]
    heads = kept_heads(circuit)
    weights = patterns(circuit, recorded.batch)  # (H, 2P, T)
    windows = circuit.model.config.attention_windows
    measured = []
    for (layer, head), of_head in zip(heads, weights, strict=True):
        window = None if windows is None else windows[layer]
        visible = _visible(recorded, window)
        nodes = _keys_and_queries(recorded.channels, layer, head, width)
        names = tuple(
            node_name(site, int(recorded.channels[site][number]))
            for site, numbers in nodes.items()
            for number in numbers.tolist()
        )
        measured.append(
            HeadAttention(
                layer=layer,
                head=head,
                deciding=float((of_head * deciding).sum(1).mean()),
                if_even=float(((deciding & visible).sum(1) / visible.sum(1)).mean()),
                sink=max(0.0, 1 - float(of_head.sum(1).mean())),
                window=window,
                keys_and_queries=names,
                loss_without_them=patcher.loss_with(ablated=nodes) if nodes else None,
            )
        )
    return tuple(measured)


def _visible(recorded: Recorded, window: int | None) -> Tensor:
    """Return (2P, T) bool, the tokens that a head sees from the last token of each prompt."""
    if window is None:
        return recorded.in_prompt
    positions = torch.arange(recorded.in_prompt.shape[1], device=recorded.in_prompt.device)
    return recorded.in_prompt & (positions > recorded.batch.last_positions[:, None] - window)


def _keys_and_queries(
    channels: Mapping[str, Tensor], layer: int, head: int, width: int
) -> dict[str, Tensor]:
    """Return the kept key and query nodes of a head, as indices into the kept nodes of a site."""
    nodes = {}
    for kind in "qk":
        site = f"{layer}.attn.{kind}"
        if site in channels:
            numbers = (channels[site] // width == head).nonzero().flatten()
            if len(numbers):
                nodes[site] = numbers
    return nodes
