"""Both streams against the released code's numbers, and what must not leak through the masks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wirework.config import GatingConfig, ModelConfig
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.nn.kernels.own_position import own_position_attention
from wirework.nn.streams import two_streams

EXAMPLE = Path(__file__).parents[1] / "data" / "self_ablating_example"
PARTS = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.out": "attn.attention.out_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
SHAPE = ModelConfig(
    vocab_size=64, n_ctx=16, n_layer=2, d_model=32, d_head=8, activation="gelu_tanh", norm="layer",
    positions="added", attention_scale="none", qkv_bias=False, tied_embedding=True, sinks=False,
    bigram=False, act_fraction=None,
)  # fmt: skip


def example() -> tuple[Transformer, Gates]:
    """Return the released example's model in float64, under our names."""
    state = torch.load(EXAMPLE / "model.pt", weights_only=True)
    settings = json.loads((EXAMPLE / "config.json").read_text())
    gating = GatingConfig(k_attention=settings["k_attention"], k_neurons=settings["k_neurons"])
    transformer, gates = Transformer(SHAPE), Gates(SHAPE, gating)
    ours = {"embed": "wte", "positions": "wpe", "norm": "ln_f"}
    names = {f"{one}.weight": f"transformer.{other}.weight" for one, other in ours.items()}
    names |= {"unembed.weight": "lm_head.weight", "norm.bias": "transformer.ln_f.bias"}
    for layer in range(SHAPE.n_layer):
        for one, other in PARTS.items():
            for kind in ("weight", "bias"):
                names[f"blocks.{layer}.{one}.{kind}"] = f"transformer.h.{layer}.{other}.{kind}"
    found = {one: state[other] for one, other in names.items()}
    for layer in range(SHAPE.n_layer):
        parts = [state[f"transformer.h.{layer}.attn.attention.{x}_proj.weight"] for x in "qkv"]
        found[f"blocks.{layer}.attn.qkv.weight"] = torch.cat(parts)
    transformer.load_state_dict(found)
    heads = {"attention": "attention", "neurons": "neuron"}
    gates.load_state_dict({
        f"local.{layer}.{one}.{kind}": state[f"transformer.h.{layer}.{other}_ablation_head.{kind}"]
        for layer in range(SHAPE.n_layer) for one, other in heads.items()
        for kind in ("weight", "bias")
    })  # fmt: skip
    return transformer.double(), gates.double()


def test_the_released_example_comes_out_to_the_last_digit() -> None:
    transformer, gates = example()
    known = {name: torch.from_numpy(v) for name, v in np.load(EXAMPLE / "io.npz").items()}
    tokens, targets = known["input_ids"], known["targets"]
    streams = two_streams(transformer, gates, tokens)
    for state, name in ((streams.clean, "clean"), (streams.ablated, "ablated")):
        logits = transformer.unembed(state)
        torch.testing.assert_close(logits, known[f"logits_{name}_f64"], rtol=1e-12, atol=1e-13)
        loss = transformer.loss_of(state, tokens, targets)
        torch.testing.assert_close(loss, known[f"loss_{name}_f64"], rtol=1e-12, atol=1e-12)
    assert torch.equal(streams.attention_masks.float(), known["attention_ablations"])
    assert torch.equal(streams.neuron_masks.float(), known["neuron_ablations"])
    torch.testing.assert_close(
        streams.reconstruction.float(), known["reconstruction_loss_f64"].squeeze()
    )
    losses = [transformer.loss_of(s, tokens, targets) for s in (streams.clean, streams.ablated)]
    (losses[0] + 0.1 * losses[1] + 0.1 * streams.reconstruction).backward()
    prefix = "transformer.h.{}."
    qkv = transformer.blocks[0].attn.qkv.weight.grad
    assert qkv is not None
    for grad, name in (
        (transformer.embed.weight.grad, "transformer.wte.weight"),
        (qkv[32:64], prefix.format(0) + "attn.attention.k_proj.weight"),
        (transformer.blocks[1].mlp.up.weight.grad, prefix.format(1) + "mlp.c_fc.weight"),
        (gates.local[0].attention.weight.grad, prefix.format(0) + "attention_ablation_head.weight"),
        (gates.local[1].neurons.bias.grad, prefix.format(1) + "neuron_ablation_head.bias"),
    ):
        wanted = known[f"grad/{name}"].double()
        torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize("level", ["local", "global", "both"])
