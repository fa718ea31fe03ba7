"""Bridged runs: training, loading, the command, and folders that are no such runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_here

import wirework as ww
from wirework import files
from wirework.bridges import Bridged, bridge, load_bridged
from wirework.bridges.bridged import with_bridges
from wirework.config import BridgeConfig, TrainConfig
from wirework.errors import DamagedError, InputError


def copied(bridged: Bridged, tmp_path: Path) -> Path:
    """Copy the run and its dense model; return the folder of the copied run."""
    shutil.copytree(bridged.path.parent, tmp_path / "copy")
    return tmp_path / "copy" / bridged.path.name


class TestBridge:
    def test_returns_both_models_and_their_bridges(self, bridged: Bridged):
        assert bridged.dense.config.d_model == 16
        assert bridged.sparse.config.d_model == 32
        assert bridged.sparse.config.vocab_size == bridged.dense.config.vocab_size
        assert bridged.bridges.encode(2, torch.ones(1, 1, 16)).count_nonzero() <= 8
        assert "3 residual locations" in repr(bridged)

    def test_takes_the_tokeniser_of_the_dense_model(self, bridged: Bridged):
        assert bridged.sparse.tokenizer is not None
        assert bridged.dense.tokenizer is not None
        assert bridged.sparse.tokenizer.fingerprint == bridged.dense.tokenizer.fingerprint

    def test_the_plain_loader_reads_the_sparse_model(self, bridged: Bridged):
        assert ww.load(bridged.path).fingerprint == bridged.sparse.fingerprint


class TestWithBridges:
    def test_keeps_the_settings_of_bridges(self):
        config = TrainConfig(bridges=BridgeConfig(locations=2))
        bridges = with_bridges(config, "runs/dense").bridges
        assert bridges == BridgeConfig(locations=2, dense=Path("runs/dense"))

    def test_a_loaded_model_stands_for_its_folder(self, bridged: Bridged):
        bridges = with_bridges(TrainConfig(), bridged.dense).bridges
        assert bridges is not None
        assert bridges.dense == bridged.dense.path

    def test_a_model_without_a_folder_is_refused(self, bridged: Bridged):
        model = ww.Model(bridged.dense.transformer, bridged.dense.tokenizer)
        with pytest.raises(InputError, match="has no folder: save it"):
            with_bridges(TrainConfig(), model)

    def test_a_model_in_training_mode_is_refused(self, bridged: Bridged):
        model = ww.load(str(bridged.dense.path))
        model.transformer.train()
        with pytest.raises(InputError, match="is in training mode"):
            bridge(model, progress=False)

    def test_two_dense_models_are_refused(self):
        config = TrainConfig(bridges=BridgeConfig(dense=Path("a")))
        with pytest.raises(InputError, match=r"two dense models, b and bridges\.dense a"):
            with_bridges(config, "b")


class TestLoadBridged:
    def test_reads_what_was_trained(self, bridged: Bridged):
        again = ww.load_bridged(bridged.path)
        for name, tensor in bridged.bridges.state_dict().items():
            assert torch.equal(tensor, again.bridges.state_dict()[name]), name
        assert again.sparse.fingerprint == bridged.sparse.fingerprint
        assert not again.dense.transformer.training

    def test_run_and_dense_model_may_move_together(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        assert load_bridged(run).dense.path == (run.parent / "dense").resolve()

    def test_a_moved_dense_model_can_be_given(self, bridged: Bridged, tmp_path: Path):
        dense = tmp_path / "elsewhere"
        shutil.copytree(str(bridged.dense.path), dense)
        assert load_bridged(bridged.path, dense).dense.path == dense

    def test_no_run(self, tmp_path: Path):
        with pytest.raises(InputError, match="no run at"):
            load_bridged(tmp_path / "none")

    def test_a_run_without_bridges(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        shutil.rmtree(run / "bridges")
        with pytest.raises(InputError, match="is not a bridged run"):
            load_bridged(run)

    def test_a_missing_dense_model(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        path = run / "bridges" / "bridges.json"
        about = files.read_record(path)
        about["dense"] |= {"relative": "gone", "absolute": "/gone"}
        rewrite(path, about)
        with pytest.raises(InputError, match="is not in /gone any more: give its folder"):
            load_bridged(run)

    def test_a_changed_dense_model(
        self, bridged: Bridged, tmp_path: Path, save_dense: Callable[..., Path]
    ):
        run = copied(bridged, tmp_path)
        save_dense(run.parent / "dense", seed=1)
        with pytest.raises(InputError, match="changed since training"):
            load_bridged(run)

    def test_damaged_bridges(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        (run / "bridges" / "bridges.safetensors").write_bytes(b"\0" * 9)
        with pytest.raises(DamagedError, match=r"bridges.safetensors does not match its checksum"):
            load_bridged(run)

    def test_a_later_version(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        path = run / "bridges" / "bridges.json"
        rewrite(path, files.read_record(path) | {"version": 2})
        with pytest.raises(InputError, match="has no bridges that this version reads"):
            load_bridged(run)


def rewrite(path: Path, about: dict[str, Any]) -> None:
    """Replace `bridges.json` and the checksums of its folder."""
    files.write_record(path, about)
    files.write_sums(path.parent, ["bridges.json", "bridges.safetensors"])


class TestCommand:
    @pytest.fixture
    def words(self, values: dict[str, Any], tmp_path: Path) -> list[str]:
        """Return the words that give a run's settings."""
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps(values))  # JSON is YAML
        return ["--config", str(config), "--runs", str(tmp_path / "runs"), "--name", "mine"]

    def test_trains_and_prints(self, words: list[str], bridged: Bridged, tmp_path: Path):
        done = run_here("bridge", str(bridged.dense.path), *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("verdict: bridged: ")
        assert f"wrote: {tmp_path}/runs/mine" in done.stdout
        assert load_bridged(tmp_path / "runs" / "mine").path.name == "mine"

    @pytest.mark.parametrize(
        ("dense", "more", "said"),
        [
            ([], [], "bridges need a dense model"),
            (["none"], [], "no model at none"),
            (["DENSE"], ["--model.n-layer", "3"], "has 1, model.n_layer is 3"),
            (["DENSE"], ["--bridges.locations", "4"], "more than the 3 residual locations"),
            (["DENSE"], ["--bridges.dense", "other"], "two dense models"),
        ],
    )
    def test_refuses_in_one_line(
        self, words: list[str], bridged: Bridged, tmp_path: Path, dense, more, said
    ):
        named = [str(bridged.dense.path) if word == "DENSE" else word for word in dense]
        done = run_here("bridge", *named, *words, *more)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "runs" / "mine" / "config.yaml").exists()


def test_the_recipe_is_valid():
    recipe = Path(__file__).parent.parent.parent / "recipes" / "bridge.yaml"
    config = TrainConfig.load(recipe)
    assert config.bridges == BridgeConfig()
    assert config.model.n_layer == 4
