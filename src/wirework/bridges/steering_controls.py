"""Controls of steering: the same changes along other directions, of equal size.

Shapes: P pairs (two prompts each), T tokens, M nodes, D width of the model that is steered.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from wirework.bridges.directions import ReadingNode
from wirework.bridges.perturbations import Perturbation
from wirework.errors import InputError


def of_equal_size(added: Perturbation, like: Perturbation) -> dict[int, Tensor]:
    """Return a perturbation whose vectors have, at each location and token, another one's length.

    Args:
        added: the perturbation, (2P, T, D) by location.
        like: that with the lengths.
    """
    tiny = torch.finfo(next(iter(added.values())).dtype).tiny
    return {
        location: value
        / value.norm(dim=-1, keepdim=True).clamp(min=tiny)
        * like[location].norm(dim=-1, keepdim=True)
        for location, value in added.items()
    }


def other_channels(
    nodes: Sequence[ReadingNode],
    width: int,
    generator: torch.Generator,
    beside: Sequence[ReadingNode] = (),
) -> list[ReadingNode]:
    """Return for each node one of another channel at its location, all channels distinct.

    Args:
        nodes: the nodes.
        width: width of the sparse model.
        generator: draws the channels.
        beside: other nodes whose channels are left out too.

    Raises:
        InputError: the model has too few other channels.
    """
    taken = {node.index for node in (*nodes, *beside)}
    free = torch.tensor([index for index in range(width) if index not in taken])
    if len(free) < len(nodes):
        raise InputError(
            f"{len(taken)} nodes leave {len(free)} of {width} channels for a control of "
            f"{len(nodes)}"
        )
    drawn = free[torch.randperm(len(free), generator=generator)[: len(nodes)]].tolist()
    return [replace(node, index=index) for node, index in zip(nodes, drawn, strict=True)]
