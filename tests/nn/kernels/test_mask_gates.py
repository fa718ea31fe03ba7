"""Mean ablation under trained masks, against torch's own operations."""

import torch

from wirework.nn.kernels.mask_gates import ablated, can_be_ablated


def inputs(tokens: int = 150) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, tokens, 20, generator=generator).requires_grad_()
    gates = torch.rand(3, 20, generator=generator).round(decimals=1).requires_grad_()
    return x, gates, torch.randn(20, generator=generator)


def test_by_hand() -> None:
    x = torch.tensor([[[2.0, 3.0], [4.0, 5.0]]], requires_grad=True)
    gates = torch.tensor([[1.0, 0.0]], requires_grad=True)
    mean = torch.tensor([10.0, 20.0])
    out = ablated(x, gates, mean)
    assert out.tolist() == [[[2, 20], [4, 20]]]
    (out * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert x.grad is not None
    assert gates.grad is not None
    assert x.grad.tolist() == [[[1, 0], [3, 0]]]
    # 1 (2 - 10) + 3 (4 - 10), and 2 (3 - 20) + 4 (5 - 20)
    assert gates.grad.tolist() == [[-26, -94]]


def test_values_and_gradients_are_those_of_torch() -> None:
    ours, theirs = inputs(), inputs()
    weights = torch.randn(3, 150, 20, generator=torch.Generator().manual_seed(1))
    found = ablated(*ours)
    x, gates, mean = theirs
    expected = x * gates[:, None] + (1 - gates)[:, None] * mean
    torch.testing.assert_close(found, expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours[0].grad, x.grad)
    torch.testing.assert_close(ours[1].grad, gates.grad, rtol=1e-5, atol=1e-5)


def test_only_trained_gates_in_float32() -> None:
    x, gates, mean = inputs(2)
    assert can_be_ablated(x, gates, mean)
    assert not can_be_ablated(x, gates.detach(), mean)
    assert not can_be_ablated(x.double(), gates, mean)
    assert not can_be_ablated(x, gates, mean.clone().requires_grad_())
