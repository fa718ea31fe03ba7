"""The transformer a second time, one mask and one node at a time: an oracle for ablation.

Written from the weights by name in float64, with none of the library's sites, edits or kernels.
A node that is left out rests at its mean; an edge that is left out gives its target the mean of
what it reads (a v channel is read through its head's output, site `attn.y`).
Covers RMSNorm, sinks, biases, windows, AbsTopK, concatenated positions and the bigram table.
Shapes: B sequences of T tokens, D read channels, K channels of a head, V vocabulary.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wirework.model import Model
from wirework.tasks import TokenizedPairs

Node = tuple[str, int]
Wire = tuple[Node, Node]
"""An edge by its two nodes."""


@dataclass(frozen=True)
class Left:
    """What is left out of a pass, and what stands in for it."""

    nodes: Collection[Node] = ()
    wires: Collection[Wire] = ()
    means: Mapping[str, Tensor] = field(default_factory=dict)
    """Site, `attn.y` included, to (width,) float64."""


NOTHING = Left()


class PlainModel:
    """Weights by name in float64."""

    def __init__(self, model: Model) -> None:
        self.config = model.config
        self.weights = {k: w.double() for k, w in model.transformer.state_dict().items()}
        self.margin = math.inf
        """Since it was set: least gap between the last entry that AbsTopK kept and the next."""

    def loss(self, rows: TokenizedPairs, left: Left = NOTHING) -> float:
        """Return the task loss in nats: cross-entropy of the right answer among the two."""
        total = 0.0
        for end in sorted(set(rows.last_positions.tolist())):
            some = rows.last_positions == end
            logits, _ = self.run(rows.tokens[some, : end + 1], left)
            for line, (right, wrong) in zip(logits, rows.answers[some].tolist(), strict=True):
                total += math.log1p(math.exp(float(line[wrong] - line[right])))
        return total / len(rows.last_positions)

    def means(self, batches: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return each site's mean over all tokens of the batches, each (B, T)."""
        passes = [self.run(batch)[1] for batch in batches]
        return {
            site: torch.cat([one[site].flatten(0, 1) for one in passes]).mean(0)
            for site in passes[0]
        }

    def run(self, tokens: Tensor, left: Left = NOTHING) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits (B, V) after the last of tokens (B, T), and each site's (B, T, width)."""
        values: dict[str, Tensor] = {}
        x = self.weights["embed.weight"][tokens]
        for layer in range(self.config.n_layer):
            x = x + self._attention(x, layer, left, values)
            x = x + self._mlp(x, layer, left, values)
        state = self._rms(x[:, -1], "norm")
        logits = state @ self.weights["unembed.weight"].T
        if self.config.bigram:
            logits = logits + self.weights["bigram"][tokens[:, -1]]
        return logits, values

    def _attention(self, x: Tensor, layer: int, left: Left, values: dict[str, Tensor]) -> Tensor:
        name = f"{layer}.attn"
        read = self._site(f"{name}.act_in", self._read(x, layer, 1), left, values)
        rows, biases = (part.chunk(3) for part in self._linear(f"{name}.qkv"))
        for i, part in enumerate("qkv"):
            link = (f"{name}.act_in", f"{name}.{part}")
            made = _product(read, rows[i], biases[i], link, left)
            self._site(f"{name}.{part}", made, left, values)
        heads = [self._head(values, layer, head) for head in range(self.config.n_head)]
        y = self._site(f"{name}.y", torch.cat(heads, -1), left, values)
        link = (f"{name}.v", f"{name}.resid_delta")
        out = _product(y, *self._linear(f"{name}.out"), link, left)
        return self._site(f"{name}.resid_delta", out, left, values)

    def _head(self, values: Mapping[str, Tensor], layer: int, head: int) -> Tensor:
        """Return what one head gives, (B, T, K)."""
        width = self.config.d_head
        mine = slice(head * width, (head + 1) * width)
        q, k, v = (values[f"{layer}.attn.{part}"][..., mine] for part in "qkv")
        length, windows = q.shape[1], self.config.attention_windows
        window = (windows[layer] if windows else None) or length
        apart = torch.arange(length)[:, None] - torch.arange(length)
        scores = (q @ k.mT / math.sqrt(width)).exp() * ((apart >= 0) & (apart < window))
        total = scores.sum(-1, keepdim=True)
        if self.config.sinks:
            total = total + self.weights[f"blocks.{layer}.attn.sink"][head].exp()
        return scores @ v / total

    def _mlp(self, x: Tensor, layer: int, left: Left, values: dict[str, Tensor]) -> Tensor:
        name = f"{layer}.mlp"
        into, within, out_of = (f"{name}.{part}" for part in ("act_in", "post_act", "resid_delta"))
        read = self._site(into, self._read(x, layer, 2), left, values)
        hidden = _product(read, *self._linear(f"{name}.up"), (into, within), left)
        if self.config.activation == "relu":
            hidden = hidden.clamp(min=0)
        else:
            hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        hidden = self._site(within, hidden, left, values)
        out = _product(hidden, *self._linear(f"{name}.down"), (within, out_of), left)
        return self._site(out_of, out, left, values)

    def _linear(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"blocks.{name}.weight"], self.weights[f"blocks.{name}.bias"]

    def _read(self, x: Tensor, layer: int, which: int) -> Tensor:
        """Return what a sublayer reads: the normed stream, normed positions beside it."""
        normed = self._rms(x, f"blocks.{layer}.norm{which}")
        if self.config.positions != "concat":
            return normed
        beside = self.weights["positions.weight"][: x.shape[1]].expand(len(x), -1, -1)
        return torch.cat([normed, self._rms(beside, f"blocks.{layer}.pos_norm{which}")], -1)

    def _rms(self, x: Tensor, gain: str) -> Tensor:
        """Divide by the root mean square; the usual epsilon is that of the library's float32."""
        eps = self.config.norm_eps or torch.finfo(torch.float32).eps
        squares = x.square().mean(-1, keepdim=True) + eps
        out: Tensor = x / squares.sqrt() * self.weights[f"{gain}.weight"]
        return out

    def _site(self, site: str, x: Tensor, left: Left, values: dict[str, Tensor]) -> Tensor:
        """AbsTopK, then the nodes left out, one by one."""
        k = self.config.site_k(site.split(".", 1)[1])
        x = x.clone() if k is None else self._select(x, k)
        for where, channel in left.nodes:
            if where == site:
                x[..., channel] = left.means[site][channel]
        values[site] = x
        return x

    def _select(self, x: Tensor, k: int) -> Tensor:
        """Keep the k entries of largest magnitude of each row, ties to the lower index."""
        sizes, order = x.abs().sort(dim=-1, descending=True, stable=True)
        self.margin = min(self.margin, float((sizes[..., k - 1] - sizes[..., k]).min()))
        kept = order[..., :k]
        return torch.zeros_like(x).scatter(-1, kept, x.gather(-1, kept))


def _product(
    read: Tensor, matrix: Tensor, bias: Tensor, link: tuple[str, str], left: Left
) -> Tensor:
    """Return (B, T, targets) of what is read (B, T, D), from a source site to a target site."""
    out = read @ matrix.T + bias
    baseline = link[0].removesuffix("v") + "y" if link[0].endswith(".v") else link[0]
    for (source, i), (target, j) in left.wires:
        if (source, target) == link:
            out[..., j] += matrix[j, i] * (left.means[baseline][i] - read[..., i])
    return out
