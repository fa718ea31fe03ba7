"""Projection of many weight tensors on their own device, without a wait of the host.

It keeps the same entries as `Projection.keep_` on the CPU. Tensors of one shape are projected
together: the number of kernels depends on the number of shapes, not of layers. The number of kept
entries follows from k and the floor, and whether there is a NaN stays a flag on the device.
Source: Gao et al. 2025, sec. 2.1, App. A.2.
Shapes: G tensors of one shape, R rows, C columns; a bias is one row.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from wirework.nn.kernels.device_top_k import has_nan, largest, magnitude_keys

_MOST_ENTRIES = 1 << 26  # of tensors projected together: their keys take 256 MB, all work 1 GB


@torch.no_grad()
def keep_each_(
    weights: Sequence[Tensor],
    counts: Sequence[int],
    floors: Sequence[tuple[int, int | None]],
) -> Tensor:
    """Project each tensor to its largest entries, with a floor for every neuron.

    The `floor` largest entries of each neuron are kept first, then the largest of the others. Ties
    go to the lower flat index.

    Args:
        weights: (R, C) or (C,) contiguous float32, all on one device; changed in place.
        counts: entries to keep of each tensor, at most its size and no fewer than its floors hold.
        floors: fewest nonzeros of each neuron, and 0 if rows are neurons, 1 if columns are, None
            for no neurons.

    Returns:
        Bool scalar on the device: whether any tensor has a NaN. A NaN is always kept.
    """
    groups: dict[object, list[Tensor]] = defaultdict(list)
    for weight, count, floor in zip(weights, counts, floors, strict=True):
        groups[tuple(weight.shape), count, floor].append(weight)
    found_nan = []
    for (_, count, floor), group in groups.items():  # type: ignore[misc]
        most = max(1, _MOST_ENTRIES // group[0].numel())
        for start in range(0, len(group), most):
            found_nan.append(_keep_in_group_(group[start : start + most], count, *floor))
    return torch.stack(found_nan).any()


def _keep_in_group_(
    weights: Sequence[Tensor], count: int, floor: int, floor_dim: int | None
) -> Tensor:
    """Project tensors of one shape; return whether one has a NaN."""
    keys = magnitude_keys(torch.stack(list(weights)))  # (G, R, C) or (G, C)
    found_nan = has_nan(keys, torch.float32)
    flat = keys.flatten(1)
    if count == flat.shape[1]:
        return found_nan
    if floor and floor_dim is not None:
        by_neuron = keys if floor_dim == 0 else keys.transpose(1, 2)
        protected = largest(by_neuron, floor)
        # Above every other key, so that the choice of the others takes these first.
        by_neuron.masked_fill_(protected, torch.iinfo(keys.dtype).max)
    dropped = largest(flat, count).logical_not_().view_as(keys)
    for weight, part in zip(weights, dropped.unbind(), strict=True):
        weight.masked_fill_(part, 0)
    return found_nan
