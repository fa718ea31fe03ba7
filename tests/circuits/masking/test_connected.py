"""Connected models against the masked model, for every architecture."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformer_variants import VARIANTS, build

from wirework.circuits import Ablation
from wirework.circuits.masking.connected import ConnectedModel
from wirework.circuits.masking.connected_nodes import computed_channels
from wirework.nn import Transformer
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.tasks import TokenizedPairs

BATCH = TokenizedPairs(
    torch.tensor(
        [[3, 5, 7, 2, 11, 16], [3, 5, 9, 2, 0, 0], [3, 5, 7, 2, 11, 4], [8, 0, 0, 0, 0, 0],
         [3, 5, 7, 0, 0, 0], [8, 3, 3, 5, 0, 0]]
    ),
    torch.tensor([5, 3, 5, 0, 2, 3]),
    torch.tensor([[1, 2], [2, 1]] * 3),
)  # fmt: skip


@pytest.fixture(params=VARIANTS)
def transformer(request: pytest.FixtureRequest) -> Transformer:
    return build(request.param)


@torch.no_grad()
def sparse(transformer: Transformer) -> Transformer:
    """Set most entries, and whole rows, of all matrices and biases to zero."""
    generator = torch.Generator().manual_seed(5)
    for _, parameter, _ in transformer.prunable():
        parameter.mul_(torch.rand(parameter.shape, generator=generator) < 0.3)
        rows = torch.rand(len(parameter), generator=generator) < 0.6
        parameter.mul_(rows.view(-1, *[1] * (parameter.dim() - 1)))
    return transformer


def ablation_of(transformer: Transformer, share: float = 0.3, **options: bool) -> Ablation:
    """Node masks with random means, of which most are zero."""
    generator = torch.Generator().manual_seed(1)
    means = {}
    for name, site in transformer.sites.items():
        is_zero = torch.rand(site.width, generator=generator) > share
        means[name] = torch.randn(site.width, generator=generator).masked_fill(is_zero, 0)
    return Ablation.of(transformer, means, **options)


def outputs_and_gradients(
    run: Callable[[Tensor, TokenizedPairs], Tensor], ablation: Ablation
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    gates = (torch.rand(3, ablation.size, generator=generator) < 0.7).float().requires_grad_()
    logit_diffs = run(gates, BATCH)
    (gradient,) = torch.autograd.grad(logit_diffs.square().sum(), gates)
    return logit_diffs.detach(), gradient


def assert_same(ablation: Ablation) -> None:
    expected, expected_gradient = outputs_and_gradients(ablation.logit_diffs, ablation)
    connected = ConnectedModel(ablation)

    def run(gates: Tensor, batch: TokenizedPairs) -> Tensor:
        return connected.logit_diffs(ablation.nodes(gates), batch)

    found, gradient = outputs_and_gradients(run, ablation)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    scale = max(1.0, float(expected_gradient.abs().max()))
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_outputs_and_gradients_are_those_of_the_masked_model(
    transformer: Transformer, is_sparse: bool, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With 16, these narrow sites are computed whole or not at all.
    monkeypatch.setattr("wirework.circuits.masking.connected_nodes._LANES", lanes)
    assert_same(ablation_of(sparse(transformer) if is_sparse else transformer))


def test_queries_and_keys_may_share_gates() -> None:
    assert_same(ablation_of(sparse(build("default")), tie_qk=True))


@pytest.mark.parametrize("name", ["attn.out", "attn.qkv", "mlp.down", "mlp.up"])
@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)])
def test_matrices_of_zeros(name: str, layers: tuple[int, ...]) -> None:
    transformer = build("default")
    with torch.no_grad():
        for layer in layers:
            matrix = transformer.blocks[layer].get_submodule(name)
            for parameter in matrix.parameters():
                parameter.zero_()
    assert_same(ablation_of(transformer, share=0.0))


def test_heads_without_values_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirework.circuits.masking.connected_nodes._LANES", 1)
    transformer = build("default")
    attention = transformer.blocks[0].attn
    width, inner = attention.d_head, attention.y.width
    with torch.no_grad():  # the values of the first head, and the keys of the last one
        for rows in (slice(2 * inner, 2 * inner + width), slice(2 * inner - width, 2 * inner)):
            attention.qkv.weight[rows] = 0
            attention.qkv.bias[rows] = 0
    assert_same(ablation_of(transformer, share=0.0))


def test_only_nodes_that_are_always_zero_are_left_out() -> None:
    transformer = build("default")
    up, down = transformer.blocks[0].mlp.up, transformer.blocks[0].mlp.down
    n_neurons = len(up.weight)
    with torch.no_grad():
        up.weight[5:] = 0
        up.bias[6:] = 0
        down.weight[:, :10] = 0  # unread, but neurons compete for the places of AbsTopK
        down.bias.zero_()
    means = {name: torch.zeros(site.width) for name, site in transformer.sites.items()}
    means["0.mlp.post_act"][20] = 1
    channels = computed_channels(Ablation.of(transformer, means))
    # Neurons 0 to 4 have weights, 5 a bias, 20 a mean; ten others make 16, the lowest ones.
    kept = [*range(15), 20]
    assert n_neurons > 32
    assert channels["0.mlp.post_act"].tolist() == kept
    assert channels["0.mlp.act_in"].tolist() == list(range(16))


def test_no_connected_model_where_it_would_differ() -> None:
    transformer = build("default")
    ablation = ablation_of(transformer)
    assert ablation.connected() is not None
    with transformer.edited({"1.resid_in": lambda x: x + 1}):
        assert ablation.connected() is None
    cached = {name: torch.zeros(3, width) for name, width in ablation.space.widths.items()}
    assert replace(ablation, activation_cache=cached).connected() is None
    assert ablation_of(transformer.double()).connected() is None


def test_the_connected_model_is_kept_while_weights_do_not_change() -> None:
    ablation = ablation_of(build("default"))
    assert ablation.connected() is not ablation.connected()
    with unchanged_weights():
        assert ablation.connected() is ablation.untied().connected()
        other = replace(ablation, transformer=build("default"))
        assert other.connected() is not ablation.connected()


def test_losses_of_large_masks_are_those_of_the_masked_model() -> None:
    ablation = ablation_of(sparse(build("default")))
    generator = torch.Generator().manual_seed(3)
    shares = torch.tensor([0.9, 0.5, 0.005])[:, None]
    masks = (torch.rand(3, ablation.size, generator=generator) < shares).float()
    expected = ablation.logit_diffs(masks, BATCH).detach()
    torch.testing.assert_close(ablation.all_logit_diffs(masks, BATCH), expected)
    loss = float(torch.nn.functional.softplus(-expected.double()).mean(1)[1])
    assert ablation.within(masks[1], BATCH, loss + 1e-5)
    assert not ablation.within(masks[1], BATCH, loss - 1e-5)
