import os
import signal

import pytest
import torch

from wirework.config import ModelConfig, WeightSparsityConfig
from wirework.errors import InputError
from wirework.nn import Transformer, device_reads
from wirework.training import Prior, train
from wirework.training.checkpoint import checkpoint_steps
from wirework.training.nonfinite import locate_nonfinite, nonfinite_parameter
from wirework.training.weight_sparsity import WeightSparsity

MODEL = ModelConfig(vocab_size=16, n_ctx=8, n_layer=2, d_model=16, d_head=8)
TOKENS = torch.arange(8)[None]


def locate(transformer: Transformer) -> str | None:
    trained = dict(transformer.named_parameters())
    return locate_nonfinite(transformer, trained, lambda: transformer.loss(TOKENS, TOKENS))


class TestLocateNonfinite:
    def test_a_healthy_model_has_nothing_to_blame(self):
        assert locate(Transformer(MODEL)) is None

    def test_the_first_parameter_is_named(self):
        transformer = Transformer(MODEL)
        with torch.no_grad():
            transformer.blocks[1].mlp.up.weight[0, 0] = torch.inf
            transformer.unembed.weight[0, 0] = torch.nan
        assert nonfinite_parameter(dict(transformer.named_parameters())) == "blocks.1.mlp.up.weight"
        found = locate(transformer)
        assert found == "parameter blocks.1.mlp.up.weight"

    def test_the_first_site_is_named_when_parameters_are_finite(self):
        transformer = Transformer(MODEL)
        with torch.no_grad():
            transformer.blocks[1].mlp.down.weight.fill_(3e38)  # finite, but its sums are not
            transformer.blocks[1].mlp.up.bias.fill_(9.0)
        assert locate(transformer) == "site 1.mlp.resid_delta"
        assert all(not site._forward_pre_hooks for site in transformer.sites.values())

    def test_a_gradient_is_named_last(self):
        transformer = Transformer(MODEL)
        transformer.norm.weight.grad = torch.full_like(transformer.norm.weight, torch.nan)
        assert locate(transformer) == "gradient of norm.weight"


class Poison(Prior):
    def __init__(self, step: int) -> None:
        self.step = step

    def wrap_model(self, transformer):
        self.transformer = transformer
        return transformer

    def after_step(self, step):
        if step == self.step:
            with torch.no_grad():
                self.transformer.blocks[0].attn.out.bias[3] = torch.nan
        return {}


class NaNGradient(Prior):
    """A parameter trained apart whose gradient is NaN at a step, while all losses are finite."""

    own_lr = 0.1

    def __init__(self, step: int) -> None:
        self.step = step

    def wrap_model(self, transformer):
        self.factor = torch.nn.Parameter(torch.ones(()))
        return transformer

    def parameters(self):
        return {"own.factor": self.factor}

    def loss(self, clean, tokens, targets):
        losses = clean()
        return {**losses, "total": losses["total"] + self.factor**2}

    def learning_rate_factor(self, step):
        if step == self.step - 1:
            self.factor.register_hook(lambda gradient: gradient * torch.nan)
        return 1.0


class TestDivergedRun:
    def test_a_gradient_of_a_parameter_trained_apart_stops_before_the_update(self, settings):
        prior = NaNGradient(3)
        with pytest.raises(InputError, match=r"at step 3, first in gradient of own\.factor; "):
            train(settings(), progress=False, priors=[prior])
        assert prior.factor.isfinite()

    def test_a_run_that_diverges_stops_in_one_line(self, settings):
        config = settings(
            checkpoint_every=2, optimizer={"lr": 1e36, "warmup": 0.5, "weight_decay": 0}
        )
        with pytest.raises(InputError) as caught:
            train(config, progress=False)
        message = str(caught.value)
        assert message.startswith("NaN or infinity at step ")
        assert "first in " in message
        assert "last good checkpoint: " in message
        assert "\n" not in message

    @pytest.mark.parametrize(("step", "found_at", "saved"), [(5, 6, "step-4"), (7, 8, "step-4")])
    def test_step_tensor_and_last_good_checkpoint_are_named(
        self, settings, monkeypatch, step, found_at, saved
    ):
        # At step 8 an evaluation comes first, then a checkpoint: neither may pass the poison on.
        monkeypatch.setattr("wirework.training.job.make_priors", lambda *_: [Poison(step)])
        config = settings(weight_sparsity=None)
        with pytest.raises(InputError) as caught:
            train(config, progress=False)
        message = str(caught.value)
        assert f"at step {found_at}, first in parameter blocks.0.attn.out.bias" in message
        assert f"checkpoints/{saved}; " in message
        assert (config.runs / config.name / "checkpoints" / saved).is_dir()

    def test_a_stop_does_not_save_what_is_not_finite(self, settings, monkeypatch):
        class Stopped(Poison):
            def after_step(self, step):
                if step == self.step:
                    os.kill(os.getpid(), signal.SIGTERM)
                return super().after_step(step)

        monkeypatch.setattr("wirework.training.job.make_priors", lambda *_: [Stopped(5)])
        config = settings(weight_sparsity=None)
        with pytest.raises(InputError, match=r"at step 6, first in parameter blocks\.0\.attn\.out"):
            train(config, progress=False)
        assert checkpoint_steps(config.runs / config.name / "checkpoints") == [4]

    def test_an_error_that_no_nan_caused_keeps_its_traceback(self, settings, monkeypatch):
        class Broken(Poison):
            def after_step(self, step):
                raise ValueError("a defect of ours")

        monkeypatch.setattr("wirework.training.job.make_priors", lambda *_: [Broken(0)])
        with pytest.raises(ValueError, match="a defect of ours") as caught:
            train(settings(), progress=False)
        assert not isinstance(caught.value, InputError)


