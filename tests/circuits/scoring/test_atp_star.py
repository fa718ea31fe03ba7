import pytest
import torch
from straight import blank, judged, rises, straight

from wirework.circuits import Ablation, atp_star, attribution
from wirework.circuits.masking.masks import PASS_TOKENS, length_groups, without_weight_gradients
from wirework.circuits.scoring.atp_star import run_effects
from wirework.model import Model
from wirework.tasks import Task, TokenizedPairs


def frozen_channel(channel: int, mean: torch.Tensor):
    def edit(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[..., channel] = mean[channel]
        return x

    return edit


def slope_at_heads(ablation: Ablation, rows: TokenizedPairs, layer: int, dropped: str | None):
    """Return the heads' output and its gradient, through every sublayer but the dropped one."""
    drop = {} if dropped is None else {dropped: torch.Tensor.detach}
    site, transformer = f"{layer}.attn.y", ablation.transformer
    with transformer.edited(drop), transformer.recorded([site]) as values:
        logits = transformer(rows.tokens, rows.last_positions)
    right, wrong = logits.gather(1, rows.answers).unbind(1)
    loss = torch.nn.functional.softplus(wrong - right).sum()
    (slope,) = torch.autograd.grad(loss, values[site], materialize_grads=True, allow_unused=True)
    return values[site].detach(), slope


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("dropped", [None, "1.mlp.resid_delta", "0.attn.resid_delta"])
@pytest.mark.parametrize("settings", [{}, {"sinks": False}, {"attention_windows": (2, 2)}])
def test_queries_and_keys_are_frozen_exactly(settings, dropped: str | None, layer: int) -> None:
    ablation, rows = two_layers(**settings)
    transformer = ablation.transformer
    before, slope = slope_at_heads(ablation, rows, layer, dropped)
    drops = ["0.attn.resid_delta", "0.mlp.resid_delta", "1.attn.resid_delta", "1.mlp.resid_delta"]
    run = len(drops) if dropped is None else drops.index(dropped)
    with without_weight_gradients(transformer):
        parts = ablation.space.split(run_effects(ablation, rows)[run])
    moved = 0.0
    for part in "qk":
        site = f"{layer}.attn.{part}"
        for channel in range(8):
            edit = frozen_channel(channel, ablation.means[site])
            with (
                torch.no_grad(),
                transformer.edited({site: edit}),
                transformer.recorded([f"{layer}.attn.y"]) as values,
            ):
                transformer(rows.tokens, rows.last_positions)
            change = ((values[f"{layer}.attn.y"] - before) * slope).sum()
            assert torch.allclose(parts[site][channel], change, rtol=1e-6, atol=1e-9)
            moved += abs(float(change))
    assert (moved == 0) == (dropped == "0.attn.resid_delta" and layer == 0)


def two_layers(**settings) -> tuple[Ablation, TokenizedPairs]:
    transformer = blank(2, **settings)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if name.startswith("blocks") and weight.dim() == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator))
            if name.endswith("sink"):
                weight.copy_(torch.tensor([0.5, -1.0]))
    return judged(transformer)


@pytest.mark.parametrize("settings", [{}, {"sinks": False}, {"attention_windows": (2,)}])
def test_behind_a_linear_rest_a_query_scores_its_true_rise(settings) -> None:
    ablation, rows = straight(queries=True, **settings)
    with without_weight_gradients(ablation.transformer):
        found = ablation.space.split(run_effects(ablation, rows)[-1] / len(rows.last_positions))
    expected = ablation.space.split(rises(ablation, rows))
    plain = ablation.space.split(attribution(ablation, rows, signed=True).double())
    for site in ("0.attn.q", "0.attn.k"):
        assert torch.allclose(found[site], expected[site], rtol=1e-6, atol=1e-7)
        assert not torch.allclose(plain[site], expected[site], rtol=0.1, atol=1e-3)


def cancelling() -> tuple[Ablation, TokenizedPairs]:
    """Neuron 0 of layer 0 writes channel 0, which a neuron of layer 1 reads and answers with -1."""
    transformer = blank(2)
    first, second = (block.mlp for block in transformer.blocks)
    with torch.no_grad():
        first.up.weight[0, 1] = 1.0
        first.up.bias[0] = second.up.bias[0] = 20
        first.down.weight[0, 0] = 2.0
        second.up.weight[0, 0] = 1.0
        second.down.weight[0, 0] = -1.0
    return judged(transformer)


def test_an_effect_that_cancels_is_seen_by_dropping_a_layer() -> None:
    ablation, rows = cancelling()
    plain = ablation.space.split(attribution(ablation, rows))["0.mlp.post_act"]
    assert abs(float(plain[0])) < 1e-6
    with ablation.transformer.recorded(["0.mlp.post_act"]) as values, torch.no_grad():
        ablation.transformer(rows.tokens)
    change = ablation.means["0.mlp.post_act"][0] - values["0.mlp.post_act"][..., 0]
    direct = (
        change[range(4), rows.last_positions]
        * 2.0
        * ablation.transformer.unembed.weight[4, 0].detach()
    )
    found = ablation.space.split(atp_star(ablation, rows))["0.mlp.post_act"]
    # Of five runs, one drops the neuron's own MLP; of the other four, one the layer that cancels.
    assert float(found[0]) == pytest.approx(float(direct.mean().abs()) / 4, rel=1e-5)
    assert float(found[0]) > 0.01


def test_other_nodes_score_the_gradient(ablation: Ablation, rows: TokenizedPairs) -> None:
    with without_weight_gradients(ablation.transformer):
        effects = run_effects(ablation, rows)
    assert effects.shape == (5, ablation.space.size)
    found = ablation.space.split(effects[-1] / len(rows.last_positions))
    expected = ablation.space.split(attribution(ablation, rows, signed=True))
    for site in set(found) - {"0.attn.q", "0.attn.k", "1.attn.q", "1.attn.k"}:
        assert torch.allclose(found[site], expected[site], atol=1e-6)


def test_pieces_give_what_one_pair_at_a_time_does(
    random_model: Model, ablation: Ablation, task: Task
) -> None:
    rows = task.take(task.pairs[:32]).encode(random_model.tokenizer, 80)
    assert len(length_groups(rows, 5)) > 1
    assert all(
        5 * rows.select(part).tokens.numel() <= PASS_TOKENS for part in length_groups(rows, 5)
    )
    pairs = [rows.select(torch.tensor([i])) for i in range(rows.n_pairs)]
    with without_weight_gradients(ablation.transformer):
        effects = sum((run_effects(ablation, pair) for pair in pairs), torch.zeros(())) / len(
            rows.last_positions
        )
    found = atp_star(ablation, rows)
    assert found.dtype == torch.float32
    assert bool((found >= 0).all())
    assert torch.allclose(found, effects.abs().sum(0) / 4, atol=1e-6)
