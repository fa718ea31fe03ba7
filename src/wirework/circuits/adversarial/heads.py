"""Attention of a circuit's heads from the last token: do they select a token or average?

The output of an averaging head is diluted as 1/length in longer prompts (Gao et al. 2025, the
bracket circuit). Shapes: H kept heads, N prompts, T tokens, K channels of a head.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from wirework.circuits.adversarial.reading import CircuitOnModel, encode
from wirework.nn.block import Attention
from wirework.node_names import head_name
from wirework.tasks import Pair, TokenizedPairs
from wirework.tasks.deciding_tokens import deciding_tokens

_AVERAGES = 0.25
"""An averaging head attends to at least this share of the tokens."""
_DILUTED = 0.75
"""A diluted head keeps at most this share of its attention on the deciding tokens."""


@dataclass(frozen=True)
class HeadReading:
    """Attention of a kept head, on short prompts and on the same prompts made longer."""

    layer: int
    head: int
    tokens: tuple[float, float]
    """Mean length of the prompts (short, long); all fields have this order."""
    spread: tuple[float, float]
    """Effective number of attended tokens: exponential of the entropy, without the sink."""
    sink: tuple[float, float]
    """Share of the attention on the sink."""
    deciding: tuple[float, float]
    """Share of the attention on tokens in which the two prompts of a pair differ."""

    @property
    def name(self) -> str:
        """Name of the head, such as `0.attn.1`."""
        return head_name(self.layer, self.head)

    @property
    def averages(self) -> bool:
        """Whether it attends to a large share of the context at both lengths."""
        return all(s >= _AVERAGES * t for s, t in zip(self.spread, self.tokens, strict=True))

    @property
    def diluted(self) -> bool:
        """Whether its attention to the deciding tokens drops in longer prompts."""
        return self.deciding[1] <= _DILUTED * self.deciding[0]

    def words(self, head: str | None = None) -> str:
        """Return a description in one sentence.

        Args:
            head: the subject of the sentence; None for `head 0.1`, as in files.
        """
        (tokens, long_tokens), (spread, long_spread) = self.tokens, self.spread
        before, after = self.deciding
        role = "averages over the context" if self.averages else "picks tokens"
        effect = "longer contexts dilute it" if self.diluted else "longer contexts hardly dilute it"
        subject = head or f"head {self.layer}.{self.head}"
        return (
            f"{subject} {role} (its weight lies on {spread:.1f} of {tokens:.0f} "
            f"tokens, on {long_spread:.1f} of {long_tokens:.0f} in longer prompts; on the deciding "
            f"ones {before:.3f}, then {after:.3f}; {self.sink[0]:.2f} goes to the sink): {effect}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields and the sentence for JSON."""
        return {**asdict(self), "averages": self.averages, "says": self.words()}


def kept_heads(circuit: CircuitOnModel) -> list[tuple[int, int]]:
    """Return (layer, head) of each head with a kept value channel."""
    width = circuit.model.config.d_head
    values = [(site, c) for site, c in circuit.edge_masks.kept if site.endswith("attn.v")]
    return sorted({(int(site.split(".")[0]), c // width) for site, c in values})


def read_heads(
    circuit: CircuitOnModel, short: Sequence[Pair], long: Sequence[Pair]
) -> list[HeadReading]:
    """Measure the attention of each kept head on pairs and on the same pairs made longer.

    Args:
        circuit: the circuit with its model.
        short: the pairs.
        long: the same pairs with longer prompts.
    """
    measured = [_measured(circuit, encode(pairs, circuit.model)) for pairs in (short, long)]
    head_readings = []
    for number, (layer, head) in enumerate(kept_heads(circuit)):
        short_and_long = zip(*(measures[number].tolist() for measures in measured), strict=True)
        head_readings.append(HeadReading(layer, head, *short_and_long))
    return head_readings


def _measured(circuit: CircuitOnModel, batch: TokenizedPairs) -> Tensor:
    """Return (H, 4): length, spread, sink and deciding, as in `HeadReading`."""
    weights = patterns(circuit, batch)  # (H, N, T)
    total = weights.sum(-1, keepdim=True)
    share = weights / total
    spread = torch.special.entr(share).sum(-1).exp()
    deciding = (weights * deciding_tokens(batch)).sum(-1)
    length = (batch.last_positions + 1.0).expand_as(spread)
    return torch.stack([length, spread, 1 - total[..., 0], deciding], -1).mean(1)


@torch.no_grad()
def patterns(circuit: CircuitOnModel, batch: TokenizedPairs) -> Tensor:
    """Return the attention of each kept head, in the circuit, from the last token of each prompt.

    Returns:
        (H, N, T), 0 beyond the end of a prompt; the remainder to 1 is the sink.
    """
    heads = kept_heads(circuit)
    layers = sorted({layer for layer, _ in heads})
    transformer = circuit.edge_masks.transformer
    sites = [f"{layer}.attn.{kind}" for layer in layers for kind in "qk"]
    # Record inside the block: the values after the circuit's edits.
    with circuit.edge_masks.applied(circuit.gates[None]), transformer.recorded(sites) as values:
        transformer.state(batch.tokens)
    if not heads:
        return batch.tokens.new_zeros(0, *batch.tokens.shape).float()
    return torch.stack([_pattern(circuit, values, batch, layer, head) for layer, head in heads])


def _pattern(
    circuit: CircuitOnModel, values: dict[str, Tensor], batch: TokenizedPairs, layer: int, head: int
) -> Tensor:
    """Return the attention of one head from the last tokens, (N, T).

    Args:
        circuit: the circuit with its model.
        values: recorded queries and keys of its layer, by site.
        batch: the prompts.
        layer: number of the layer.
        head: number of the head.
    """
    attention = circuit.edge_masks.transformer.get_submodule(f"blocks.{layer}.attn")
    assert isinstance(attention, Attention)
    channels = slice(head * attention.d_head, (head + 1) * attention.d_head)
    q, k = (values[f"{layer}.attn.{kind}"][..., channels] for kind in "qk")
    prompts = torch.arange(len(batch.last_positions), device=q.device)
    last_query = q[prompts, batch.last_positions]  # (N, K)
    scores: Tensor = (k @ last_query[:, :, None])[..., 0] * attention.scale
    positions = torch.arange(scores.shape[1], device=scores.device)
    is_visible = positions <= batch.last_positions[:, None]
    if attention.window is not None:
        is_visible &= positions > batch.last_positions[:, None] - attention.window
    scores = scores.masked_fill(~is_visible, -torch.inf)
    if attention.sink is None:
        return scores.softmax(-1)
    sink = attention.sink[head].expand(len(scores), 1)
    return torch.cat([scores, sink], -1).softmax(-1)[:, :-1]
