"""Attention over the ancestors of prefixes, against plain causal attention of whole prompts."""

import math

import pytest
import torch

from wirework.nn.kernels.attention import causal_attention_reference
from wirework.nn.kernels.prefix_attention import HeadChannels, Queries, prefix_attention

N_MASKS, LENGTH, N_HEADS, D_HEAD = 2, 20, 3, 20


def heads(sink: torch.Tensor | None, window: int | None) -> HeadChannels:
    """All channels of all heads, but no pair of a query and a key in the second head."""
    channels = torch.arange(N_HEADS * D_HEAD)
    paired = channels[channels // D_HEAD != 1]
    return HeadChannels(
        pairs=torch.stack([paired, paired], 1),
        ends=D_HEAD * torch.tensor([[1, 1], [1, 2], [2, 3]]),
        sink=torch.full((N_HEADS,), -torch.inf) if sink is None else sink,
        scale=0.3,
        window=window,
    )


def inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (N_MASKS, LENGTH, N_HEADS * D_HEAD)
    return [torch.randn(shape, generator=generator).requires_grad_() for _ in range(3)]


def test_by_hand() -> None:
    q, k = torch.tensor([[[1.0]]]), torch.tensor([[[0.0], [math.log(3)]]])
    v = torch.tensor([[[4.0, 8.0], [12.0, 16.0]]])
    head = HeadChannels(
        pairs=torch.tensor([[0, 0]]),
        ends=torch.tensor([[1, 2]]),
        sink=torch.tensor([math.log(4)]),
        scale=1.0,
        window=None,
    )
    queries = Queries(torch.tensor([0]), torch.tensor([[0, 1]]), torch.tensor([1]))
    # Shares 1, 3 and the sink's 4, of 8.
    found = prefix_attention(q, k, v, queries, head)
    torch.testing.assert_close(found, torch.tensor([[[5.0, 7.0]]]))


@pytest.mark.parametrize("sink", [None, torch.tensor([0.5, -1.0, 2.0])])
@pytest.mark.parametrize("window", [None, 3])
def test_one_prompt_is_causal_attention(sink: torch.Tensor | None, window: int | None) -> None:
    positions = torch.arange(LENGTH)
    queries = Queries(positions, positions.expand(LENGTH, -1), positions)
    ours, theirs = inputs(), inputs()
    found = prefix_attention(ours[0], ours[1], ours[2], queries, heads(sink, window))
    parts = [t.view(N_MASKS, LENGTH, N_HEADS, D_HEAD).transpose(1, 2) for t in theirs]
    has_scores = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    expected = causal_attention_reference(
        parts[0] * has_scores, parts[1], parts[2], sink, 0.3, window
    )
    expected = expected.transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.grad, their.grad, rtol=1e-5, atol=1e-5)


def test_queries_share_their_ancestors() -> None:
    """Two prompts with the same first two tokens, and three queries."""
    q, k, v = inputs()
    ancestors = torch.tensor([[0, 1, 0], [0, 1, 2], [0, 1, 3]])
    queries = Queries(torch.tensor([5, 2, 7]), ancestors, torch.tensor([1, 2, 2]))
    found = prefix_attention(q, k, v, queries, heads(None, None))
    for i, (row, path) in enumerate([(5, [0, 1]), (2, [0, 1, 2]), (7, [0, 1, 3])]):
        position = torch.tensor([len(path) - 1])
        alone = Queries(torch.tensor([0]), torch.arange(len(path))[None], position)
        expected = prefix_attention(q[:, [row]], k[:, path], v[:, path], alone, heads(None, None))
        torch.testing.assert_close(found[:, [i]], expected)


def test_without_values_the_output_is_empty() -> None:
    none = torch.zeros(0, 2, dtype=torch.int64)
    head = HeadChannels(none, none, torch.zeros(0), 1.0, None)
    queries = Queries(torch.arange(2), torch.zeros(2, 2, dtype=torch.int64), torch.arange(2))
    q, k, v = torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.ones(1, 2, 0)
    assert prefix_attention(q, k, v, queries, head).shape == (1, 2, 0)