@pytest.mark.parametrize("sinks", [False, True])
def test_nothing_leaks_from_later_tokens_and_the_clean_stream_is_the_plain_model(
    level: str, sinks: bool
) -> None:
    torch.manual_seed(0)
    shape = SHAPE.model_copy(update={"sinks": sinks})
    transformer = Transformer(shape)
    gates = Gates(shape, GatingConfig.of({"level": level, "k_attention": 3, "k_neurons": 5}))
    for parameter in gates.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randint(64, (2, 16))
    streams = two_streams(transformer, gates, tokens)
    assert torch.equal(streams.clean, transformer.state(tokens))
    assert set(streams.attention_masks.sum(-1).unique().tolist()) == {3}
    assert set(streams.neuron_masks.sum(-1).unique().tolist()) == {5}
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 64
    other = two_streams(transformer, gates, changed)
    torch.testing.assert_close(other.ablated[:, :9], streams.ablated[:, :9])
    assert not torch.allclose(other.ablated[:, 9:], streams.ablated[:, 9:])
    missing = [n for n, p in gates.named_parameters() if p.grad is not None]
    assert not missing
    (streams.ablated.square().sum() + streams.reconstruction).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in gates.parameters())


def test_gates_of_the_same_seed_do_not_begin_as_the_transformers_weights() -> None:
    transformer, gates = Transformer(SHAPE, seed=3), Gates(SHAPE, GatingConfig(), seed=3)
    heads = gates.local[0].attention.weight
    assert not torch.isin(heads, transformer.embed.weight).any()
    assert torch.equal(heads, Gates(SHAPE, GatingConfig(), seed=3).local[0].attention.weight)
    assert not torch.equal(heads, Gates(SHAPE, GatingConfig(), seed=4).local[0].attention.weight)


def gated(**changes: object) -> tuple[Transformer, Gates]:
    """Return a model in float64 with gates that matter."""
    shape = SHAPE.model_copy(update=changes)
    transformer, gates = Transformer(shape), Gates(shape, GatingConfig(k_attention=3, k_neurons=5))
    torch.manual_seed(0)
    for parameter in gates.parameters():
        torch.nn.init.normal_(parameter)
    return transformer.double(), gates.double()


class TestFirstAttention:
    """It is computed once for both streams, unless an edit or a hook may tell them apart."""

    def test_the_ablated_stream_has_one_attention_less(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []

        def counted(*args: Any, **kwargs: Any) -> Tensor:
            calls.append(args)
            return own_position_attention(*args, **kwargs)

        monkeypatch.setattr("wirework.nn.block.own_position_attention", counted)
        two_streams(*gated(), torch.randint(64, (2, 16)))
        assert len(calls) == SHAPE.n_layer - 1

    def outputs(self, transformer: Transformer, gates: Gates, tokens: Tensor) -> tuple[Tensor, ...]:
        """Return the ablated state, the reconstruction loss and all gradients of their sum."""
        streams = two_streams(transformer, gates, tokens)
        parameters = [*transformer.parameters(), *gates.parameters()]
        loss = streams.ablated.square().sum() + streams.reconstruction
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        return streams.ablated, streams.reconstruction, *gradients

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"sinks": True, "attention_windows": [3, None]},
            {"positions": "concat", "d_pos": 4},
        ],
    )
    @pytest.mark.parametrize("site", ["resid_in", "attn.act_in", "attn.q", "attn.y"])
    def test_results_and_gradients_are_those_of_two_computations(
        self, site: str, changes: dict[str, object]
    ) -> None:
        transformer, gates = gated(**changes)
        tokens = torch.randint(64, (2, 16))
        once = self.outputs(transformer, gates, tokens)
        with transformer.edited({f"0.{site}": lambda x: x.clone()}):
            twice = self.outputs(transformer, gates, tokens)
        for one, other in zip(once, twice, strict=True):
            torch.testing.assert_close(one, other)

    @pytest.mark.parametrize("kind", ["resid_in", "attn.act_in", "attn.q", "attn.resid_delta"])
    def test_an_edit_acts_in_both_streams(self, kind: str) -> None:
        transformer, gates = gated()
        calls = []

        def edit(x: Tensor) -> Tensor:
            calls.append(x)
            return x

        with transformer.edited({f"0.{kind}": edit}):
            two_streams(transformer, gates, torch.randint(64, (2, 16)))
        assert len(calls) == 2

    @pytest.mark.parametrize("name", ["blocks.0.norm1", "blocks.0.attn.qkv"])
    def test_a_hook_is_called_for_both_streams(self, name: str) -> None:
        transformer, gates = gated()
        calls = []
        transformer.get_submodule(name).register_forward_hook(lambda *_: calls.append(name))
        two_streams(transformer, gates, torch.randint(64, (2, 16)))
        assert len(calls) == 2
