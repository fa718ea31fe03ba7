"""Settings: unknown and impossible ones are named, files and overrides give the same values."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from wirework.config import (
    NODE_KINDS,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PruneConfig,
    TrainConfig,
    WeightSparsityConfig,
)
from wirework.errors import InputError


class TestYaml:
    @pytest.mark.parametrize(
        "cls", [DataConfig, ModelConfig, OptimizerConfig, PruneConfig, TrainConfig]
    )
    def test_yaml_round_trip_of_the_defaults(self, cls, tmp_path):
        (tmp_path / "config.yaml").write_text(cls().to_yaml())
        assert cls.load(tmp_path / "config.yaml") == cls()

    def test_yaml_round_trip_of_everything_nested(self, tmp_path):
        config = TrainConfig.of(
            {
                "name": "a run: é",
                "runs": "some/where",
                "weight_sparsity": None,
                "model": {
                    "n_layer": 2,
                    "attention_windows": [7, None],
                    "positions": "concat",
                    "d_pos": 8,
                    "act_sites": ["attn.q", "resid_mid"],
                    "norm_eps": 1e-30,
                },
                "data": {"tokenizer": "tok.json", "max_bytes": 10},
                "track": ["wandb"],
            }
        )
        (tmp_path / "config.yaml").write_text(config.to_yaml())
        again = TrainConfig.load(tmp_path / "config.yaml")
        assert again == config
        assert again.model.attention_windows == (7, None)
        assert again.data.tokenizer == Path("tok.json")
        assert again.weight_sparsity is None

    @given(
        st.integers(1, 9),
        st.integers(1, 9),
        st.floats(0.05, 1),
        st.sets(st.sampled_from(NODE_KINDS)),
    )
    @settings(max_examples=50, deadline=None)
    def test_yaml_round_trip_of_any_model(self, d_head, n_head, fraction, sites):
        values = {"d_model": 64, "d_head": d_head, "n_head": n_head, "act_fraction": fraction}
        if any(int(fraction * n) < 1 for n in (64, 256, d_head * n_head)):
            return
        config = ModelConfig.of({**values, "act_sites": sorted(sites)})
        assert ModelConfig.of(yaml.safe_load(config.to_yaml())) == config


class TestConfigLoad:
    def test_overrides_win_over_the_file(self, tmp_path):
        path = tmp_path / "config.yaml"
        path.write_text("steps: 7\nmodel:\n  n_layer: 3\n  d_model: 64\n")
        config = TrainConfig.load(path, {"model.d_model": 128, "optimizer.lr": 0.5, "seed": 4})
        assert (config.steps, config.seed, config.optimizer.lr) == (7, 4, 0.5)
        assert (config.model.n_layer, config.model.d_model, config.model.n_head) == (3, 128, 8)

    def test_empty_file_gives_the_defaults(self, tmp_path):
        (tmp_path / "config.yaml").write_text("")
        assert TrainConfig.load(tmp_path / "config.yaml") == TrainConfig()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"- 1\n- 2\n", "expected settings .name: value., got list"),
            (b"a: [", "is not YAML"),
            (b"\xff\xfe\x00", "is not UTF-8 text: byte 0"),
            (b"steps: !!python/object:os.system {}", "is not YAML"),
        ],
    )
    def test_file_that_is_no_settings_is_one_clear_line(self, content, message, tmp_path):
        (tmp_path / "config.yaml").write_bytes(content)
        with pytest.raises(InputError, match=rf"config\.yaml.*{message}") as caught:
            TrainConfig.load(tmp_path / "config.yaml")
        assert "\n" not in str(caught.value)

    def test_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"cannot read .*none\.yaml: No such file"):
            TrainConfig.load(tmp_path / "none.yaml")


class TestTrainConfig:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"step": 3}, "unknown setting 'step'; did you mean 'steps'"),
            (
                {"model": {"n_layers": 3}},
                r"unknown setting 'model\.n_layers'; did you mean 'n_layer'",
            ),
            (
                {"weight_sparsity": {"l0_fracton": 0.1}},
                r"unknown setting 'weight_sparsity\.l0_fracton'; did you mean 'l0_fraction'",
            ),
            ({"qqqqqqqq": 1}, "unknown setting 'qqqqqqqq'$"),
            ({"steps": 0}, "steps: input should be greater than or equal to 1, got 0"),
            ({"steps": "many"}, "steps: .*integer.*, got 'many'"),
            ({"optimizer": {"lr": float("nan")}}, r"optimizer\.lr: .*finite number, got nan"),
            ({"optimizer": {"beta2": 1.0}}, r"optimizer\.beta2: .*less than 1, got 1\.0"),
            ({"model": {"activation": "swish"}}, r"model\.activation: .*'gelu'.*, got 'swish'"),
            ({"model": 3}, "model: .*, got 3"),
            ({"data": {"vocab_size": "many"}}, r"data\.vocab_size: .*integer.*, got 'many'"),
            ({"data": {"vocab_size": 0}}, r"data\.vocab_size: .*equal to 1, got 0"),
            (
                {"model": {"n-layer": 3}},
                r"unknown setting 'model\.n-layer'; did you mean 'n_layer'",
            ),
        ],
    )
    def test_setting_that_is_unknown_or_out_of_range_is_named(self, values, message):
        with pytest.raises(InputError, match=f"^recipe: {message}") as caught:
            TrainConfig.of(values, "recipe")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (
                {"data": {"vocab_size": 512}, "model": {"vocab_size": 600}},
                "data.vocab_size 512 and model.vocab_size 600 differ: give one of them",
            ),
            ({"name": "a/b"}, "name must be a plain folder name, got 'a/b'"),
            ({"name": ""}, "name must be a plain folder name"),
            ({"name": ".hidden"}, "name must be a plain folder name"),
            (
                {"weight_sparsity": {"anneal_start": 0.5, "anneal_end": 0.5}},
                r"anneal_end 0\.5 must come after anneal_start 0\.5",
            ),
            (
                {"weight_sparsity": {"start_fraction": 0.01, "l0_fraction": 0.02}},
                r"start_fraction 0\.01 must not be below l0_fraction 0\.02",
            ),
        ],
    )
    def test_impossible_run_is_refused(self, values, message):
        with pytest.raises(InputError, match=message):
            TrainConfig.of(values)

    @pytest.mark.parametrize(
        ("values", "data", "model"),
        [
            ({}, "auto", 0),
            ({"data": {"vocab_size": 512}}, 512, 512),
            ({"model": {"vocab_size": 512}}, 512, 512),
            ({"data": {"vocab_size": 512}, "model": {"vocab_size": 512}}, 512, 512),
            ({"data": {"tokenizer": "t.json"}}, "auto", 0),
            ({"model": {"vocab_size": "auto"}}, "auto", 0),
            ({"data": {"vocab_size": 512}, "model": {"vocab_size": "auto"}}, 512, 512),
            ({"data": {"tokenizer": "t.json"}, "model": {"vocab_size": 512}}, "auto", 512),
        ],
    )
    def test_one_size_of_the_vocabulary_is_enough(self, values, data, model):
        config = TrainConfig.of(values)
        again = TrainConfig.of(yaml.safe_load(config.to_yaml()))
        for one in (config, again):
            assert (one.data.vocab_size, one.model.vocab_size) == (data, model)
        assert again == config

    def test_a_copy_derives_the_vocabulary_of_the_other_part_again(self):
        config = TrainConfig.of({"data": {"vocab_size": 512}})
        assert "vocab_size" not in config.model.model_fields_set
        copy = config.model_copy(update={"data": DataConfig(vocab_size=600)})
        assert (copy.data.vocab_size, copy.model.vocab_size) == (600, 600)


class TestModelConfig:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"d_model": 100}, "d_model 100 is not divisible by d_head 16"),
            ({"n_head": -1}, "n_head: .*greater than or equal to 0, got -1"),
            ({"positions": "concat"}, "positions: concat needs d_pos"),
            ({"positions": "sinusoidal_concat"}, "positions: sinusoidal_concat needs d_pos"),
            ({"d_pos": 8}, "d_pos is only used with concatenated positions, not 'none'"),
            ({"positions": "added", "d_pos": 8}, "d_pos is only used .* not 'added'"),
            ({"attention_windows": [4]}, "attention_windows has 1 entry for 4 layers"),
            (
                {"act_fraction": 0.001},
                r"act_fraction 0\.001 keeps nothing of attn\.act_in \(256 wide\)",
            ),
            (
                {"d_model": 64, "d_mlp": 3},
                r"act_fraction 0\.25 keeps nothing of mlp\.post_act \(3 wide\)",
            ),
            ({"act_sites": ["attn.y"]}, r"act_sites\.0: "),
        ],
    )
    def test_impossible_model_is_refused(self, values, message):
        with pytest.raises(InputError, match=message):
            ModelConfig.of(values)

    def test_widths_and_k_of_the_sites(self):
        values: dict[str, Any] = {"d_model": 64, "n_head": 3, "d_head": 8, "d_mlp": 50}
        config = ModelConfig.of({**values, "positions": "concat", "d_pos": 10})
        widths = {kind: config.site_width(kind) for kind in NODE_KINDS}
        assert widths == {
            "attn.act_in": 74,
            "attn.q": 24,
            "attn.k": 24,
            "attn.v": 24,
            "attn.resid_delta": 64,
            "mlp.act_in": 74,
            "mlp.post_act": 50,
            "mlp.resid_delta": 64,
        }
        assert config.site_k("attn.act_in") == 18
        assert config.site_k("mlp.post_act") == 12
        assert config.site_k("resid_mid") is None
        assert ModelConfig(act_fraction=None).site_k("attn.q") is None
        assert ModelConfig(act_fraction=1.0).site_k("attn.q") == 256

    def test_heads_and_neurons_follow_the_width_unless_given(self):
        config = ModelConfig(d_model=96)
        assert (config.n_head, config.d_mlp) == (6, 384)
        config = ModelConfig(d_model=96, n_head=5, d_mlp=7, act_fraction=None)
        assert (config.n_head, config.d_mlp) == (5, 7)

    def test_a_copy_with_changes_derives_anew_and_is_validated(self):
        config = ModelConfig(d_model=64, d_head=16, d_mlp=100)
        wider = config.model_copy(update={"d_model": 128})
        assert (wider.n_head, wider.d_mlp) == (8, 100)
        assert wider == ModelConfig(d_model=128, d_head=16, d_mlp=100)
        assert wider.model_fields_set == config.model_fields_set
        assert config.model_copy() == config
        with pytest.raises(InputError, match="d_model 60 is not divisible"):
            config.model_copy(update={"d_model": 60})
        with pytest.raises(InputError, match="unknown setting 'd_modle'"):
            config.model_copy(update={"d_modle": 64})

    def test_a_width_of_zero_is_derived_in_copies_too(self):
        config = ModelConfig(d_model=64, n_head=0, d_mlp=0)
        assert config == ModelConfig(d_model=64)
        wider = config.model_copy(update={"d_model": 128})
        assert (wider.n_head, wider.d_mlp) == (8, 512)

    def test_a_derived_value_does_not_count_as_set(self):
        config = ModelConfig(d_model=64)
        changed = config.derived(vocab_size=7)
        assert (config.vocab_size, changed.vocab_size) == (2048, 7)
        assert changed.model_fields_set == config.model_fields_set == {"d_model"}


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        WeightSparsityConfig().floor = 3  # type: ignore[misc]
