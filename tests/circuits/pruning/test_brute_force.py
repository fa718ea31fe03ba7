"""Every subset of twelve nodes, by the library and by a plain second implementation."""

import copy
import math
from collections.abc import Mapping
from itertools import product

import pytest
import torch
from marks import slow_cases
from plain_model import Left, Node, PlainModel
from torch import Tensor

from wirework.circuits import Ablation, node_means
from wirework.config import ModelConfig
from wirework.model import Model
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs

NODES: list[Node] = [
    ("0.attn.act_in", 2), ("0.attn.q", 1), ("0.attn.k", 5), ("0.attn.v", 0),
    ("0.attn.resid_delta", 4), ("0.mlp.act_in", 9), ("0.mlp.post_act", 3),
    ("0.mlp.resid_delta", 6), ("1.attn.act_in", 6), ("1.attn.v", 6), ("1.mlp.post_act", 8),
    ("1.mlp.resid_delta", 1),
]  # fmt: skip
"""At least one of every kind; channel 9 of act_in is a position's."""


@pytest.fixture(scope="module")
def rough() -> Model:
    """Random weights in every part: AbsTopK, sinks, biases, a window, positions, bigrams."""
    config = ModelConfig(
        vocab_size=20, n_ctx=12, n_layer=2, d_model=8, d_head=4, d_mlp=12, act_fraction=0.5,
        positions="concat", d_pos=2, attention_windows=(None, 3), norm_eps=1e-6,
    )  # fmt: skip
    transformer = Transformer(config)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            spread = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.2 * spread if "norm" in name else 0.7 * spread)
    return Model(transformer)


@pytest.fixture(scope="module")
def batch() -> Tensor:
    return torch.randint(0, 20, (6, 10), generator=torch.Generator().manual_seed(13))


@pytest.fixture(scope="module")
def ablation(rough: Model, batch: Tensor) -> Ablation:
    return Ablation.of(rough.transformer, node_means(rough.transformer, [batch]))


@pytest.fixture(scope="module")
def rows() -> TokenizedPairs:
    """Two pairs of unlike length, so that one is padded."""
    tokens = torch.randint(1, 20, (4, 7), generator=torch.Generator().manual_seed(12))
    at = torch.tensor([4, 4, 6, 6])
    tokens[torch.arange(7) > at[:, None]] = 0
    return TokenizedPairs(tokens, at, torch.tensor([[3, 7], [7, 3], [5, 9], [9, 5]]))


def test_means_are_those_of_a_plain_pass(rough, batch, ablation) -> None:
    plain = PlainModel(rough).means([batch])
    for site in rough.transformer.node_sites:
        assert torch.allclose(ablation.means[site].double(), plain[site], atol=1e-6)


def plain_losses(
    model: Model, rows: TokenizedPairs, means: Mapping[str, Tensor], masks: list[list[Node]]
) -> tuple[Tensor, Tensor]:
    """Return the loss with each list of nodes left out, and how near AbsTopK came to a tie."""
    plain = PlainModel(model)
    found = []
    for nodes in masks:
        plain.margin = math.inf
        found.append((plain.loss(rows, Left(nodes=nodes, means=means)), plain.margin))
    loss, margin = torch.tensor(found, dtype=torch.float64).unbind(1)
    return loss, margin


def check(model: Model, rows: TokenizedPairs, ablation: Ablation, gates: Tensor) -> Tensor:
    """Compare the losses of masks (R, N) with those of plain passes, and return them."""
    every = ablation.space.locate(torch.arange(ablation.space.size))
    out = [
        [node for node, gate in zip(every, mask, strict=True) if not gate]
        for mask in gates.tolist()
    ]
    means = {site: mean.double() for site, mean in ablation.means.items()}
    expected, margin = plain_losses(model, rows, means, out)
    wide = Ablation.of(copy.deepcopy(model.transformer).double(), means)
    assert torch.allclose(wide.losses(gates, rows), expected, atol=1e-9, rtol=0)
    # Where two entries all but tie for AbsTopK's last place, float32 may keep the other one.
    clear = margin > 1e-6
    assert clear.double().mean() > 0.9
    found = ablation.losses(gates, rows)
    assert torch.allclose(found[clear], expected[clear], atol=1e-5, rtol=0)
    return expected


@pytest.mark.parametrize("step", [9, *slow_cases(1)])
def test_every_subset_of_twelve_nodes_has_the_loss_of_a_plain_pass(
    rough, rows, ablation, step: int
) -> None:
    every = ablation.space.locate(torch.arange(ablation.space.size))
    kept = torch.tensor(list(product((True, False), repeat=len(NODES)))[::step])
    gates = torch.ones(len(kept), ablation.space.size)
    gates[:, [every.index(node) for node in NODES]] = kept.float()
    found = check(rough, rows.select(torch.tensor([0])), ablation, gates)
    for i in range(len(NODES)):  # each of them matters: none was left out by name only
        assert (found[kept[:, i]] - found[~kept[:, i]]).abs().max() > 0.02


def test_masks_over_all_nodes_have_the_loss_of_a_plain_pass(rough, rows, ablation) -> None:
    generator = torch.rand(200, ablation.space.size, generator=torch.Generator().manual_seed(14))
    gates = (generator < torch.linspace(0.2, 1, 200)[:, None]).float()
    assert check(rough, rows, ablation, gates).std() > 0.1


@pytest.mark.parametrize(
    ("source", "read", "targets"),
    [
        ("0.attn.act_in", "0.attn.act_in", {"0.attn.q": 8, "0.attn.k": 8, "0.attn.v": 8}),
        ("1.attn.v", "1.attn.y", {"1.attn.resid_delta": 8}),
        ("0.mlp.act_in", "0.mlp.act_in", {"0.mlp.post_act": 12}),
        ("1.mlp.post_act", "1.mlp.post_act", {"1.mlp.resid_delta": 8}),
    ],
)
def test_cutting_all_edges_of_a_plain_node_freezes_what_is_read(
    rough, rows, batch, source, read, targets
) -> None:
    plain = PlainModel(rough)
    means = plain.means([batch])
    channel = int(means[read].abs().argmax())
    wires = [((source, channel), (to, j)) for to, width in targets.items() for j in range(width)]
    cut = plain.loss(rows, Left(wires=wires, means=means))
    frozen = plain.loss(rows, Left(nodes=[(read, channel)], means=means))
    assert cut == pytest.approx(frozen, abs=1e-12)
    assert abs(cut - plain.loss(rows)) > 1e-3
