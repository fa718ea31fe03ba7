"""Autoencoders trained with sae-lens on activations of a model of ours."""

import copy
import json
from pathlib import Path

import pytest
import torch

from wirework import commands
from wirework.config import DataConfig, ModelConfig, SaeConfig, TrainConfig
from wirework.data import Prepared, Tokenizer
from wirework.data.batches import Batches
from wirework.errors import InputError
from wirework.measures import evaluate_sae, load_sae, measure_sae, save_sae, train_sae
from wirework.measures.sae_training import _rows
from wirework.model import Model
from wirework.nn import Transformer
from wirework.training import train

# sae-lens imports a module that transformer-lens has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated")

QUICK = {"tokens": 12_800, "batch_size": 128, "expansion": 4, "buffer": 2048, "lr": 3e-3,
         "k": 5, "eval_tokens": 640}  # fmt: skip
ARCHITECTURES = ("standard", "topk", "jumprelu")


def settings(**changes: object) -> SaeConfig:
    return SaeConfig.of({**QUICK, **changes})


class TestTrainSae:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_it_learns_and_is_the_same_for_the_same_seed(
        self, architecture: str, model: Model, text: Prepared, tmp_path: Path
    ) -> None:
        chosen = settings(architecture=architecture)
        state = torch.random.get_rng_state()
        sae, quality = measure_sae(model, chosen, text)
        assert torch.equal(torch.random.get_rng_state(), state)  # the caller's dice lie as they lay
        torch.rand(1)
        again, same = measure_sae(model, chosen, text)
        assert same == quality
        assert all(map(torch.equal, sae.state_dict().values(), again.state_dict().values()))
        untrained = evaluate_sae(
            model, train_sae(model, settings(architecture=architecture, lr=1e-9), text), text.val,
            n_tokens=640,
        )  # fmt: skip
        assert quality.mse < 0.8 * untrained.mse
        assert (quality.architecture, quality.d_sae) == (architecture, 64)
        if architecture == "topk":
            assert quality.sae_l0 == 5
        loaded = load_sae(save_sae(sae, tmp_path / "sae", quality, chosen))
        assert evaluate_sae(model, loaded, text.val, n_tokens=640) == quality
        assert SaeConfig.load(tmp_path / "sae" / "settings.yaml") == chosen

    def test_another_seed_is_another_autoencoder(self, model: Model, text: Prepared) -> None:
        one, other = (train_sae(model, settings(seed=seed), text) for seed in (0, 1))
        assert not torch.equal(one.W_dec, other.W_dec)

    def test_it_says_what_it_was_trained_on(self, model: Model, text: Prepared) -> None:
        metadata = train_sae(model, settings(skip_first=2), text).cfg.metadata
        assert metadata.site == "2.mlp.resid_delta"  # three quarters of three layers
        assert metadata.hook_name == "blocks.2.hook_mlp_out"
        assert metadata.model_fingerprint == model.fingerprint
        assert metadata.context_size == 32
        assert metadata.seqpos_slice == [2, None]
        other = train_sae(model, settings(site="1.attn.q"), text).cfg
        assert (other.d_in, other.metadata.hook_name) == (16, "blocks.1.attn.q")

    def test_any_site_will_do(self, model: Model, text: Prepared) -> None:
        for site, width in (("final_resid", 16), ("0.mlp.post_act", 24)):
            quality = measure_sae(model, settings(site=site, tokens=2560), text)[1]
            assert (quality.site, quality.d_sae) == (site, 4 * width)

    def test_what_cannot_be_trained_on_is_refused_before_training(
        self, model: Model, text: Prepared, tokenizer: Tokenizer
    ) -> None:
        for wrong, says in (
            (
                {"tokens": 10**8},
                rf"train has {text.train.n_tokens} tokens, 100000000 are asked for",
            ),
            (
                {"tokens": text.train.n_tokens, "skip_first": 16},
                rf"train has {text.train.n_tokens // 2} tokens after skip_first 16",
            ),
            (
                {"site": "9.mlp.resid_delta"},
                "no site '9.mlp.resid_delta' in this model; did you mean",
            ),
            ({"architecture": "topk", "k": 64}, "k 64 must be below 64 features"),
            ({"skip_first": 32}, "skip_first 32 leaves nothing of 32 tokens"),
        ):
            with pytest.raises(InputError, match=says):
                measure_sae(model, settings(**wrong), text)
        with pytest.raises(InputError, match=r"is outside a run folder, .*give text \(--corpus"):
            train_sae(model, settings())
        silent = Model(Transformer(model.config), tokenizer)
        for name in ("weight", "bias"):
            silent.transformer.get_parameter(f"blocks.2.mlp.down.{name}").data.zero_()
        with pytest.raises(InputError, match=r"2.mlp.resid_delta is 0 at every token"):
            train_sae(silent, settings(), text)
        with pytest.raises(InputError, match="not finite: lower lr 1e\\+30"):
            train_sae(model, settings(lr=1e30), text)


