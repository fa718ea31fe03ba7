"""Against the dense masks, whose gradient is tested against the formula."""

import pytest
import torch
from torch import Tensor

from wirework.nn.kernels.linear import linear
from wirework.nn.kernels.sparse_gate import Head, sparse_is_faster, sparse_k_winners
from wirework.nn.kernels.winners import k_winners

EPSILON = 1e-12


def drawn(heads: int, dtype: torch.dtype = torch.float64) -> list[Head]:
    torch.manual_seed(heads)
    shapes = ((2, 30, 6), (40, 6), (40,))
    return [
        Head(*(torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes))
        for _ in range(heads)
    ]


def check(heads: list[Head], k: int, temperature: float, epsilon: float = EPSILON) -> None:
    """Compare a mask and all gradients with those of dense scores."""
    scores = torch.stack([linear(*head) for head in heads]).sum(0)
    wanted = k_winners(scores, k, temperature=temperature, epsilon=epsilon)
    found = sparse_k_winners(heads, k, temperature, epsilon)
    mask = found.spread(heads[0].x)
    assert torch.equal(mask, wanted)
    grad = torch.randn_like(wanted)
    tensors = [tensor for head in heads for tensor in head]
    for one, other in zip(
        torch.autograd.grad(mask, tensors, grad, retain_graph=True),
        torch.autograd.grad(wanted, tensors, grad),
        strict=True,
    ):
        # By size, as at a low temperature all gradients are next to nothing.
        least = 1e-10 if grad.dtype == torch.float64 else 1e-5
        assert (one - other).norm() <= least * other.norm()


class TestSparseKWinners:
    @pytest.mark.parametrize("heads", [1, 2])
    @pytest.mark.parametrize("k", [1, 2, 5, 39])
    @pytest.mark.parametrize("temperature", [0.02, 0.03, 0.1, 3.0])
    def test_mask_and_gradients_are_those_of_dense_scores(
        self, heads: int, k: int, temperature: float
    ) -> None:
        check(drawn(heads), k, temperature)

    def test_so_they_are_in_float32_and_with_a_wide_epsilon(self) -> None:
        for temperature in (0.02, 0.03, 0.1):
            check(drawn(1, torch.float32), 4, temperature)
        check(drawn(1, torch.float32), 4, 0.1, 1.0)
        check(drawn(1), 4, 0.1, 0.5)

    def test_equal_scores(self) -> None:
        (head,) = drawn(1)
        with torch.no_grad():
            head.weight[5:25] = head.weight[4]
            head.bias[5:25] = head.bias[4]
        check([head], 3, 0.1, 1e-3)

    def test_what_is_frozen_gets_no_gradient(self) -> None:
        (head,) = drawn(1)
        for frozen in range(3):
            parts = [t.detach().requires_grad_(n != frozen) for n, t in enumerate(head)]
            sparse_k_winners([Head(*parts)], 3, 0.1, EPSILON).values.sum().backward()
            assert [part.grad is None for part in parts] == [n == frozen for n in range(3)]

    def test_no_tokens(self) -> None:
        (head,) = drawn(1)
        found = sparse_k_winners([head._replace(x=head.x[:0])], 3, 0.1, EPSILON)
        assert found.spread(head.x[:0]).shape == (0, 30, 40)

    def test_few_places_have_a_gradient(self) -> None:
        found = sparse_k_winners(drawn(1, torch.float32), 4, 0.1, EPSILON)
        assert 5 * 60 <= len(found.values) < 13 * 60  # of 40 * 60
        assert found.values.sum() == 4 * 60

    def test_a_mask_without_gradient(self) -> None:
        heads = [Head(*(tensor.detach() for tensor in head)) for head in drawn(1)]
        mask: Tensor = sparse_k_winners(heads, 2, 0.1, EPSILON).spread(heads[0].x)
        assert mask.shape == (2, 30, 40)
        assert not mask.requires_grad


@pytest.mark.parametrize(
    ("k", "temperature", "dtype", "device", "expected"),
    [
        (5, 0.1, torch.float32, "cpu", True),
        (6, 0.1, torch.float32, "cpu", False),
        (5, 1.0, torch.float32, "cpu", False),
        (5, 0.1, torch.bfloat16, "cpu", False),
        (5, 0.1, torch.float32, "meta", False),
    ],
)
def test_where_it_pays(
    k: int, temperature: float, dtype: torch.dtype, device: str, expected: bool
) -> None:
    (head,) = drawn(1)
    assert sparse_is_faster(Head(*(t.to(device, dtype) for t in head)), k, temperature) is expected
