"""Mutations of safetensors files and of PyTorch's `.pt`."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from mutation import DoesNotApply, Mutation, rewritten

Header = dict[str, Any]


def _split(content: bytes) -> tuple[Header, bytes]:
    try:
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
    except (ValueError, struct.error):
        raise DoesNotApply from None
    return header, content[8 + size :]


def _joined(header: Header, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def _of_header(change: Callable[[Header, str, Random], None]) -> Any:
    """Return a change of what the header says of one tensor."""

    def apply(content: bytes, generator: Random) -> bytes:
        header, body = _split(content)
        names = sorted(name for name in header if name != "__metadata__")
        if not names:
            raise DoesNotApply
        change(header, generator.choice(names), generator)
        return _joined(header, body)

    return apply


def _set(key: str, *others: Any) -> Any:
    def change(header: Header, name: str, generator: Random) -> None:
        header[name] = header[name] | {key: generator.choice(others)}

    return _of_header(change)


def _moved(header: Header, name: str, generator: Random) -> None:
    """Let a tensor begin elsewhere, as long as before: it overlaps another or ends outside."""
    start, end = header[name]["data_offsets"]
    by = generator.choice([-4, 4, 10**9, -(10**9)])
    header[name] = header[name] | {"data_offsets": [start + by, end + by]}


def _renamed(header: Header, name: str, generator: Random) -> None:
    header[generator.choice([f"module.{name}", f"_orig_mod.{name}", f"{name}\ud800"])] = header.pop(
        name
    )


def _shape_swapped(header: Header, name: str, _: Random) -> None:
    shape = header[name]["shape"]
    if shape == shape[::-1]:
        raise DoesNotApply
    header[name] = header[name] | {"shape": shape[::-1]}


def _metadata(*others: Any) -> Any:
    def apply(content: bytes, generator: Random) -> bytes:
        header, body = _split(content)
        return _joined(header | {"__metadata__": generator.choice(others)}, body)

    return apply


def _length(*sizes: int) -> Any:
    return lambda content, generator: struct.pack("<Q", generator.choice(sizes)) + content[8:]


def _of_tensors(change: Callable[[dict[str, Any], str, Random], None]) -> Any:
    """Return a change of the tensors themselves, the file being written anew."""

    def apply(path: Path, generator: Random) -> None:
        tensors, write = _opened(path)
        if not tensors:
            raise DoesNotApply
        change(tensors, generator.choice(sorted(tensors)), generator)
        write(tensors)

    return apply


def _opened(path: Path) -> tuple[dict[str, Any], Callable[[dict[str, Any]], None]]:
    """Return a file's tensors and what writes others in their place."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(path, "pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, lambda made: save_file(
            {name: tensor.contiguous() for name, tensor in made.items()}, path, header
        )
    import torch

    state = torch.load(path, weights_only=True)
    return dict(state), lambda made: torch.save(made, path)


def _dropped(tensors: dict[str, Any], name: str, _: Random) -> None:
    del tensors[name]


def _all_dropped(tensors: dict[str, Any], _: str, __: Random) -> None:
    tensors.clear()


def _added(tensors: dict[str, Any], name: str, generator: Random) -> None:
    tensors[generator.choice(["extra.weight", f"{name}.copy", "transformer.h.99.ln_1.weight"])] = (
        tensors[name].clone()
    )


def _not_finite(tensors: dict[str, Any], name: str, generator: Random) -> None:
    if not tensors[name].is_floating_point() or not tensors[name].numel():
        raise DoesNotApply
    made = tensors[name].clone()
    made.view(-1)[generator.randrange(made.numel())] = generator.choice(
        [float("nan"), float("inf")]
    )
    tensors[name] = made


def _as_type(tensors: dict[str, Any], name: str, generator: Random) -> None:
    import torch

    kinds = [torch.int8, torch.int64, torch.bool, torch.complex64, torch.float64, torch.float16]
    before = tensors[name]
    tensors[name] = before.to(generator.choice([k for k in kinds if k != before.dtype]))


def _transposed(tensors: dict[str, Any], name: str, _: Random) -> None:
    if tensors[name].dim() != 2 or tensors[name].shape[0] == tensors[name].shape[1]:
        raise DoesNotApply
    tensors[name] = tensors[name].t().contiguous()


def _flattened(tensors: dict[str, Any], name: str, _: Random) -> None:
    tensors[name] = tensors[name].reshape(1, -1).contiguous()


def _shortened(tensors: dict[str, Any], name: str, _: Random) -> None:
    if not tensors[name].dim() or not len(tensors[name]):
        raise DoesNotApply
    tensors[name] = tensors[name][:-1].contiguous()


def _prefixed(tensors: dict[str, Any], _: str, generator: Random) -> None:
    prefix = generator.choice(["module.", "_orig_mod."])
    held = dict(tensors)
    tensors.clear()
    tensors.update({prefix + name: tensor for name, tensor in held.items()})


_TENSORS = {
    "dropped": (_dropped, True),
    "all_dropped": (_all_dropped, True),
    "added": (_added, True),
    "not_finite": (_not_finite, True),
    "other_type": (_as_type, False),
    "transposed": (_transposed, True),
    "flattened": (_flattened, True),
    "shortened": (_shortened, True),
    "prefixed": (_prefixed, True),
}

_HEADER = {
    "length_huge": (_length(2**63, 2**40, 10**9), True),
    "length_small": (_length(0, 1, 7, 64), True),
    "header_offsets": (_set("data_offsets", [0, 0], [4, 0], [-1, 3], [0, 2**62], [0], "x"), True),
    "header_moved": (_of_header(_moved), True),
    "header_dtype": (_set("dtype", "I8", "F64", "BOOL", "C64", "X9", None, "F4"), True),
    "header_shape": (_set("shape", [], [0], [-1], [2**62, 2**62], [10**12], "x", [1.5]), True),
    "header_shape_swapped": (_of_header(_shape_swapped), True),
    "header_renamed": (_of_header(_renamed), True),
    "header_metadata": (_metadata(None, [], {"format": 3}, {"format": "\ud800"}, "x", {}), False),
    "trailing_bytes": (lambda content, generator: content + generator.randbytes(16), True),
}

SAFETENSORS = tuple(
    Mutation(f"tensor_{name}", _of_tensors(change), loud)
    for name, (change, loud) in _TENSORS.items()
) + tuple(
    Mutation(f"safetensors_{name}", rewritten(change), loud)
    for name, (change, loud) in _HEADER.items()
)


class _Canary:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch canary",)


def _pickled(value: Any) -> Any:
    def apply(path: Path, _: Random) -> None:
        import torch

        torch.save(value, path)

    return apply


PT = (
    *(
        Mutation(f"tensor_{name}", _of_tensors(change), loud)
        for name, (change, loud) in _TENSORS.items()
    ),
    Mutation("pt_code", _pickled({"a": _Canary()}), loud=True),
    Mutation("pt_plain_pickle", rewritten(lambda *_: pickle.dumps({"a": _Canary()})), loud=True),
    Mutation("pt_list", _pickled([1, 2]), loud=True),
    Mutation("pt_numbers", _pickled({"a": 1}), loud=True),
    Mutation("pt_odd_keys", _pickled({1: 2}), loud=True),
)
