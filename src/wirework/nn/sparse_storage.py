"""Storage of sparse tensors as indices and values: 8 bytes a nonzero entry, not 4 bytes an entry.

A tensor `w` becomes `w.indices` (int32 or int64 flat indices, ascending), `w.values` and `w.shape`.
The storage is exact to the bit, also for negative zeros.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_KINDS = {
    ".indices": (torch.int32, torch.int64),
    ".values": (torch.float32,),
    ".shape": (torch.int64,),
}
_PARTS = tuple(_KINDS)


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with float32 tensors stored sparsely where that is smaller."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        flat = tensor.detach().cpu().contiguous().view(-1)
        places = flat.view(torch.int32).nonzero().view(-1) if _may_pack(flat) else None
        if places is None or 2 * len(places) + 4 * tensor.dim() >= flat.numel():
            packed[name] = flat.view(tensor.shape)
            continue
        small = flat.numel() <= 2**31
        packed[name + ".indices"] = places.to(torch.int32) if small else places
        packed[name + ".values"] = flat[places]
        packed[name + ".shape"] = torch.tensor(tensor.shape)
    return packed


def unpack(
    packed: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """Return the dense state that was passed to `pack`.

    Args:
        packed: result of `pack`.
        expected: shape of each tensor of the state. The stored shape of a sparse tensor is compared
            with it before the dense tensor is allocated, so that a wrong shape takes no memory.

    Raises:
        ValueError: a sparse tensor lacks a part, or has parts of the wrong kind, another shape than
            expected, or indices out of order or out of range.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        base = name.removesuffix(".indices")
        if base != name:
            state[base] = _unpack_one(base, packed, expected.get(base))
        elif not name.endswith(_PARTS):
            state[name] = tensor
        elif name[: name.rindex(".")] + ".indices" not in packed:
            raise ValueError(f"tensor {name} has no indices")
    return state


def _may_pack(flat: Tensor) -> bool:
    return flat.dtype == torch.float32 and flat.numel() > 0


def _unpack_one(name: str, packed: Mapping[str, Tensor], expected: Sequence[int] | None) -> Tensor:
    missing = [part for part in _PARTS if name + part not in packed]
    if missing:
        raise ValueError(f"tensor {name} has no {missing[0][1:]}")
    for part, kinds in _KINDS.items():
        tensor = packed[name + part]
        if tensor.dtype not in kinds or tensor.dim() != 1:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(
                f"{name}{part} is {kind} {tuple(tensor.shape)}, "
                f"expected a row of {' or '.join(str(k).removeprefix('torch.') for k in kinds)}"
            )
    places, values, shape = (packed[name + part] for part in _PARTS)
    if expected is None:
        raise ValueError(f"tensor {name} is unknown")
    if shape.tolist() != list(expected):
        raise ValueError(
            f"tensor {name} is {tuple(shape.tolist())}, the config says {tuple(expected)}"
        )
    dense = torch.zeros(tuple(expected), dtype=values.dtype)
    places = places.long()
    if places.shape != values.shape or (len(places) and not _ascending(places, dense.numel())):
        raise ValueError(f"tensor {name} has indices that do not fit its shape {shape.tolist()}")
    dense.view(-1)[places] = values
    return dense


def _ascending(places: Tensor, size: int) -> bool:
    return bool(places[0] >= 0 and places[-1] < size and (places.diff() > 0).all())
