"""Presets: their values, what wins over them, and models that they are not for."""

from pathlib import Path

import pytest
from command_line import run_here

import wirework as ww
from wirework.config import AcdcConfig, ExplainConfig, MeasureConfig, ModelConfig, SaeConfig
from wirework.data import Tokenizer
from wirework.errors import InputError
from wirework.measures import measure
from wirework.model import Model
from wirework.nn import Transformer

AUTHORS = ModelConfig(vocab_size=64, n_layer=8, d_model=128, d_head=8, n_ctx=256)


@pytest.fixture
def small(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    config = ModelConfig(vocab_size=tokenizer.vocab_size, d_model=32, n_layer=1, n_ctx=64)
    return Model(Transformer(config), tokenizer).save(tmp_path / "model")


def test_the_autoencoder_of_the_paper():
    sae = SaeConfig(preset="authors")
    assert (sae.site, sae.architecture, sae.expansion) == ("6.mlp.resid_delta", "standard", 16)
    assert (sae.tokens, sae.batch_size, sae.lr) == (100_000_000, 4096, 1e-5)
    assert (sae.l1_coef, sae.warmup, sae.decay, sae.steps) == (5, 0.05, 0.2, 24_414)


def test_given_settings_win_over_the_preset():
    assert SaeConfig(preset="authors", lr=3e-4).lr == 3e-4
    assert SaeConfig(lr=3e-4).model_copy(update={"preset": "authors"}).lr == 3e-4
    explain = ExplainConfig(preset="authors", neurons=7)
    assert (explain.neurons, explain.score_top, explain.score_random) == (7, 5, 5)
    assert SaeConfig.of(SaeConfig(preset="authors").model_dump()) == SaeConfig(preset="authors")


def test_the_preset_of_all_instruments_sets_that_of_each():
    every = MeasureConfig(preset="authors")
    assert every.sae == SaeConfig(preset="authors")
    assert every.explain == ExplainConfig(preset="authors")
    assert every.acdc == AcdcConfig(order="auto_circuit")
    mixed = MeasureConfig.of({"preset": "authors", "sae": {"tokens": 90_000}, "task": "for_while"})
    assert (mixed.sae.tokens, mixed.sae.lr, mixed.task) == (90_000, 1e-5, "for_while")
    mixed = MeasureConfig(preset="authors", sae=SaeConfig(tokens=90_000))
    assert (mixed.sae.tokens, mixed.sae.lr) == (90_000, 1e-5)


def test_without_a_preset_nothing_changes():
    assert SaeConfig().preset is None
    assert SaeConfig().site is None
    SaeConfig().check_fits(ModelConfig())
    with pytest.raises(InputError, match="preset"):
        SaeConfig.of({"preset": "author"})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"n_layer": 6}, "n_layer 6, d_model 128, n_ctx 256"),
        ({"d_model": 64}, "n_layer 8, d_model 64, n_ctx 256"),
        ({"n_ctx": 64}, "n_layer 8, d_model 128, n_ctx 64"),
    ],
)
def test_a_preset_is_for_models_of_its_shape(change: dict[str, int], found: str):
    SaeConfig(preset="authors").check_fits(AUTHORS)
    wanted = "preset authors is for models of n_layer 8, d_model 128, n_ctx 256; this one has "
    with pytest.raises(InputError, match=wanted + found):
        SaeConfig(preset="authors").check_fits(AUTHORS.model_copy(update=change))


@pytest.mark.parametrize("settings", [{"preset": "authors"}, {"sae": {"preset": "authors"}}])
def test_measure_refuses_a_model_of_another_shape(small: Path, settings: dict[str, object]):
    with pytest.raises(InputError, match="preset authors is for models of"):
        measure(small, config=MeasureConfig.of(settings), progress=False)
    # An instrument that is not used is not checked.
    report = MeasureConfig.of({"sae": {"preset": "authors"}, "instruments": ["acdc"]})
    assert measure(small, config=report, progress=False).headline.sae_l0 is None


@pytest.mark.parametrize("verb", ["sae", "explain", "measure"])
def test_the_command_refuses_it_in_one_line(small: Path, tmp_path: Path, verb: str):
    (tmp_path / "text.txt").write_text("a = 1\n" * 2000)
    words = [verb, small, "--preset", "authors", "--out", tmp_path / "out"]
    result = run_here(*words, "--corpus", tmp_path / "text.txt", cwd=tmp_path)
    assert result.returncode == 2
    line = result.stderr.splitlines()[-1]
    assert line.startswith("wirework: preset authors is for models of n_layer 8, d_model 128")
    assert "this one has n_layer 1, d_model 32, n_ctx 64" in line
    assert not (tmp_path / "out" / "cfg.json").exists()
    assert ww.load(small).config.n_layer == 1
