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

    def test_a_run_that_is_not_finished(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        shutil.rmtree(run / "bridges")
        (run / "metrics.jsonl").unlink()
        with pytest.raises(InputError, match=r"is not finished and has no bridges yet.*--resume"):
            load_bridged(run)

    def test_another_sparse_model(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        sparse = ww.load(run)
        with torch.no_grad():
            sparse.transformer.unembed.weight[0, 0] += 1.0
        sparse.save(run / "model")
        with pytest.raises(InputError, match=r"the sparse model of .* is not the one that its br"):
            load_bridged(run)

    def test_an_older_file_does_not_know_its_sparse_model(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        path = run / "bridges" / "bridges.json"
        about = files.read_record(path)
        assert about.pop("sparse")["fingerprint"] == bridged.sparse.fingerprint
        rewrite(path, about)
        assert load_bridged(run).sparse.fingerprint == bridged.sparse.fingerprint

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


class TestDamagedFiles:
    """Each damage is one line. With checksums made anew, the content itself is refused."""

    def refused(self, run: Path, match: str, kind: type[InputError] = DamagedError) -> None:
        with pytest.raises(kind, match=match) as error:
            load_bridged(run)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("name", ["bridges.json", "bridges.safetensors"])
    @pytest.mark.parametrize("sealed", [False, True], ids=["as it is", "checksums made anew"])
    def test_a_file_that_was_cut(self, bridged: Bridged, tmp_path: Path, name: str, sealed: bool):
        run = copied(bridged, tmp_path)
        path = run / "bridges" / name
        path.write_bytes(path.read_bytes()[:-9])
        if sealed:
            reseal(run)
        said = "(is damaged|is not valid JSON)" if sealed else "does not match its checksum"
        self.refused(run, f"{name} {said}", InputError)

    def test_a_file_that_is_missing(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        (run / "bridges" / "bridges.safetensors").unlink()
        self.refused(run, r"bridges\.safetensors is missing")

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"d_dense": 17}, r"encoders\.0\.weight is \(32, 16\), the config says \(32, 17\)"),
            ({"d_dense": 10**12}, r"encoders\.0\.weight is \(32, 16\)"),
            ({"d_dense": -1}, "bridges.json: d_dense"),
            ({"d_sparse": "many"}, "bridges.json: d_sparse"),
            ({"act_fraction": 7.0}, "bridges.json: act_fraction"),
            ({"act_fraction": 0.01}, "act_fraction 0.01 keeps nothing"),
            (
                {"locations": []},
                r"has decoders\.0\.bias, .* and 9 more, which",
            ),
            ({"locations": ["0.attn"] * 4}, r"lacks the tensor encoders\.3\.weight"),
            ({"locations": 3}, "bridges.json: locations"),
            ({"dense": None}, "bridges.json: dense"),
            ({"sparse": "x"}, "bridges.json: sparse"),
        ],
        ids=str,
    )
    def test_an_entry_that_does_not_fit(
        self, bridged: Bridged, tmp_path: Path, change: dict[str, Any], match: str
    ):
        run = copied(bridged, tmp_path)
        path = run / "bridges" / "bridges.json"
        rewrite(path, files.read_record(path) | change)
        self.refused(run, match, InputError)

    def test_a_path_that_no_system_has(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        path = run / "bridges" / "bridges.json"
        about = files.read_record(path)
        about["dense"] |= {"relative": "go\0ne", "absolute": "/go\0ne\n"}
        rewrite(path, about)
        self.refused(run, "any more: give its folder", InputError)

    def test_tensors_of_other_shapes(self, bridged: Bridged, tmp_path: Path):
        run = copied(bridged, tmp_path)
        tensors = dict(bridged.bridges.state_dict())
        tensors["encoders.1.weight"] = tensors["encoders.1.weight"][:, :-1].contiguous()
        files.save_tensors(run / "bridges" / "bridges.safetensors", tensors, {})
        reseal(run)
        self.refused(run, r"encoders\.1\.weight", InputError)

    @pytest.mark.parametrize("change", [{"version": 2}, {"format": "wirework-circuit"}], ids=str)
    def test_another_format(self, bridged: Bridged, tmp_path: Path, change: dict[str, Any]):
        run = copied(bridged, tmp_path)
        path = run / "bridges" / "bridges.json"
        rewrite(path, files.read_record(path) | change)
        self.refused(run, "has no bridges that this version reads", InputError)


def reseal(run: Path) -> None:
    """Write the checksums of the bridges anew."""
    files.write_sums(run / "bridges", ["bridges.json", "bridges.safetensors"])


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
    assert config.bridges == BridgeConfig(locations=2)
    assert config.model.n_layer == 4
