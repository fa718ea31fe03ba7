import math
from dataclasses import replace

import pytest
import torch

from wirework.circuits import Ablation, MaskSettings, heaviside, learn_masks
from wirework.circuits.pruning.learned_masks import _adamw_, _columns, _gradient, _schedule
from wirework.tasks import TokenizedPairs

CENTRE = MaskSettings(1e-3, 1e-2, 1e-1, 1e-3, 1e-2, 5e-2, 5e-2, 1.0)


def test_heaviside_steps_forward_and_slopes_backward() -> None:
    tau = torch.tensor([-0.5, 0.0, 0.5], requires_grad=True)
    gates = heaviside(tau, 0.5)
    assert gates.tolist() == [0, 0, 1]
    gates.backward(torch.tensor([1.0, 1.0, 2.0]))
    # sigmoid(1) (1 - sigmoid(1)) = 0.19661; the temperature 1/2 doubles it
    assert tau.grad is not None
    assert tau.grad.tolist() == pytest.approx([0.39322, 0.5, 0.78645], abs=1e-5)


class TestAdamw:
    def test_one_adamw_step_by_hand(self) -> None:
        settings = [CENTRE, replace(CENTRE, inv_beta2=0.5, weight_decay=0.0)]
        columns = _columns(settings, torch.device("cpu"))
        tau, gradient = torch.full((2, 1), 0.5), torch.tensor([[0.3], [-0.2]])
        first, second = torch.zeros(2, 1), torch.zeros(2, 1)
        _adamw_(tau, gradient, first, second, columns, columns.lr, 1)
        # At step 1 both corrected moments are the gradient's own: a step of lr against its sign.
        assert tau.flatten().tolist() == pytest.approx([0.5 * (1 - 1e-5) - 0.01, 0.51], abs=1e-6)

    def test_adamw_is_torchs_for_each_trial(self) -> None:
        settings = [CENTRE, replace(CENTRE, lr=0.05, inv_beta2=0.2, weight_decay=0.1)]
        columns = _columns(settings, torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        start, gradients = (
            torch.randn(2, 6, generator=generator),
            torch.randn(9, 2, 6, generator=generator),
        )
        ours, first, second = start.clone(), torch.zeros(2, 6), torch.zeros(2, 6)
        for step, gradient in enumerate(gradients, 1):
            _adamw_(ours, gradient, first, second, columns, columns.lr, step)
        for r, trial in enumerate(settings):
            theirs = torch.nn.Parameter(start[r].clone())
            optimizer = torch.optim.AdamW(
                [theirs], lr=trial.lr, betas=(0.9, 1 - trial.inv_beta2), eps=1e-8,
                weight_decay=trial.weight_decay,
            )  # fmt: skip
            for gradient in gradients[:, r]:
                theirs.grad = gradient.clone()
                optimizer.step()
            assert torch.allclose(ours[r], theirs.detach(), atol=1e-6)


def test_the_rate_rises_then_falls_to_zero() -> None:
    shares = [float(_schedule(step, 99, torch.tensor([0.1]))) for step in range(1, 100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == pytest.approx(1.0)
    assert shares.index(max(shares)) == 9
    assert shares[-1] == pytest.approx(0.01 / 0.9)


def test_the_gradient_is_that_of_loss_and_price(ablation: Ablation, rows: TokenizedPairs) -> None:
    # The slope is d loss / d gate with all gates open, times the surrogate's 1/4 at tau 0+.
    tau = torch.full((1, ablation.space.size), 1e-6)
    columns = _columns([CENTRE], torch.device("cpu"))
    found = _gradient(ablation, rows, tau, columns)[0]
    gates = torch.ones(1, ablation.space.size, requires_grad=True)
    loss = torch.nn.functional.softplus(-ablation.logit_diffs(gates, rows)).mean()
    (slope,) = torch.autograd.grad(loss, gates)
    expected = (slope[0] + 1e-3) / 4
    expected = expected / max(1.0, float(expected.norm()))
    assert torch.allclose(found, expected, atol=1e-5)


class TestLearnMasks:
    def test_trials_side_by_side_are_those_alone(
        self, ablation: Ablation, rows: TokenizedPairs
    ) -> None:
        settings = [
            CENTRE,
            replace(CENTRE, k_coef=1e-2, lr=3e-2),
            replace(CENTRE, heaviside_temp=0.5),
        ]
        run = {"steps": 6, "batch_pairs": 6}
        together = learn_masks(ablation, rows, settings, seeds=[7, 7, 7], **run)
        for trial, tau in zip(settings, together, strict=True):
            alone = learn_masks(ablation, rows, [trial], seeds=[7], **run)[0]
            # Adam divides by the gradient's size: where that is rounding noise, so is the step.
            close = (tau - alone).abs() < 1e-5
            assert close.float().mean() > 0.97
        assert together.abs().max() <= 1

    def test_masks_are_those_of_the_masked_model(
        self, ablation: Ablation, rows: TokenizedPairs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = [CENTRE, replace(CENTRE, k_coef=1e-2, lr=3e-2)]
        run = {"steps": 10, "batch_pairs": 6, "seeds": [7, 8]}
        found = learn_masks(ablation, rows, settings, **run)
        monkeypatch.setattr(Ablation, "connected", lambda _: None)
        expected = learn_masks(ablation, rows, settings, **run)
        assert not torch.equal(found, expected)  # another order of sums
        assert ((found - expected).abs() < 1e-5).float().mean() > 0.97
        assert ((found > 0) == (expected > 0)).float().mean() > 0.99

    def test_a_price_without_need_turns_everything_off(
        self, ablation: Ablation, rows: TokenizedPairs
    ) -> None:
        dear = replace(CENTRE, k_coef=10.0, lr=0.05)
        tau = learn_masks(ablation, rows, [dear], steps=20, batch_pairs=2, seeds=[0])
        assert (tau < 0).all()
        assert math.isfinite(float(tau.sum()))

    def test_a_trial_that_is_stopped_keeps_its_masks(
        self, ablation: Ablation, rows: TokenizedPairs
    ) -> None:
        settings = [
            CENTRE,
            replace(CENTRE, k_coef=1e-2, lr=3e-2),
            replace(CENTRE, heaviside_temp=0.5),
        ]
        seen = []

        def after_step(step: int, trials: list[int], tau: torch.Tensor) -> list[bool]:
            seen.append((step, trials, tau.clone()))
            return [trial != 1 or step < 2 for trial in trials]

        run = {"batch_pairs": 6, "seeds": [7, 8, 9]}
        found = learn_masks(ablation, rows, settings, steps=4, after_step=after_step, **run)
        assert [(step, trials) for step, trials, _ in seen] == [
            (1, [0, 1, 2]), (2, [0, 1, 2]), (3, [0, 2]), (4, [0, 2]),
        ]  # fmt: skip
        assert torch.equal(found[1], seen[1][2][1])
        assert torch.equal(found[[0, 2]], seen[3][2])
        assert not torch.equal(found[0], seen[1][2][0])
