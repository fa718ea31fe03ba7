"""Sparse storage of a state dict: exact, and every inconsistent part is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from wirework.nn.sparse_storage import pack, unpack

SHAPES = {"w": (4, 50), "d": (2, 3), "n": (100,)}


def state() -> dict[str, Tensor]:
    sparse = torch.zeros(4, 50)
    sparse[1, 3], sparse[3, 49], sparse[0, 0] = 2.5, -1.0, -0.0
    return {"w": sparse, "d": torch.ones(2, 3), "n": torch.zeros(100)}


def test_every_bit_comes_back() -> None:
    packed = pack(state())
    assert {"w.indices", "w.values", "w.shape", "d"} <= packed.keys()
    again = unpack(packed, SHAPES)
    assert again.keys() == SHAPES.keys()
    for name, tensor in state().items():
        assert torch.equal(again[name].view(torch.int32), tensor.view(torch.int32))


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("w.indices", torch.tensor([0.0, 53.0, 199.0]), "w.indices is float32"),
        ("w.indices", torch.tensor([0, 53, 99], dtype=torch.int8), "w.indices is int8"),
        ("w.indices", torch.tensor([[0, 53, 199]]), r"w.indices is int64 \(1, 3\)"),
        ("w.indices", torch.tensor([0, 53, 200]), "indices that do not fit"),
        ("w.indices", torch.tensor([53, 0, 199]), "indices that do not fit"),
        ("w.indices", torch.tensor([0, 0, 199]), "indices that do not fit"),
        ("w.indices", torch.tensor([-1, 0, 199]), "indices that do not fit"),
        ("w.indices", torch.tensor([0, 53]), "indices that do not fit"),
        ("w.values", torch.ones(3, dtype=torch.float64), "w.values is float64"),
        ("w.values", torch.ones(3, dtype=torch.int8), "w.values is int8"),
        ("w.values", torch.ones(3, dtype=torch.complex64), "w.values is complex64"),
        ("w.shape", torch.tensor([4.0, 50.0]), "w.shape is float32"),
        ("w.shape", torch.tensor([50, 4]), r"w is \(50, 4\), the config says \(4, 50\)"),
        ("w.shape", torch.tensor([10**12, 10**6]), "the config says"),
        ("w.shape", torch.tensor([-4, -50]), "the config says"),
        ("w.shape", None, "w has no shape"),
        ("w.values", None, "w has no values"),
        ("w.indices", None, "has no indices"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part: str, value: Any, says: str) -> None:
    packed = pack(state())
    if value is None:
        del packed[part]
    else:
        packed[part] = value
    with pytest.raises(ValueError, match=says):
        unpack(packed, SHAPES)


def test_a_sparse_tensor_that_nobody_expects_takes_no_memory() -> None:
    packed = pack(state())
    huge = {"x.indices": packed["w.indices"], "x.values": packed["w.values"]}
    huge["x.shape"] = torch.tensor([10**12, 10**6])
    with pytest.raises(ValueError, match="tensor x is unknown"):
        unpack(packed | huge, SHAPES)
