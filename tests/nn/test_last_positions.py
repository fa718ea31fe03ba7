"""Logits at one token of each sequence: less is computed, the same comes out."""

import pytest
import torch
from test_transformer import VARIANTS, build

from wirework.nn import Transformer, mean_ablation
from wirework.nn.rewire import rewired

TOKENS = torch.arange(30).view(3, 10) * 7 % 17
AT = torch.tensor([9, 0, 4])


@pytest.fixture(params=VARIANTS)
def transformer(request: pytest.FixtureRequest) -> Transformer:
    return build(request.param)


def at_of_whole(transformer: Transformer) -> torch.Tensor:
    return transformer(TOKENS)[torch.arange(3), AT]


@torch.no_grad()
def test_the_same_logits(transformer: Transformer) -> None:
    assert transformer._last_mixing_layer() == 1
    assert torch.allclose(transformer(TOKENS, AT), at_of_whole(transformer), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("baseline", "narrow"), [((), 1), ((1,), 0), ((0, 1), 0), ((0,), 1)])
def test_the_same_under_ablation(
    transformer: Transformer, baseline: tuple[int, ...], narrow: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    edits = {}
    for name in transformer.node_sites:
        width = transformer.sites[name].width
        gates = (torch.rand(width, generator=generator) < 0.6).float()
        if name in {f"{layer}.attn.resid_delta" for layer in baseline}:
            gates.zero_()
        edits[name] = mean_ablation(gates, torch.randn(width, generator=generator))
    with transformer.edited(edits):
        assert transformer._last_mixing_layer() == narrow
        kept: list[torch.Tensor] = []
        found = transformer(TOKENS, AT, block_inputs=kept)
        assert torch.allclose(found, at_of_whole(transformer), atol=1e-5)
        for layer, stream in enumerate(kept):
            assert stream.shape[1] == (1 if layer > narrow else 10)
            again = transformer(TOKENS, AT, start_from=(layer, stream))
            assert torch.allclose(again, found, atol=1e-6)
            with transformer.edited({"1.mlp.post_act": lambda x: x.clone()}):
                assert transformer._last_mixing_layer() is None  # the edit might mix tokens
                again = transformer(TOKENS, AT, start_from=(layer, stream))
                assert torch.allclose(again, found, atol=1e-6)


@torch.no_grad()
def test_the_same_under_rewiring() -> None:
    transformer = build("default")
    twice = {"blocks.1.mlp.up": lambda read, given: given + read.sum(-1, keepdim=True)}
    with rewired(transformer, twice):
        assert transformer._last_mixing_layer() == 1
        assert torch.allclose(transformer(TOKENS, AT), at_of_whole(transformer), atol=1e-5)


def test_gradients_are_the_same() -> None:
    transformer = build("default")
    grads = []
    for logits in (transformer(TOKENS, AT), at_of_whole(transformer)):
        grads.append(torch.autograd.grad(logits.sin().sum(), list(transformer.parameters())))
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(*grads, strict=True))


def test_nothing_is_left_out_under_any_other_edit_or_hook() -> None:
    transformer = build("default")
    seen = []
    with transformer.edited({"1.mlp.post_act": lambda x: x * (torch.arange(10) == 4)[:, None]}):
        assert transformer._last_mixing_layer() is None
        assert torch.allclose(transformer(TOKENS, AT), at_of_whole(transformer), atol=1e-5)
    handle = transformer.blocks[1].register_forward_hook(lambda *args: seen.append(args[2].shape))
    assert transformer._last_mixing_layer() is None
    transformer(TOKENS, AT)
    assert seen == [(3, 10, 16)]
    handle.remove()
    with transformer.recorded(["1.resid_mid"]) as values:
        transformer(TOKENS, AT)
    assert values["1.resid_mid"].shape == (3, 10, 16)
