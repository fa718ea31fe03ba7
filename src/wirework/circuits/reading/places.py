"""Places in the prompts of a task at which the nodes of a circuit are read.

Shapes: P pairs (two prompts each), T tokens of the longest prompt, k nodes of a site.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from wirework.circuits.masking.masked_circuit import MaskedCircuit
from wirework.tasks import TokenizedPairs
from wirework.tasks.deciding_tokens import deciding_tokens

Place = Literal["deciding", "between", "last", "rest"]
"""`deciding`: the tokens in which the two prompts of a pair differ. `between`: all tokens after
these and before the last one, where a circuit of two steps passes on which context it is. `last`:
the last token. `rest`: all others."""


@dataclass(frozen=True)
class Recorded:
    """Values of a circuit's nodes on a batch of pairs, everything outside at its mean over text."""

    batch: TokenizedPairs
    values: Mapping[str, Tensor]
    """Site to (2P, T, k), the values of its kept nodes."""
    channels: Mapping[str, Tensor]
    """Site to (k,) int64, the channels of its kept nodes."""
    places: Mapping[Place, Tensor]
    """(2P, T) bool, the tokens of each place; without a place that some prompt lacks."""
    in_prompt: Tensor
    """(2P, T) bool, False at padding."""

    @classmethod
    def of(cls, masked_circuit: MaskedCircuit, batch: TokenizedPairs) -> Self:
        """Run the circuit on a batch of pairs and record its nodes."""
        positions = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
        last = batch.last_positions[:, None]
        deciding = deciding_tokens(batch)
        places: dict[Place, Tensor] = {"deciding": deciding, "last": positions == last}
        last_deciding = (positions * deciding).amax(1, keepdim=True)
        between = (positions > last_deciding) & (positions < last)
        optional: dict[Place, Tensor] = {
            "between": between,
            "rest": (positions < last) & ~deciding & ~between,
        }
        places |= {name: mask for name, mask in optional.items() if bool(mask.any(1).all())}
        return cls(
            batch=batch,
            values=masked_circuit.values(batch),
            channels=masked_circuit.kept,
            places=places,
            in_prompt=positions <= last,
        )

    def means_at(self, site: str, place: Place) -> Tensor:
        """Return (2P, k), the mean value of each node over the tokens of a place, by prompt."""
        mask = self.places[place][..., None].to(self.values[site].dtype)
        return (self.values[site] * mask).sum(1) / mask.sum(1)

    def by_token(self, site: str, tokens: Tensor) -> Tensor:
        """Return (R, T, k), the average value of each node at the same token of these prompts.

        Args:
            site: the site.
            tokens: (R, T) int64. A token that these prompts do not hold has the average over all.
        """
        values = self.values[site][self.in_prompt].double()
        inside = self.batch.tokens[self.in_prompt]
        known, index = inside.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        sums = values.new_zeros(len(known), values.shape[1]).index_add_(0, index, values)
        means = sums / index.bincount(minlength=len(known))[:, None]
        row = torch.searchsorted(known, tokens.contiguous()).clamp(max=len(known) - 1)
        found = (known[row] == tokens)[..., None]
        return torch.where(found, means[row], values.mean(0)).to(self.values[site].dtype)

    def averages(self, site: str) -> Tensor:
        """Return (k,), the average value of each node over all tokens of all prompts."""
        values = self.values[site]
        return values[self.in_prompt].double().mean(0).to(values.dtype)
