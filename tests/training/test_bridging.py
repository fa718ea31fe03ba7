"""Bridges: losses against slow passes, gradients, whole runs and refused settings."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from present import present
from test_resume import assert_same
from test_start_from import StopAfter
from torch import Tensor
from transformer_variants import build

from wirework.config import BridgeConfig, ModelConfig
from wirework.data import Tokenizer
from wirework.errors import InputError
from wirework.files import read_record
from wirework.model import Model, load
from wirework.nn import Transformer
from wirework.nn.residual_locations import location_sites
from wirework.training import Interrupted, train
from wirework.training.bridge_losses import normalised_mse
from wirework.training.bridging import NUMBERS, Bridging
from wirework.training.metrics import read_metrics
from wirework.training.prior import losses_of
from wirework.training.run_folder import read_settings

TOKENS = torch.randint(17, (3, 9), generator=torch.Generator().manual_seed(0))
TARGETS = TOKENS.roll(-1, 1)
COEFS = {
    "encoder_nmse_coef": 0.5,
    "decoder_nmse_coef": 0.25,
    "dense_to_sparse_kl_coef": 2.0,
    "sparse_to_dense_kl_coef": 3.0,
}
SITES = location_sites(2)


def bridging(dense: str = "GPT-Neo", sparse: str = "default", **changes: Any) -> Bridging:
    """Return a prior that wraps two small models of different parts."""
    prior = Bridging(BridgeConfig(**changes), Model(build(dense, 1).eval()), seed=0)
    prior.wrap_model(build(sparse, 2))
    return prior


def losses(prior: Bridging) -> dict[str, Tensor]:
    return losses_of(prior._transformer, [prior], TOKENS, TARGETS)


def slow_losses(prior: Bridging) -> dict[str, Tensor]:
    """Return the four losses from whole passes, one location and one direction at a time."""
    sparse, dense, bridges = prior._transformer, prior.dense.transformer, prior.bridges
    logits, of_dense = dense.record(TOKENS, SITES)
    _, of_sparse = sparse.record(TOKENS, SITES)
    probs = logits.softmax(-1)
    sums = dict.fromkeys(NUMBERS, torch.zeros(()))

    def nmse(estimate: Tensor, target: Tensor) -> Tensor:
        variance = target.flatten(0, 1).var(0, correction=0).mean()
        return F.mse_loss(estimate, target) / variance

    def kl(model: Transformer, site: str, stream: Tensor) -> Tensor:
        with model.edited({site: lambda x: stream}):
            log_hybrid = model(TOKENS).log_softmax(-1)
        return (probs * (probs.log() - log_hybrid)).sum(-1).mean()

    for i, site in enumerate(SITES):
        h_d, h_s = of_dense[site], of_sparse[site]
        encoded, decoded = bridges.encode(i, h_d), bridges.decode(i, h_s)
        sums["encoder_nmse"] = sums["encoder_nmse"] + nmse(encoded, h_s)
        sums["decoder_nmse"] = sums["decoder_nmse"] + nmse(decoded, h_d)
        sums["kl_dense_to_sparse"] = sums["kl_dense_to_sparse"] + kl(sparse, site, encoded)
        sums["kl_sparse_to_dense"] = sums["kl_sparse_to_dense"] + kl(dense, site, decoded)
    return sums


def test_normalised_mse_by_hand():
    target = torch.tensor([[[1.0, 5.0], [3.0, 5.0]]])  # squares about the mean: 1, 1, 0, 0
    assert normalised_mse(target, target) == 0
    assert normalised_mse(target.mean((0, 1)).expand(1, 2, 2), target) == 1
    assert normalised_mse(target + 2.0, target) == 8
    assert normalised_mse(torch.ones(1, 2, 2), torch.zeros(1, 2, 2)).isfinite()


class TestLoss:
    @pytest.mark.parametrize(
        ("dense", "sparse"), [("GPT-Neo", "default"), ("logit bias", "positions beside")]
    )
    def test_losses_are_those_of_whole_passes(self, dense: str, sparse: str):
        prior = bridging(dense, sparse, **COEFS)
        numbers, slow = losses(prior), slow_losses(prior)
        for name, value in slow.items():
            torch.testing.assert_close(numbers[name], value, rtol=1e-4, atol=1e-5, msg=name)
        alone = prior._transformer.loss(TOKENS, TARGETS)
        assert torch.equal(numbers["loss"], alone)
        total = alone + sum(c * v for c, v in zip(COEFS.values(), slow.values(), strict=True))
        torch.testing.assert_close(numbers["total"], total, rtol=1e-4, atol=1e-5)

    def test_gradients_are_those_of_whole_passes(self):
        prior = bridging(**COEFS)
        trained = {**dict(prior._transformer.named_parameters()), **prior.parameters()}
        slow = (
            prior._transformer.loss(TOKENS, TARGETS)
            + torch.stack(
                [c * v for c, v in zip(COEFS.values(), slow_losses(prior).values(), strict=True)]
            ).sum()
        )
        expected = torch.autograd.grad(slow, list(trained.values()))
        losses(prior)["total"].backward()
        for (name, parameter), gradient in zip(trained.items(), expected, strict=True):
            torch.testing.assert_close(
                present(parameter.grad), gradient, rtol=1e-3, atol=1e-4, msg=name
            )
            assert gradient.abs().sum() > 0, name

    def test_the_dense_model_gets_no_gradient_and_keeps_its_weights(self):
        prior = bridging()
        before = prior.dense.fingerprint
        losses(prior)["total"].backward()
        assert all(p.grad is None for p in prior.dense.transformer.parameters())
        assert prior.dense.fingerprint == before
        prior.finish()

    def test_sampled_locations_are_unbiased(self, monkeypatch: pytest.MonkeyPatch):
        every = losses(bridging(**COEFS))
        prior = bridging(locations=1, **COEFS)
        draws = []
        for location in range(len(SITES)):
            monkeypatch.setattr(prior, "_drawn_locations", lambda location=location: [location])
            draws.append(losses(prior))
        for name in (*NUMBERS, "total"):
            mean = torch.stack([draw[name] for draw in draws]).mean()
            torch.testing.assert_close(mean, every[name], rtol=1e-4, atol=1e-5, msg=name)

    def test_locations_are_drawn_from_torchs_generator(self):
        prior = bridging(locations=2)
        torch.manual_seed(3)
        drawn = [prior._drawn_locations() for _ in range(200)]
        torch.manual_seed(3)
        assert [prior._drawn_locations() for _ in range(200)] == drawn
        counts = torch.tensor(drawn).flatten().bincount(minlength=5)
        assert counts.sum() == 400
        assert counts.min() > 50

    def test_a_loss_without_coefficient_is_not_computed(self):
        prior = bridging(sparse_to_dense_kl_coef=0)
        assert "kl_sparse_to_dense" not in losses(prior)


def test_evaluate_takes_all_locations_and_means_over_batches():
    prior = bridging(locations=1, sparse_to_dense_kl_coef=0)
    batch = (TOKENS.numpy(), TARGETS.numpy())
    found = prior.evaluate([batch, batch], torch.device("cpu"))
    expected = {f"val_{name}": value.item() for name, value in slow_losses(prior).items()}
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_dense_model_in_training_mode_is_refused():
    with pytest.raises(InputError, match=r"is in training mode: call transformer.eval\(\)"):
        Bridging(BridgeConfig(), Model(build("default")), seed=0)


@pytest.fixture(scope="module")
def dense(whole, tmp_path_factory) -> Path:
    """Return the run folder of a dense model, of other width than those of `settings`."""
    config = ModelConfig(vocab_size=400, n_ctx=16, n_layer=1, d_model=16, d_head=8)
    model = Model(Transformer(config, seed=5), whole.model.tokenizer)
    return model.save(tmp_path_factory.mktemp("dense") / "model").parent


def bridged_settings(settings: Any, dense: Path, name: str = "bridged", **changes: Any) -> Any:
    bridges = {"dense": str(dense), **changes.pop("bridges", {})}
    return settings(name, bridges=bridges, **changes)


class TestRun:
    @pytest.fixture(params=["all", 2])
    def config(self, request, settings, dense):
        return bridged_settings(settings, dense, bridges={"locations": request.param})

    def test_logs_the_losses_and_saves_the_bridges(self, config, dense):
        before = load(dense).fingerprint
        run = train(config, progress=False)
        lines = read_metrics(run.path / "metrics.jsonl")
        steps = [line for line in lines if line["kind"] == "train"]
        assert set(NUMBERS) <= steps[0].keys()
        assert {f"val_{name}" for name in NUMBERS} <= run.metrics.keys()
        about = read_record(run.path / "bridges" / "bridges.json")
        assert about["locations"] == ["0.attn", "0.mlp", "unembed"]
        assert about["shapes"]["encoders.0.weight"] == [32, 16]
        assert about["dense"]["fingerprint"] == before == load(dense).fingerprint
        assert (run.path / "bridges" / "checksums.json").is_file()
        assert not run.model.transformer.training

    @pytest.mark.parametrize(
        ("call", "nth"),
        [
            ("wirework.training.loop:save_checkpoint", 2),
            ("wirework.training.bridging:save_bridges", 1),
        ],
    )
    def test_a_killed_run_resumes_to_the_same_bits(self, config, driver, tmp_path, call, nth):
        whole = train(config, progress=False)
        cut = config.model_copy(update={"runs": tmp_path / "cut"})
        kill = {"signals": [signal.SIGKILL], "call": call, "nth": nth}
        killed = driver.run(cut, tmp_path / "err", **kill)
        assert killed == -signal.SIGKILL
        again = train(cut, resume=True, progress=False)
        assert_same(again.path, whole.path)
        saved = [run.path / "bridges" / "bridges.safetensors" for run in (whole, again)]
        assert saved[0].read_bytes() == saved[1].read_bytes()

    def test_learns_to_map_both_ways(self, settings, dense):
        changes = {"steps": 60, "eval_every": 60, "checkpoint_every": 60}
        run = train(bridged_settings(settings, dense, **changes), progress=False)
        lines = read_metrics(run.path / "metrics.jsonl")
        first, *_, last = [line for line in lines if line["kind"] == "train"]
        # This dense model predicts all tokens about equally: no divergence is left to learn.
        learned = set(NUMBERS) - {"kl_dense_to_sparse"}
        assert all(last[name] < first[name] for name in learned)

    @pytest.mark.parametrize(
        "changes",
        [
            {"weight_sparsity": {"gradient": "live", "live_below": 0.9, "dense_every": 3}},
            {"weight_sparsity": None, "hard_concrete": {}},
            {"model": {"tied_embedding": True}, "revival": {"silent_steps": 3}},
            {"weight_sparsity": None, "precision": "bfloat16"},
        ],
        ids=["live", "hard concrete", "tied and revival", "bfloat16"],
    )
    def test_works_with_other_settings(self, settings, dense, changes):
        run = train(bridged_settings(settings, dense, steps=6, **changes), progress=False)
        assert (run.path / "bridges" / "bridges.json").is_file()

    def test_live_gradients_of_all_entries_are_exact(self, settings, dense):
        every = {"gradient": "live", "live_below": 1.0, "candidates": 1e6, "dense_every": 1}
        runs = [
            train(bridged_settings(settings, dense, name, weight_sparsity=change), progress=False)
            for name, change in (("exact", {}), ("live", every))
        ]
        logs = [read_metrics(run.path / "metrics.jsonl") for run in runs]
        totals = [[line["loss"] for line in log if line["kind"] == "train"] for log in logs]
        assert totals[1] == pytest.approx(totals[0], rel=1e-4)


class TestRefused:
    def refused(self, config: Any, match: str) -> None:
        with pytest.raises(InputError, match=match) as error:
            train(config, progress=False)
        assert "\n" not in str(error.value)
        assert not (config.runs / config.name / "config.yaml").exists()

    def test_no_dense_model(self, settings):
        self.refused(settings(bridges={}), "bridges need a dense model: give bridges.dense")

    def test_no_model_folder(self, settings, tmp_path):
        self.refused(bridged_settings(settings, tmp_path), "no model at")

    def test_another_number_of_layers(self, settings, dense):
        config = bridged_settings(settings, dense, model={"n_layer": 2})
        self.refused(config, "as many layers.* has 1, model.n_layer is 2")

    def test_a_longer_context(self, settings, dense):
        config = bridged_settings(settings, dense, model={"n_ctx": 32})
        self.refused(config, "model.n_ctx 32 is more than the 16 tokens of")

    def test_another_vocabulary(self, settings, dense):
        changes = {"model": {"vocab_size": 300}, "data": {"vocab_size": 300}}
        config = bridged_settings(settings, dense, **changes)
        self.refused(config, "has 400 tokens, model.vocab_size is 300")

    def test_another_tokeniser(self, settings, dense, tokenizer: Tokenizer, tmp_path):
        path = tmp_path / "other.json"
        tokenizer.save(path)
        config = bridged_settings(settings, dense, data={"tokenizer": str(path)})
        self.refused(config, r"the tokeniser of .*other.json is not that of .*model/tokenizer.json")

    def test_a_dense_model_without_tokeniser(self, settings, tmp_path):
        config = ModelConfig(vocab_size=400, n_ctx=16, n_layer=1, d_model=16, d_head=8)
        path = Model(Transformer(config)).save(tmp_path / "bare")
        self.refused(bridged_settings(settings, path), "bare has no tokeniser")

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"bridges": {"locations": 4}}, "locations 4 is more than the 3 residual locations"),
            ({"bridges": {"locations": 0}}, "locations"),
            ({"bridges": {"act_fraction": 0.01}}, "act_fraction 0.01 keeps nothing"),
            ({"gating": {"k_attention": 4, "k_neurons": 4}}, "do not work with gating"),
        ],
    )
    def test_settings(self, settings, dense, changes, match):
        with pytest.raises(InputError, match=match):
            bridged_settings(settings, dense, **changes)

    def test_a_dense_model_that_changed_since_the_checkpoint(self, settings, whole, tmp_path):
        config = ModelConfig(vocab_size=400, n_ctx=16, n_layer=1, d_model=16, d_head=8)
        path = tmp_path / "dense"
        Model(Transformer(config, seed=1), whole.model.tokenizer).save(path)
        train(bridged_settings(settings, path), progress=False)
        Model(Transformer(config, seed=2), whole.model.tokenizer).save(path)
        run = bridged_settings(settings, path)
        (run.runs / run.name / "metrics.jsonl").unlink()  # no longer finished
        with pytest.raises(InputError, match="changed since training began"):
            train(run, resume=True, progress=False)

    @pytest.mark.parametrize("seed", [1, 2])
    def test_a_dense_model_may_move_if_its_weights_are_the_same(
        self, settings, whole, tmp_path, seed
    ):
        config = ModelConfig(vocab_size=400, n_ctx=16, n_layer=1, d_model=16, d_head=8)
        for name, each in (("before", 1), ("after", seed)):
            Model(Transformer(config, seed=each), whole.model.tokenizer).save(tmp_path / name)
        with pytest.raises(Interrupted):
            train(
                bridged_settings(settings, tmp_path / "before"),
                progress=False,
                priors=[StopAfter(6)],
            )
        shutil.rmtree(tmp_path / "before")
        moved = bridged_settings(settings, tmp_path / "after")
        if seed != 1:
            with pytest.raises(InputError, match="after changed since training began"):
                train(moved, resume=True, progress=False)
            return
        run = train(moved, resume=True, progress=False)
        assert run.metrics["step"] == 12
        assert read_settings(run.path).bridges == moved.bridges
        about = read_record(run.path / "bridges" / "bridges.json")
        assert about["dense"]["absolute"] == str(tmp_path / "after")

    def test_a_value_that_becomes_infinite(self, settings, dense):
        config = bridged_settings(settings, dense, bridges={"encoder_nmse_coef": 1e38})
        with pytest.raises(InputError, match="NaN or infinity at step"):
            train(config, progress=False)
