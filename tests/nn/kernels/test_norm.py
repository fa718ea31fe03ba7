"""RMSNorm against PyTorch's, by gradcheck, and in narrow types."""

import pytest
import torch
import torch.nn.functional as F
from present import present

from wirework.nn.kernels.norm import RMSNorm


def norm_and_input(
    dtype: torch.dtype, eps: float | None, shape: tuple[int, ...] = (3, 4, 7)
) -> tuple[RMSNorm, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    norm = RMSNorm(shape[-1], eps).to(dtype)
    norm.weight.data.copy_(torch.randn(shape[-1], generator=generator))
    return norm, torch.randn(shape, generator=generator).to(dtype).requires_grad_()


def test_worked_by_hand():
    norm = RMSNorm(2, eps=1.0)
    norm.weight.data.copy_(torch.tensor([1.0, 10.0]))
    out = norm(torch.tensor([[1.0, -7.0], [0.0, 0.0]]))  # mean square 25, 26 with eps
    torch.testing.assert_close(out, torch.tensor([[1 / 26**0.5, -70 / 26**0.5], [0.0, 0.0]]))


@pytest.mark.parametrize("eps", [None, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 4, 7), (5, 1), (2, 600)])
@pytest.mark.parametrize("piece", [1, 40, 1 << 19])
def test_values_and_gradients_are_pytorchs(eps, dtype, shape, piece, monkeypatch):
    monkeypatch.setattr("wirework.nn.kernels.norm._PIECE", piece)
    norm, x = norm_and_input(dtype, eps, shape)
    out, expected = norm(x), F.rms_norm(x, shape[-1:], norm.weight, eps)
    torch.testing.assert_close(out, expected)
    slope = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    got = torch.autograd.grad(out, (x, norm.weight), slope)
    aim = torch.autograd.grad(expected, (x, norm.weight), slope)
    for a, b in zip(got, aim, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=1e-5)


@pytest.fixture(params=[True, False], ids=["compiled", "torch"])
def _way(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr("wirework.nn.kernels.norm._is_compiled", lambda *_: False)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("shape", [(1, 1, 5), (255, 9), (3, 171, 33), (1000, 64)])
def test_both_ways_are_float64s_to_rounding(shape):
    norm, x = norm_and_input(torch.float32, None, shape)
    slope = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(norm(x), (x, norm.weight), slope)
    exact, gain = (t.detach().double().requires_grad_() for t in (x, norm.weight))
    expected = F.rms_norm(exact, shape[-1:], gain, torch.finfo(torch.float32).eps)
    torch.testing.assert_close(norm(x).double(), expected, atol=1e-6, rtol=1e-6)
    aim = torch.autograd.grad(expected, (exact, gain), slope.double())
    n_rows = x.numel() // shape[-1]
    for a, b, atol in zip(got, aim, (3e-6, 1e-7 * n_rows), strict=True):
        torch.testing.assert_close(a.double(), b, atol=atol, rtol=3e-6)


def test_bits_depend_neither_on_other_rows_nor_on_threads():
    norm, x = norm_and_input(torch.float32, None, (2100, 300))
    whole = norm(x)
    assert torch.equal(norm(x[700:701]), whole[700:701])
    before, results = torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(
                [norm(x), *torch.autograd.grad(norm(x).square().sum(), (x, norm.weight))]
            )
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_rows_and_gradients_that_do_not_follow_each_other():
    norm, x = norm_and_input(torch.float32, None, (6, 5, 8))
    wanted = norm(x)
    assert torch.equal(norm(x.transpose(0, 1)), wanted.transpose(0, 1))
    slope = torch.randn(8, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(norm(x), x, slope.expand(6, 5, 8))
    (aim,) = torch.autograd.grad(wanted, x, slope.expand(6, 5, 8).contiguous())
    assert torch.equal(found, aim)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_epsilon_is_that_of_the_dtype(dtype):
    x = torch.full((1, 4), 1e-6, dtype=dtype)
    torch.testing.assert_close(RMSNorm(4).to(dtype)(x), F.rms_norm(x, (4,)))


def test_gradcheck():
    norm, x = norm_and_input(torch.float64, 1e-6)

    def apply(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, {"weight": gain}, (x,))

    assert torch.autograd.gradcheck(apply, (x, norm.weight))


def test_second_derivative_raises_instead_of_being_wrong():
    norm, x = norm_and_input(torch.float64, None)
    (first,) = torch.autograd.grad(norm(x).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_computed_in_float32(dtype):
    norm, x = norm_and_input(dtype, None)
    large = (1000 * x.detach()).requires_grad_()  # squares overflow float16
    out, expected = norm(large), F.rms_norm(large.float(), (7,), norm.weight.float())
    assert out.dtype == dtype
    assert torch.equal(out, expected.to(dtype))
    out.float().square().sum().backward()
    assert present(large.grad).dtype == dtype
    assert present(large.grad).isfinite().all()


def test_under_autocast_float32_comes_out_in_autocasts_dtype():
    norm, x = norm_and_input(torch.float32, None)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, norm(x).bfloat16())
    out.float().sum().backward()
    assert present(x.grad).dtype == torch.float32