class LateNaN(WeightSparsity):
    """Weight sparsity as on a device, with a weight that becomes NaN in the update of a step.

    The embedding of a token that does not occur: no loss depends on it.
    """

    def __init__(self, step: int) -> None:
        config = WeightSparsityConfig(l0_fraction=0.15, anneal_start=0, anneal_end=1e-9)
        super().__init__(config, steps=12)
        self.step = step

    def wrap_model(self, transformer):
        self.embed = transformer.embed.weight
        return super().wrap_model(transformer)

    def after_step(self, step):
        if step == self.step:
            with torch.no_grad():
                self.embed[399, 3] = torch.nan
        return super().after_step(step)


class NaNSite(Prior):
    """A NaN before AbsTopK at a site of one step, of which nothing is left behind the site."""

    def __init__(self, step: int) -> None:
        self.step = step

    def wrap_model(self, transformer):
        self.site = transformer.sites["0.mlp.post_act"]
        return transformer

    def learning_rate_factor(self, step):
        if step == self.step - 1:
            self.site.register_forward_pre_hook(lambda _, inputs: (self._spoil(inputs[0]),))
            self.site.register_forward_hook(lambda _, inputs, output: output.nan_to_num())
        return 1.0

    def _spoil(self, x):
        return x.masked_fill(torch.arange(x.shape[-1]) == 3, torch.nan)


class TestDeferredFlag:
    @pytest.mark.parametrize("on_cpu", [True, False])
    @pytest.mark.parametrize(("step", "saved"), [(5, "step-4"), (7, "step-4"), (11, "step-8")])
    def test_the_error_is_that_of_the_cpu(self, settings, monkeypatch, step, saved, on_cpu):
        # After steps 5 and 11 an evaluation comes next, after 7 and 11 a checkpoint.
        monkeypatch.setattr(WeightSparsity, "_on_cpu", lambda self: on_cpu)
        monkeypatch.setattr("wirework.training.job.make_priors", lambda *_: [LateNaN(step)])
        config = settings()
        with pytest.raises(InputError) as caught:
            train(config, progress=False)
        message = str(caught.value)
        assert f"at step {step}, first in parameter embed.weight; " in message
        assert f"checkpoints/{saved}; " in message

    def test_a_step_between_reads_the_flag_with_its_losses(self, settings, monkeypatch):
        monkeypatch.setattr(WeightSparsity, "_on_cpu", lambda self: False)
        monkeypatch.setattr("wirework.training.job.make_priors", lambda *_: [LateNaN(1)])
        with pytest.raises(InputError, match=r"at step 1, first in parameter embed\.weight; "):
            train(settings(), progress=False)

    def test_a_nan_in_abs_top_k_is_named_as_on_the_cpu(self, settings, monkeypatch):
        monkeypatch.setattr("wirework.training.job.make_priors", lambda *_: [NaNSite(3)])
        for number, deferred in enumerate((False, True)):
            if deferred:
                monkeypatch.setattr("wirework.nn.kernels.top_k._by_torch", lambda x: True)
                monkeypatch.setattr(
                    "wirework.nn.device_reads.may_read",
                    lambda x: device_reads._state.scalars is None,
                )
            config = settings(f"run{number}", model={"act_fraction": 0.5}, weight_sparsity=None)
            with pytest.raises(InputError, match=r"at step 3, first in site 0\.mlp\.post_act; "):
                train(config, progress=False)
