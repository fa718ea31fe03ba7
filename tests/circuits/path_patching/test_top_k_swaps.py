import inspect

import pytest
import torch
from random_models import VOCAB, contrast_of
from torch import Tensor, nn

from wirework.circuits.path_patching.patched import Patched
from wirework.circuits.path_patching.path_attribution import (
    TOLERANCE,
    completeness,
    edge_attribution,
    path_scores,
)
from wirework.circuits.path_patching.top_k_swaps import (
    recorded_selections,
    slopes_between,
    top_k_mask,
)
from wirework.config import ModelConfig
from wirework.model import Model
from wirework.nn import Site, Transformer
from wirework.nn.kernels.top_k import abs_top_k
from wirework.tasks import Task


class OneSite(nn.Module):
    """A model that is AbsTopK and nothing else."""

    def __init__(self, width: int, k: int) -> None:
        super().__init__()
        self.site = Site(width, k)


def slope_of(a: Tensor, b: Tensor, grad: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return AbsTopK's value between a and b, and what becomes of a gradient of it."""
    model = OneSite(a.shape[-1], k)
    with recorded_selections(model) as start:
        model.site(a)
    with recorded_selections(model) as stop:
        model.site(b)
    x = ((a + b) / 2).requires_grad_()
    with slopes_between(model, start, stop):
        value = model.site(x)
    (slope,) = torch.autograd.grad(value, x, grad)
    assert model.site.k == k
    assert not model.site.edits
    return value.detach(), slope


def test_one_swap_by_hand() -> None:
    """Channel 1 takes the place of channel 0: |x_1| - |x_0| grows by 4, the mean of both is 2."""
    a, b = torch.tensor([[[3.0, 1.0]]]).double(), torch.tensor([[[1.0, 3.0]]]).double()
    value, slope = slope_of(a, b, torch.tensor([[[10.0, 1.0]]]).double(), k=1)
    assert value.tolist() == [[[1.5, 1.5]]]
    # half of each gradient, and (2 x 1 - 2 x 10) / 4 = -4.5 for channel 1, +4.5 for channel 0
    assert slope.tolist() == [[[5 + 4.5, 0.5 - 4.5]]]


def test_without_swaps_it_is_the_gradient_of_the_channels_kept() -> None:
    a, b = torch.tensor([[[3.0, -1.0, 4.0]]]).double(), torch.tensor([[[2.0, 1.0, -5.0]]]).double()
    grad = torch.tensor([[[7.0, 8.0, 9.0]]]).double()
    assert slope_of(a, b, grad, k=2)[1].tolist() == [[[7.0, 0.0, 9.0]]]


@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_slope_times_way_is_the_change_whatever_is_swapped(zeros: float) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, grad = torch.randn(3, 4, 6, 32, generator=generator, dtype=torch.float64)
    a = a * (torch.rand(a.shape, generator=generator) >= zeros)
    b = b * (torch.rand(b.shape, generator=generator) >= zeros)
    for k in (1, 7, 20, 31):
        slope = slope_of(a, b, grad, k)[1]
        change = (grad * (abs_top_k(b, k) - abs_top_k(a, k))).sum(-1)
        assert torch.allclose((slope * (b - a)).sum(-1), change, atol=1e-9)


def test_what_is_kept_is_what_abs_top_k_keeps() -> None:
    x = torch.tensor([[2.0, -2.0, 1.0, 2.0, 0.0], [0.0, 0.0, -1.0, 0.0, 0.0]])
    for k in (1, 2, 3):
        assert torch.equal(x * top_k_mask(x, k), abs_top_k(x, k))
    assert top_k_mask(x, 2).sum(-1).tolist() == [2, 2]


@pytest.mark.parametrize("seed", [0, 1])
def test_scores_of_a_model_with_abs_top_k_add_up_by_default(seed: int) -> None:
    config = {"vocab_size": VOCAB, "n_ctx": 16, "n_layer": 2, "d_model": 64, "d_head": 16}
    transformer = Transformer(ModelConfig.of({**config, "act_fraction": 0.25}), seed)
    patched = Patched.of(transformer, contrast_of(prompts=8, length=10))
    measure = patched.contrast.metric("kl", patched.run().logits)
    steps = inspect.signature(edge_attribution).parameters["steps"].default
    share = completeness(patched, measure, path_scores(patched, measure, steps))
    assert share == pytest.approx(1, abs=TOLERANCE)


def test_scores_that_do_not_add_up_are_told(
    random_model: Model, task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    off = edge_attribution(random_model, task, pairs=4, steps=1, metric="task_loss").completeness
    assert off is not None
    assert abs(off - 1) > TOLERANCE
    line = capsys.readouterr().err
    assert f"add up to {off:.0%}" in line
    assert "steps=1" in line
