"""AbsTopK and mean ablation of several sites, against the operations one by one on all channels."""

import pytest
import torch

from wirework.nn.kernels.gated_top_k import SiteChannels, SiteTable, gated_top_k
from wirework.nn.kernels.top_k import abs_top_k

WIDTHS, KS = (40, 24, 33), (9, None, 12)
"""Widths of three sites, the second one without AbsTopK."""


def chosen(width: int, share: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(width, generator=generator) < share).nonzero().flatten()


def reference(
    x: torch.Tensor, k: int | None, gates: torch.Tensor, mean: torch.Tensor
) -> torch.Tensor:
    x = x if k is None else abs_top_k(x, k)
    return x * gates[:, None] + ((1 - gates) * mean)[:, None]


def test_by_hand() -> None:
    x = torch.tensor([[[2.0, -3.0, 1.0], [0.0, 5.0, 0.0]]], requires_grad=True)
    gates = torch.tensor([[1.0, 0.0, 1.0]], requires_grad=True)
    table = SiteTable.of([SiteChannels(torch.arange(3), 2)])
    out = gated_top_k(x, table, gates, torch.tensor([10.0, 20.0, 30.0]))
    assert out.tolist() == [[[2, 20, 0], [0, 20, 0]]]
    out.sum().backward()
    assert x.grad is not None
    assert gates.grad is not None
    # Of the second row, 5 and the first zero are kept: the gradient passes at both.
    assert x.grad.tolist() == [[[1, 0, 0], [1, 0, 0]]]
    assert gates.grad.tolist() == [[2 - 10 + 0 - 10, -3 - 20 + 5 - 20, 2 * (0 - 30)]]


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_left_out_zeros_change_nothing(zeros: float, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    computed = [chosen(width, share, seed) for seed, width in enumerate(WIDTHS)]
    full, sites = [], []
    for width, k, channels in zip(WIDTHS, KS, computed, strict=True):
        x = torch.zeros(3, 150, width)
        values = torch.randn(3, 150, len(channels), generator=generator).round(decimals=1)  # ties
        values *= torch.rand(values.shape, generator=generator) >= zeros
        full.append(x.index_copy(-1, channels, values).requires_grad_())
        sites.append(SiteChannels(channels, k))
    gates = [torch.rand(3, width, generator=generator).requires_grad_() for width in WIDTHS]
    means = [torch.randn(width, generator=generator) for width in WIDTHS]
    weights = [torch.randn(3, 150, width, generator=generator) for width in WIDTHS]

    expected = [reference(*inputs) for inputs in zip(full, KS, gates, means, strict=True)]
    some = list(zip(expected, weights, computed, strict=True))
    loss = sum((site * by)[..., channels].sum() for site, by, channels in some)
    assert isinstance(loss, torch.Tensor)
    loss.backward()

    def side_by_side(parts: list[torch.Tensor]) -> torch.Tensor:
        pairs = zip(parts, computed, strict=True)
        return torch.cat([part[..., channels] for part, channels in pairs], -1)

    ours = side_by_side([x.detach() for x in full]).requires_grad_()
    our_gates = side_by_side([gate.detach() for gate in gates]).requires_grad_()
    found = gated_top_k(ours, SiteTable.of(sites), our_gates, side_by_side(means))
    torch.testing.assert_close(found, side_by_side(expected))
    (found * side_by_side(weights)).sum().backward()
    to_x, to_gates = ([t.grad for t in tensors] for tensors in (full, gates))
    torch.testing.assert_close(ours.grad, side_by_side(to_x))
    torch.testing.assert_close(our_gates.grad, side_by_side(to_gates), rtol=1e-5, atol=2e-5)


def test_the_number_of_threads_does_not_count() -> None:
    x = torch.randn(6, 3000, 40, generator=torch.Generator().manual_seed(0))
    table = SiteTable.of([SiteChannels(torch.arange(40), 9)])
    gates = torch.rand(6, 40, generator=torch.Generator().manual_seed(1))
    found = []
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        leaf = gates.clone().requires_grad_()
        out = gated_top_k(x, table, leaf, torch.ones(40))
        found.append((out, *torch.autograd.grad(out.square().sum(), leaf)))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_nan_is_refused_where_it_would_be_ranked() -> None:
    x = torch.ones(1, 2, 3)
    x[0, 1, 2] = torch.nan
    gates, means = torch.ones(1, 3), torch.ones(3)
    with pytest.raises(ValueError, match="NaN"):
        gated_top_k(x, SiteTable.of([SiteChannels(torch.arange(3), 3)]), gates, means)
    passed = gated_top_k(x, SiteTable.of([SiteChannels(torch.arange(3), None)]), gates, means)
    assert torch.equal(passed.isnan(), x.isnan())
