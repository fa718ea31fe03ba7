"""Against torch's own normalisation, differentiated by autograd."""

import torch
import torch.nn.functional as F

from wirework.nn.kernels.unit_distance import unit_distance


def test_value_and_gradients() -> None:
    torch.manual_seed(0)
    pair = [torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    found = 3 * unit_distance(*pair)
    wanted = 3 * F.mse_loss(*(F.normalize(x, dim=-1) for x in pair))
    torch.testing.assert_close(found, wanted)
    for one, other in zip(
        torch.autograd.grad(found, pair), torch.autograd.grad(wanted, pair), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_streams_that_nearly_agree_do_not_cancel() -> None:
    x = torch.randn(5, 64)
    y = x + 1e-5 * torch.randn(5, 64)
    wanted = F.mse_loss(*(F.normalize(t.double(), dim=-1) for t in (x, y)))
    torch.testing.assert_close(unit_distance(x, y).double(), wanted, rtol=1e-2, atol=0)


def test_autocast_and_bfloat16_are_measured_in_float32() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 64).bfloat16().requires_grad_()
    y = (x + 0.01 * torch.randn(5, 64)).bfloat16().detach()
    with torch.autocast("cpu", torch.bfloat16):
        found = unit_distance(x, y)
    assert torch.equal(found, unit_distance(x.float(), y.float()))
    assert torch.autograd.grad(found, x)[0].dtype == torch.bfloat16


def test_a_token_of_zeros_is_no_nan() -> None:
    x, y = torch.zeros(2, 4, requires_grad=True), torch.ones(2, 4)
    unit_distance(x, y).backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
