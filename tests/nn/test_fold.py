"""Folding norm gains: the same function, the same zeros, gains of 1."""

from typing import Any

import pytest
import torch
from torch import Tensor

from wirework.config import ModelConfig
from wirework.errors import InputError
from wirework.nn import Transformer, fold_norms
from wirework.nn.kernels.norm import RMSNorm

SMALL: dict[str, Any] = {"vocab_size": 17, "n_ctx": 8, "n_layer": 2, "d_model": 16, "d_head": 4}


def build(gain: str = "any", **settings: Any) -> Transformer:
    """A float64 transformer with half its weights zero and gains that differ or only in sign."""
    transformer = Transformer(ModelConfig.of(SMALL | settings)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for prunable in transformer.prunable():
            values = torch.randn(prunable.parameter.shape, generator=generator, dtype=torch.float64)
            prunable.parameter.copy_(values * (values > 0.0))
        for module in transformer.modules():
            if isinstance(module, RMSNorm):
                values = torch.randn(module.weight.shape, generator=generator, dtype=torch.float64)
                module.weight.copy_(values if gain == "any" else 3 * values.sign())
    return transformer


def nonzeros(transformer: Transformer) -> int:
    return sum(int(p.parameter.count_nonzero()) for p in transformer.prunable())


def tokens() -> Tensor:
    return torch.randint(0, 17, (3, 8), generator=torch.Generator().manual_seed(1))


def check(transformer: Transformer) -> Transformer:
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    folded = fold_norms(transformer)
    norms = [module for module in folded.modules() if isinstance(module, RMSNorm)]
    assert all((norm.weight == 1).all() for norm in norms)
    torch.testing.assert_close(folded(tokens()), transformer(tokens()), atol=1e-12, rtol=1e-10)
    after = transformer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    return folded


@pytest.mark.parametrize(
    "settings",
    [
        {"act_fraction": None},
        {"act_sites": ["attn.q", "mlp.post_act", "mlp.resid_delta"]},
        {"act_fraction": 1.0},
        {"act_fraction": None, "positions": "concat", "d_pos": 6},
        {"act_fraction": None, "positions": "sinusoidal_concat", "d_pos": 5, "sinks": False},
    ],
)
def test_any_gains_fold_where_no_selection_follows(settings):
    transformer = build(**settings)
    folded = check(transformer)
    assert nonzeros(folded) == nonzeros(transformer)
    names = [name for name in transformer.sites if not name.endswith("act_in")]
    _, before = transformer.record(tokens(), names)
    _, after = folded.record(tokens(), names)
    for name in names:
        torch.testing.assert_close(after[name], before[name], atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("settings", [{}, {"positions": "concat", "d_pos": 8}])
def test_gains_of_one_magnitude_fold_before_abs_top_k(settings):
    transformer = build("signs", **settings)
    assert nonzeros(check(transformer)) == nonzeros(transformer)


def test_gains_that_decide_what_abs_top_k_keeps_are_refused():
    with pytest.raises(InputError, match=r"before 0\.attn\.act_in .* AbsTopK keeps 4 of 16"):
        fold_norms(build())
    transformer = build("signs")
    with torch.no_grad():
        transformer.blocks[1].norm2.weight[3] = 0.5
    with pytest.raises(InputError, match=r"before 1\.mlp\.act_in .* gains from 0\.5 to 3 decide"):
        fold_norms(transformer)


def test_positions_and_stream_must_share_the_magnitude():
    transformer = build("signs", positions="concat", d_pos=8)
    norm = transformer.blocks[0].pos_norm1
    assert norm is not None
    with torch.no_grad():
        norm.weight.mul_(2)
    with pytest.raises(InputError, match=r"before 0\.attn\.act_in"):
        fold_norms(transformer)


def test_final_gain_folds_even_where_its_magnitudes_differ():
    transformer = build("signs")
    with torch.no_grad():
        transformer.norm.weight.copy_(torch.linspace(-2, 5, 16))
    check(transformer)


def test_zero_gain_removes_only_weights_that_did_nothing():
    transformer = build(act_fraction=None)
    with torch.no_grad():
        transformer.blocks[0].norm2.weight[3] = 0.0
    folded = check(transformer)
    dead = int(transformer.blocks[0].mlp.up.weight[:, 3].count_nonzero())
    assert dead
    assert nonzeros(folded) == nonzeros(transformer) - dead


def test_tied_unembedding_is_not_scaled():
    transformer = build(act_fraction=None, tied_embedding=True)
    with pytest.raises(InputError, match="tied to the embedding"):
        fold_norms(transformer)
    with torch.no_grad():
        transformer.norm.weight.fill_(1.0)
    folded = check(transformer)
    assert folded.unembed.weight is folded.embed.weight


@pytest.mark.parametrize(("norm", "name"), [("layer", "LayerNorm"), ("none", "no norm")])
def test_other_norms_are_refused(norm: str, name: str):
    with pytest.raises(InputError, match=f"only RMSNorm gains.*has {name}"):
        fold_norms(Transformer(ModelConfig.of(SMALL | {"norm": norm})))
