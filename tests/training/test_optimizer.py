import pytest
import torch
from present import present
from torch import nn

from wirework.config import ModelConfig, OptimizerConfig
from wirework.nn import Transformer
from wirework.training.optimizer import make_optimizer, scale_gradients_, set_learning_rate_


def parameters(*gradients: list[float]) -> list[nn.Parameter]:
    found = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros(len(gradient)))
        parameter.grad = torch.tensor(gradient)
        found.append(parameter)
    return found


class TestScaleGradients:
    def test_normalise_brings_the_rms_of_the_whole_gradient_to_one(self):
        held = parameters([3.0, 4.0], [0.0, 0.0])  # root of 25 / 4
        assert scale_gradients_(held, "normalise").item() == 2.5
        assert present(held[0].grad).tolist() == pytest.approx([1.2, 1.6])
        small = parameters([0.003, 0.004])
        scale_gradients_(small, "normalise")
        assert present(small[0].grad).square().mean().item() == pytest.approx(1.0)

    def test_clip_acts_only_from_above(self):
        large, small = parameters([3.0, 4.0, 0.0, 0.0]), parameters([0.3, 0.4])
        scale_gradients_(large, "clip")
        scale_gradients_(small, "clip")
        assert present(large[0].grad).tolist() == pytest.approx([1.2, 1.6, 0.0, 0.0])
        assert present(small[0].grad).tolist() == pytest.approx([0.3, 0.4])

    def test_clip_norm_acts_on_the_norm_and_only_from_above(self):
        large, small = parameters([3.0, 4.0], [0.0, 0.0]), parameters([0.3, 0.4])
        assert scale_gradients_(large, "clip_norm").item() == 2.5  # still the root mean square
        scale_gradients_(small, "clip_norm")
        assert present(large[0].grad).tolist() == pytest.approx([0.6, 0.8])
        assert present(small[0].grad).tolist() == pytest.approx([0.3, 0.4])

    def test_none_leaves_the_gradient(self):
        held = parameters([3.0, 4.0])
        assert scale_gradients_(held, "none").item() == pytest.approx(12.5**0.5)
        assert present(held[0].grad).tolist() == [3.0, 4.0]

    @pytest.mark.parametrize("gradient", [[0.0, 0.0], [torch.inf, 1.0], [torch.nan, 1.0]])
    @pytest.mark.parametrize("mode", ["normalise", "clip", "clip_norm"])
    def test_a_gradient_without_a_usable_scale_is_left_as_it_is(self, gradient, mode):
        held = parameters(gradient)
        rms = scale_gradients_(held, mode)
        assert torch.equal(
            present(held[0].grad).nan_to_num(-1), torch.tensor(gradient).nan_to_num(-1)
        )
        assert rms.item() == 0.0 or not rms.isfinite()

    def test_parameters_without_gradient_are_absent(self):
        held = [*parameters([3.0, 4.0]), nn.Parameter(torch.zeros(100))]
        assert scale_gradients_(held, "normalise").item() == pytest.approx(12.5**0.5)


class TestMakeOptimizer:
    def test_only_matrices_decay(self):
        transformer = Transformer(
            ModelConfig(vocab_size=16, n_ctx=8, n_layer=1, d_model=16, d_head=8)
        )
        optimizer = make_optimizer(transformer, OptimizerConfig(weight_decay=0.1))
        names = {id(p): name for name, p in transformer.named_parameters()}
        groups = {
            g["weight_decay"]: {names[id(p)] for p in g["params"]} for g in optimizer.param_groups
        }
        matrices = ("attn.qkv", "attn.out", "mlp.up", "mlp.down")
        decayed = {"embed.weight", "unembed.weight", *(f"blocks.0.{m}.weight" for m in matrices)}
        assert groups[0.1] == decayed
        assert groups[0.0] == set(names.values()) - decayed
        assert "bigram" in groups[0.0]

    def test_a_frozen_bigram_table_is_not_optimized(self):
        config = ModelConfig(vocab_size=16, n_layer=1, d_model=16, d_head=8, learn_bigram=False)
        transformer = Transformer(config)
        optimizer = make_optimizer(transformer, OptimizerConfig())
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert id(transformer.bigram) not in held

    def test_a_step_is_adamw_by_its_definition(self):
        transformer = Transformer(ModelConfig(vocab_size=16, n_layer=1, d_model=16, d_head=8))
        config = OptimizerConfig(eps=0.1, weight_decay=0.5)
        optimizer = make_optimizer(transformer, config)
        set_learning_rate_(optimizer, 0.01)
        weight, bias = transformer.embed.weight, transformer.blocks[0].mlp.up.bias
        before = weight.detach().clone()
        weight.grad, bias.grad = torch.full_like(weight, 2.0), torch.full_like(bias, 2.0)
        optimizer.step()
        # After one step both moments, corrected for their bias, are the gradient and its square.
        move = 0.01 * 2.0 / (2.0 + 0.1)
        assert torch.allclose(weight, before * (1 - 0.01 * 0.5) - move, atol=1e-6)
        assert torch.allclose(bias, torch.full_like(bias, -move), atol=1e-6)
