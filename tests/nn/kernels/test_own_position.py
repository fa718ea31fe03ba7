"""Against the definition: a score matrix whose diagonal comes from the other stream."""

import pytest
import torch
from torch import Tensor

from wirework.nn.kernels.own_position import _over_both, own_position_attention


def by_definition(
    q: Tensor, k: Tensor, v: Tensor, own_k: Tensor, own_v: Tensor,
    sink: Tensor | None, scale: float, window: int | None,
) -> Tensor:  # fmt: skip
    length = q.shape[-2]
    sees = torch.ones(length, length, dtype=torch.bool).tril()
    sees = sees if window is None else sees.triu(1 - window)
    own = torch.eye(length, dtype=torch.bool)
    scores = torch.where(own, q @ own_k.mT, q @ k.mT) * scale
    scores = scores.masked_fill(~sees, -torch.inf)
    if sink is not None:
        scores = torch.cat([scores, sink[:, None, None].expand(len(q), -1, length, 1)], -1)
    shares = scores.softmax(-1)[..., :length]
    return (shares * ~own) @ v + (shares * own).sum(-1, keepdim=True) * own_v


@pytest.mark.parametrize("with_sink", [False, True])
@pytest.mark.parametrize("window", [None, 1, 2, 5, 40])
@pytest.mark.parametrize("length", [1, 2, 17, 33])
def test_values_and_gradients(length: int, window: int | None, with_sink: bool) -> None:
    torch.manual_seed(length)
    given = [
        torch.randn(2, 3, length, 8, dtype=torch.float64, requires_grad=True) for _ in range(5)
    ]
    sink = torch.randn(3, dtype=torch.float64, requires_grad=True) if with_sink else None
    q, k, v, own_k, own_v = given
    found = own_position_attention(*given, sink=sink, scale=0.7, window=window)
    wanted = by_definition(q, k, v, own_k, own_v, sink, 0.7, window)
    given += [] if sink is None else [sink]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, given, grad),
        torch.autograd.grad(wanted, given, grad, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_scores_so_large_that_one_position_takes_all() -> None:
    torch.manual_seed(0)
    given = [torch.randn(1, 1, 9, 4) for _ in range(5)]
    given[0] *= 100
    found = own_position_attention(*given, scale=1.0)
    q, k, v, own_k, own_v = (x.double() for x in given)
    wanted = by_definition(q, k, v, own_k, own_v, None, 1.0, None)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


def test_autocast_changes_nothing() -> None:
    torch.manual_seed(0)
    given = [torch.randn(2, 2, 9, 4, requires_grad=True) for _ in range(5)]
    wanted = own_position_attention(*given)
    with torch.autocast("cpu", torch.bfloat16):
        found = own_position_attention(*given)
    assert torch.equal(found, wanted)
    for one, other in zip(
        torch.autograd.grad(found.sum(), given),
        torch.autograd.grad(wanted.sum(), given),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_its_dtype_is_that_of_the_queries() -> None:
    given = [torch.randn(1, 2, 5, 4).bfloat16() for _ in range(5)]
    assert own_position_attention(*given).dtype == torch.bfloat16


@pytest.mark.parametrize("with_sink", [False, True])
@pytest.mark.parametrize("window", [None, 1, 5])
def test_the_way_of_other_devices(window: int | None, with_sink: bool) -> None:
    torch.manual_seed(0)
    q, k, v, own_k, own_v = (torch.randn(2, 3, 17, 8, dtype=torch.float64) for _ in range(5))
    sink = torch.randn(3, dtype=torch.float64) if with_sink else None
    found = _over_both(q, k, v, own_k, own_v, sink, 0.7, window)
    torch.testing.assert_close(found, by_definition(q, k, v, own_k, own_v, sink, 0.7, window))
