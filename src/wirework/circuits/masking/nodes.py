"""Numbering of a model's nodes: flat index 0 to N - 1 for every (site, channel).

Sites are in execution order, and channels of a site in order. A mask over a model is one tensor
(..., N) with one entry per node; `NodeSpace` splits it into one tensor per site and joins such
tensors again. Source: Gao et al. 2025, App. A.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.node_names import node_name


@dataclass(frozen=True)
class NodeSpace:
    """The sites whose channels are nodes."""

    widths: Mapping[str, int]
    """Site to number of channels, in execution order."""

    @classmethod
    def of(cls, transformer: Transformer) -> "NodeSpace":
        """Return the node space of a transformer."""
        sites = transformer.sites
        return cls({name: sites[name].width for name in transformer.node_sites})

    @property
    def size(self) -> int:
        """N, the number of nodes of all sites."""
        return sum(self.widths.values())

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Split (..., N) into a view (..., width) per site."""
        parts = torch.split_with_sizes(values, list(self.widths.values()), -1)
        return dict(zip(self.widths, parts, strict=True))

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Concatenate per-site tensors (..., width) into (..., N)."""
        return torch.cat([parts[name] for name in self.widths], -1)

    def locate(self, flat: Tensor) -> list[tuple[str, int]]:
        """Return the (site, channel) of each flat node index (1-d int64)."""
        boundaries = [0, *accumulate(self.widths.values())]
        names = list(self.widths)
        sites = torch.bucketize(flat.cpu(), torch.tensor(boundaries[1:]), right=True).tolist()
        return [
            (names[site], index - boundaries[site])
            for site, index in zip(sites, flat.tolist(), strict=True)
        ]

    def channels(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the channels of flat node indices (1-d int64, ascending) at each site."""
        ends = torch.tensor([*accumulate(self.widths.values())])
        n_before = torch.searchsorted(flat, ends).tolist()
        starts = [0, *ends.tolist()]
        parts = zip(self.widths, starts, [0, *n_before], n_before, strict=False)
        return {name: flat[first:end] - start for name, start, first, end in parts}

    def tie_qk(self) -> Tensor:
        """Return (N,) int64, the gate index of each node if q and k of a channel share a gate."""
        n_gates = 0
        gate_of_node: dict[str, Tensor] = {}
        for name, width in self.widths.items():
            if name.endswith(".attn.k"):
                gate_of_node[name] = gate_of_node[name.removesuffix("k") + "q"]
            else:
                gate_of_node[name] = torch.arange(n_gates, n_gates + width)
                n_gates += width
        return self.join(gate_of_node)

    def gates(self, nodes: Mapping[str, Sequence[int]]) -> Tensor:
        """Return the mask of some nodes: (N,) float32, 1 at these nodes and 0 elsewhere.

        Args:
            nodes: site to channels.

        Raises:
            InputError: the model has no such node.
        """
        values = torch.zeros(self.size)
        parts = self.split(values)
        for name, channels in nodes.items():
            if (last := max(channels, default=-1)) >= self.widths.get(name, 0):
                raise InputError(f"the model has no node {node_name(name, last)}")
            parts[name][list(channels)] = 1
        return values
