import pytest
import torch
from present import present
from straight import rises, straight

from wirework.circuits import Ablation, attribution, integrated_gradients, node_means, random_order
from wirework.config import ModelConfig
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs


def by_hooks(ablation: Ablation, rows: TokenizedPairs) -> torch.Tensor:
    """Score with plain PyTorch hooks, one prompt at a time."""
    total = torch.zeros(ablation.space.size)
    for tokens, at, answers in zip(rows.tokens, rows.last_positions, rows.answers, strict=True):
        values = hooked(ablation, tokens[None, : at + 1], answers)
        changes = {
            name: ((ablation.means[name] - value) * value.grad).detach().sum((0, 1))
            for name, value in values.items()
        }
        total += ablation.space.join(changes)
    ablation.transformer.zero_grad()
    return total / len(rows.last_positions)


def hooked(ablation: Ablation, tokens: torch.Tensor, answers: torch.Tensor):
    """Return each node site's value with its gradient of one prompt's loss."""
    values: dict[str, torch.Tensor] = {}
    hooks = []
    for name in ablation.space.widths:

        def keep(module, inputs, output, name=name) -> None:
            output.retain_grad()
            values[name] = output

        module = ablation.transformer.get_submodule(f"blocks.{name}")
        hooks.append(module.register_forward_hook(keep))
    logits = ablation.transformer(tokens)[0, -1]
    torch.nn.functional.cross_entropy(logits[answers], torch.tensor(0)).backward()
    for hook in hooks:
        hook.remove()
    return values


def test_attribution_is_what_plain_hooks_find(ablation: Ablation, rows: TokenizedPairs) -> None:
    found = attribution(ablation, rows, signed=True)
    assert found.dtype == torch.float32
    assert found.shape == (ablation.space.size,)
    assert torch.allclose(found, by_hooks(ablation, rows), atol=1e-6)
    assert float(found.min()) < -0.01
    assert torch.equal(attribution(ablation, rows), found.abs())


def test_attribution_of_a_linear_model_is_the_true_rise() -> None:
    ablation, rows = straight(queries=False)
    expected = rises(ablation, rows)
    found = attribution(ablation, rows, signed=True).double()
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert int((expected.abs() > 0.01).sum()) > 20


def test_attribution_takes_no_gradient_of_weights(ablation: Ablation, rows: TokenizedPairs) -> None:
    attribution(ablation, rows)
    assert all(p.grad is None and p.requires_grad for p in ablation.transformer.parameters())


@pytest.fixture(scope="module")
def smooth(rows: TokenizedPairs) -> Ablation:
    """A model without AbsTopK, whose loss has no jumps along the path."""
    config = ModelConfig(
        vocab_size=512, n_ctx=80, n_layer=2, d_model=16, d_head=8, d_mlp=24, act_fraction=None
    )
    transformer = Transformer(config, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if weight.dim() == 2 and name != "bigram":
                weight.normal_(0, 0.5, generator=generator)
    return Ablation.of(transformer, node_means(transformer, [rows.tokens]))


def test_integrated_gradients_add_up_to_the_rise_of_ablating_all(
    smooth: Ablation, rows: TokenizedPairs
) -> None:
    ends = torch.stack([torch.zeros(smooth.space.size), torch.ones(smooth.space.size)])
    nothing, everything = smooth.losses(ends, rows).tolist()
    rise = nothing - everything
    error = {
        steps: abs(float(integrated_gradients(smooth, rows, steps=steps, signed=True).sum()) - rise)
        for steps in (4, 64)
    }
    assert abs(rise) > 0.1
    assert error[64] < 0.01 * abs(rise)
    assert error[64] < error[4]


def test_one_step_of_integrated_gradients_is_the_gradient_at_the_middle(
    smooth: Ablation, rows: TokenizedPairs
) -> None:
    gates = torch.full((1, smooth.space.size), 0.5, requires_grad=True)
    torch.nn.functional.softplus(-smooth.logit_diffs(gates, rows)).mean().backward()
    found = integrated_gradients(smooth, rows, steps=1, signed=True)
    assert torch.allclose(found, -present(gates.grad)[0], atol=1e-6)
    assert torch.equal(integrated_gradients(smooth, rows, steps=1), found.abs())


def test_no_steps_are_refused(ablation: Ablation, rows: TokenizedPairs) -> None:
    with pytest.raises(InputError, match="at least 1 step, got 0"):
        integrated_gradients(ablation, rows, steps=0)


def test_random_order_is_a_permutation_by_its_seed() -> None:
    found = random_order(50, 1)
    assert (found * 50).round().sort().values.tolist() == list(range(50))
    assert torch.equal(found, random_order(50, 1))
    assert not torch.equal(found, random_order(50, 2))