class TestTrainingRows:
    def test_what_flows_in_is_the_site_over_training_windows(
        self, model: Model, text: Prepared
    ) -> None:
        chosen = settings(site="1.attn.y", skip_first=3, seed=6)
        rows = next(_rows(model, "1.attn.y", text.train, chosen)).view(-1, 29, 16)
        tokens = torch.from_numpy(Batches(text.train, 32, len(rows), seed=6).at(0)[0])
        expected = model.run_with_cache(tokens, ["1.attn.y"])[1]["1.attn.y"]
        assert torch.equal(rows, expected[:, 3:])

    def test_tokens_of_giant_norm_are_left_out_of_training(
        self, model: Model, text: Prepared, tokenizer: Tokenizer
    ) -> None:
        transformer = copy.deepcopy(model.transformer)
        tokens = torch.from_numpy(Batches(text.train, 32, 128, seed=0).at(0)[0])
        common = int(torch.bincount(tokens.flatten()).argmax())
        transformer.embed.weight.data[common] *= 100
        giant = Model(transformer, tokenizer)
        site = "0.resid_in"
        every = next(_rows(giant, site, text.train, settings(site=site)))
        kept = next(_rows(giant, site, text.train, settings(site=site, max_norm_multiple=10)))
        assert torch.equal(kept, every[tokens.flatten() != common])
        quality = measure_sae(giant, settings(site=site, max_norm_multiple=10), text)[1]
        plain = measure_sae(giant, settings(site=site), text)[1]
        assert plain.without_outliers is not None
        assert quality.without_outliers is None
        assert quality.explained_variance is not None
        assert plain.without_outliers.explained_variance is not None
        # Outliers in training spoil the normalisation, and with it everything else.
        assert quality.explained_variance > plain.without_outliers.explained_variance + 0.05


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tokens": 2559}, "2559 are 19 steps of batch_size 128, too few .* at least 2560"),
        ({"expansion": 0}, "expansion: .* greater than or equal to 1"),
        ({"buffer": 200}, "buffer 200 must hold two batches of batch_size 128"),
        ({"architecture": "gated"}, "architecture: .*'standard', 'topk' or 'jumprelu'"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        settings(**wrong)


def test_the_command_takes_the_text_of_the_run(
    corpus: Path, text: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ModelConfig(vocab_size=512, n_ctx=32, n_layer=2, d_model=16, d_head=8)
    data = DataConfig(
        corpus=str(corpus), tokenizer=text.path / "tokenizer.json", val_fraction=0.3, workers=1,
        cache=text.path.parent,
    )  # fmt: skip
    run = train(
        TrainConfig(
            name="run", runs=tmp_path, steps=2, batch_size=2, model=shape, data=data,
            eval_batches=1, precision="float32",
        )
    )  # fmt: skip
    commands.sae(run.path, out=tmp_path / "sae", settings=settings(), json=True)
    printed = capsys.readouterr()
    assert not printed.err.count("Training SAE")  # its bar is for terminals
    found = json.loads(printed.out)
    assert found.pop("sae") == str(tmp_path / "sae")
    assert found == json.loads((tmp_path / "sae" / "quality.json").read_text())
    assert found["site"] == "1.mlp.resid_delta"
