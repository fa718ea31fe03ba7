"""Compact circuits against the masked model, for every architecture."""

import pytest
import torch
from transformer_variants import VARIANTS, build

from wirework.circuits import Ablation
from wirework.circuits.masking import ablation as ablation_module
from wirework.circuits.masking.compact import CompactCircuit
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs

BATCH = TokenizedPairs(
    torch.arange(60).view(6, 10) * 7 % 17,
    torch.tensor([9, 0, 4, 9, 3, 6]),
    torch.tensor([[1, 2], [2, 1]] * 3),
)
CLOSED = [(), ("1.attn.resid_delta",), ("0.attn.act_in", "1.mlp.act_in"), ("0.attn.", "1.mlp.")]
"""Starts of the names of sites without a kept node."""


@pytest.fixture(params=VARIANTS)
def transformer(request: pytest.FixtureRequest) -> Transformer:
    return build(request.param)


@pytest.fixture(autouse=True)
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_module, "_MOST_COMPACT", 1)


def ablation_of(transformer: Transformer) -> Ablation:
    generator = torch.Generator().manual_seed(1)
    sites = [*transformer.node_sites, *(f"{layer}.attn.y" for layer in range(2))]
    means = {
        name: torch.randn(transformer.sites[name].width, generator=generator) for name in sites
    }
    return Ablation.of(transformer, means)


def mask_of(ablation: Ablation, share: float, closed: tuple[str, ...] = ()) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    mask = (torch.rand(ablation.size, generator=generator) < share).float()
    for name, part in ablation.space.split(mask).items():
        if name.startswith(closed):
            part.zero_()
    return mask


def compact_of(masks: Ablation | EdgeMasks, gates: torch.Tensor) -> CompactCircuit:
    compact = masks.compact(gates)
    assert compact is not None
    return compact


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.08, 0.3, 0.9])
@pytest.mark.parametrize("closed", CLOSED)
def test_logit_differences_are_those_of_the_masked_model(
    transformer: Transformer, share: float, closed: tuple[str, ...]
) -> None:
    ablation = ablation_of(transformer)
    mask = mask_of(ablation, share, closed)
    expected_streams: list[torch.Tensor] = []
    expected = ablation.logit_diffs(mask[None], BATCH, None, expected_streams)[0]
    compact = compact_of(ablation, mask)
    streams: list[torch.Tensor] = []
    assert_close(compact.logit_diffs(BATCH, None, streams), expected)
    for layer, (stream, expected_stream) in enumerate(zip(streams, expected_streams, strict=True)):
        assert_close(stream, expected_stream)
        assert_close(compact.logit_diffs(BATCH, (layer, stream)), expected)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_removed_edges_are_ablated(transformer: Transformer, share: float) -> None:
    ablation = ablation_of(transformer)
    edge_masks = EdgeMasks.of(ablation, mask_of(ablation, share))
    gates = (torch.rand(edge_masks.size, generator=torch.Generator().manual_seed(3)) < 0.6).float()
    expected = edge_masks.logit_diffs(gates[None], BATCH)[0]
    assert_close(compact_of(edge_masks, gates).logit_diffs(BATCH), expected)
    nodes = gates.clone()
    nodes[edge_masks.n_nodes :] = 1
    all_edges = edge_masks.logit_diffs(nodes[None], BATCH)[0]
    assert not torch.allclose(expected, all_edges, atol=1e-3)


def test_gradients_of_edits_are_those_of_the_masked_model(transformer: Transformer) -> None:
    ablation = ablation_of(transformer)
    mask = mask_of(ablation, 0.3)
    kept = ablation.space.channels(mask.nonzero().flatten())
    ours, theirs = (
        {name: torch.zeros(len(some), requires_grad=True) for name, some in kept.items()}
        for _ in range(2)
    )
    compact = compact_of(ablation, mask)
    on_kept = {name: lambda x, by=shift: x + by for name, shift in ours.items()}
    compact.logit_diffs(BATCH, edits=on_kept).square().sum().backward()

    def added(name: str):
        return lambda x: x.index_add(-1, kept[name], theirs[name].expand(*x.shape[:-1], -1))

    with ablation.applied(mask[None]), transformer.edited({name: added(name) for name in kept}):
        logits = transformer(BATCH.tokens, BATCH.last_positions)
    right, wrong = logits.gather(1, BATCH.answers).unbind(1)
    (right - wrong).square().sum().backward()
    for name in kept:
        expected = theirs[name].grad
        assert expected is not None
        scale = max(1.0, float(expected.abs().max())) if len(expected) else 1.0
        found = ours[name].grad
        found = torch.zeros_like(expected) if found is None else found
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * scale)


@torch.no_grad()
def test_losses_mix_compact_and_masked_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    ablation = ablation_of(build("default"))
    masks = torch.stack([mask_of(ablation, share) for share in (0.9, 0.1, 1.0, 0.2)])
    expected = torch.stack([ablation.logit_diffs(mask[None], BATCH)[0] for mask in masks])
    monkeypatch.setattr(ablation_module, "_MOST_COMPACT", 0.5)
    is_compact = [ablation.compact(mask) is not None for mask in masks]
    assert is_compact == [False, True, False, True]
    assert_close(ablation.all_logit_diffs(masks, BATCH), expected)


def test_no_compact_circuit_where_it_would_differ() -> None:
    transformer = build("default")
    ablation = ablation_of(transformer)
    mask = mask_of(ablation, 0.3)
    assert ablation.compact(mask) is not None
    assert ablation.compact(mask / 2) is None
    with transformer.edited({"1.resid_in": lambda x: x + 1}):
        assert ablation.compact(mask) is None
    handle = transformer.blocks[0].mlp.up.register_forward_hook(lambda *_: None)
    assert ablation.compact(mask) is None
    handle.remove()
    cached = {name: torch.zeros(3, width) for name, width in ablation.space.widths.items()}
    by_resampling = Ablation(transformer, ablation.space, ablation.means, activation_cache=cached)
    assert by_resampling.compact(mask) is None
