"""Controls of steering: the same changes along other directions, of equal size.

Shapes: P pairs (two prompts each), T tokens, M nodes, D width of the model that is steered.
"""

from collections.abc import Collection, Sequence
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
    """Return for each node one of another channel at its location, all of a location distinct.

    Args:
        nodes: the nodes.
        width: width of the sparse model.
        generator: draws the channels.
        beside: other nodes, whose channels are left out too where enough remain.

    Raises:
        InputError: a location has too few other channels.
    """
    drawn: list[ReadingNode] = []
    for location, own in _grouped(nodes).items():
        taken = {node.index for node in own}
        left_out = taken | {node.index for node in beside if node.location == location}
        free = _free(left_out if width - len(left_out) >= len(own) else taken, width)
        if len(free) < len(own):
            raise InputError(
                f"{len(own)} nodes of one location leave {len(free)} of {width} channels for a "
                "control: give fewer"
            )
        chosen = free[torch.randperm(len(free), generator=generator)[: len(own)]].tolist()
        drawn += [replace(node, index=index) for node, index in zip(own, chosen, strict=True)]
    by_location = {location: iter(group) for location, group in _grouped(drawn).items()}
    return [next(by_location[node.location]) for node in nodes]


def _grouped(nodes: Sequence[ReadingNode]) -> dict[int, list[ReadingNode]]:
    """Return nodes by location."""
    groups: dict[int, list[ReadingNode]] = {}
    for node in nodes:
        groups.setdefault(node.location, []).append(node)
    return groups


def _free(taken: Collection[int], width: int) -> Tensor:
    return torch.tensor([index for index in range(width) if index not in taken])
