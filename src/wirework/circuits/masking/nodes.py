"""Indexing of a model's nodes: flat index 0 to N - 1 <-> (site, channel), in execution order.

A mask over a model is one tensor (..., N) with one entry per node of every site. `NodeSpace` splits
it into one tensor per site and joins such tensors again. Source: Gao et al. 2025, App. A.5.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from wirework.nn import Transformer


@dataclass(frozen=True)
class NodeSpace:
    """Names and widths of the sites whose channels are nodes, in execution order."""

    widths: Mapping[str, int]

    @classmethod
    def of(cls, transformer: Transformer) -> "NodeSpace":
        """Return the nodes of a transformer."""
        sites = transformer.sites
        return cls({name: sites[name].width for name in transformer.node_sites})

    @property
    def size(self) -> int:
        """N, the number of nodes of all sites."""
        return sum(self.widths.values())

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Return one view of (..., N) per site, each (..., width)."""
        parts = torch.split_with_sizes(values, list(self.widths.values()), -1)
        return dict(zip(self.widths, parts, strict=True))

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Concatenate per-site tensors (..., width) into (..., N)."""
        return torch.cat([parts[name] for name in self.widths], -1)

    def locate(self, flat: Tensor) -> list[tuple[str, int]]:
        """Return the (site, channel) of each flat node index (1-d int64)."""
        starts = [0, *accumulate(self.widths.values())]
        names = list(self.widths)
        ends = torch.tensor(starts[1:])
        which = torch.bucketize(flat.cpu(), ends, right=True).tolist()
        return [(names[w], i - starts[w]) for w, i in zip(which, flat.tolist(), strict=True)]

    def tie_qk(self) -> Tensor:
        """Return (N,) int64, the gate index of each node when q and k of a channel share a gate."""
        gate = 0
        gate_of_node: dict[str, Tensor] = {}
        for name, width in self.widths.items():
            if name.endswith(".attn.k"):
                gate_of_node[name] = gate_of_node[name.removesuffix("k") + "q"]
            else:
                gate_of_node[name] = torch.arange(gate, gate + width)
                gate += width
        return self.join(gate_of_node)

    def gates(self, nodes: Mapping[str, list[int]]) -> Tensor:
        """Return (N,) float32, 1 at the given channels of each site and 0 elsewhere."""
        values = torch.zeros(self.size)
        parts = self.split(values)
        for name, channels in nodes.items():
            parts[name][channels] = 1
        return values
