"""KL divergence in pieces against torch's own, value and gradients."""

import pytest
import torch
import torch.nn.functional as F
from present import present
from torch import Tensor

from wirework.nn.kernels import kl_loss as kernel
from wirework.nn.kernels.kl_loss import kl_loss
from wirework.nn.kernels.linear import Linear

R, N, D, V = 2, 10, 4, 7


def slow_kl(log_probs: Tensor, states: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """Return the same sum of KL divergences by torch's function, on whole logits."""
    logs = [(state @ weight.T + offsets).log_softmax(-1) for state in states]
    parts = [F.kl_div(log, log_probs, reduction="sum", log_target=True) / N for log in logs]
    return torch.stack(parts).sum()


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor, Linear, Tensor]:
    """Return log-probabilities, states, unembedding and offsets; the last piece is shorter."""
    monkeypatch.setattr(kernel, "_PIECE", 4)
    torch.manual_seed(0)
    log_probs = torch.randn(N, V, dtype=torch.float64).log_softmax(-1)
    states = torch.randn(R, N, D, dtype=torch.float64, requires_grad=True)
    unembed = Linear(D, V, bias=False, dtype=torch.float64)
    return log_probs, states, unembed, torch.randn(N, V, dtype=torch.float64, requires_grad=True)


def test_value_and_gradients_are_those_of_torch(case):
    log_probs, states, unembed, offsets = case
    expected = slow_kl(log_probs, states, unembed.weight, offsets)
    gradients = torch.autograd.grad(3 * 0.7 * expected, [states, unembed.weight, offsets])
    loss = kl_loss(log_probs, states, unembed, offsets, coef=0.7)
    torch.testing.assert_close(loss, 0.7 * expected)
    (3 * loss).backward()
    for tensor, gradient in zip([states, unembed.weight, offsets], gradients, strict=True):
        torch.testing.assert_close(present(tensor.grad), gradient)


def test_equal_probabilities_have_no_divergence(case):
    _, states, unembed, offsets = case
    log_probs = (states[0] @ unembed.weight.T + offsets).log_softmax(-1).detach()
    assert kl_loss(log_probs, states[:1], unembed, offsets).item() == pytest.approx(0, abs=1e-12)


def test_frozen_weights_pass_the_gradient_to_the_states(case):
    log_probs, states, unembed, _ = case
    unembed.requires_grad_(False)
    kl_loss(log_probs, states, unembed).backward()
    assert unembed.weight.grad is None
    assert present(states.grad).abs().sum() > 0


def test_without_gradients_the_value_is_the_same(case):
    log_probs, states, unembed, offsets = case
    with torch.no_grad():
        value = kl_loss(log_probs, states, unembed, offsets)
    assert not value.requires_grad
    torch.testing.assert_close(value, slow_kl(log_probs, states, unembed.weight, offsets))
