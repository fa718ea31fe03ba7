import errno
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from wirework.config import ModelConfig, OptimizerConfig
from wirework.errors import InputError, UnreadableError
from wirework.files import write_sums
from wirework.nn import Transformer
from wirework.training import train
from wirework.training.checkpoint import (
    TrainState,
    checkpoint_steps,
    drop_checkpoints_after,
    gather,
    newest_checkpoint,
    newest_state,
    prune_checkpoints,
    restore_,
    save_checkpoint,
)
from wirework.training.optimizer import make_optimizer

MODEL = ModelConfig(vocab_size=16, n_ctx=8, n_layer=1, d_model=16, d_head=8)
STEP = "wirework.training.loop:scale_gradients_"


def trained(steps: int = 2, seed: int = 0):
    torch.manual_seed(seed)
    transformer = Transformer(MODEL, seed)
    optimizer = make_optimizer(transformer, OptimizerConfig())
    for _ in range(steps):
        tokens = torch.randint(0, 16, (2, 8))
        transformer.loss(tokens, tokens).backward()
        optimizer.step()
    return dict(transformer.named_parameters()), optimizer


class TestRestore:
    def test_what_is_gathered_comes_back(self, tmp_path):
        transformer, optimizer = trained()
        tensors = gather(transformer, optimizer)
        state = TrainState(
            step=2, best_step=1, best_loss=0.5, last_eval={"val_loss": 0.5}, settings={"seed": 0}
        )
        save_checkpoint(tmp_path, state, tensors)
        draw = torch.rand(3)
        other, other_optimizer = trained(steps=1, seed=1)
        found = newest_checkpoint(tmp_path)
        assert found is not None
        assert found[0] == state
        restore_(other, other_optimizer, found[1])
        assert torch.equal(torch.rand(3), draw)
        again = gather(other, other_optimizer)
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[k], v) for k, v in tensors.items() if k != "rng/cpu")

    def test_tensors_of_another_model_are_refused(self):
        transformer, optimizer = trained()
        tensors = gather(transformer, optimizer)
        wider = Transformer(MODEL.model_copy(update={"d_mlp": 128}))
        with pytest.raises(
            InputError, match=r"does not fit the model: model/blocks\.0\.mlp\.up\.weight"
        ):
            restore_(
                dict(wider.named_parameters()), make_optimizer(wider, OptimizerConfig()), tensors
            )
        half = {**tensors, "optimizer/exp_avg/embed.weight": tensors["model/embed.weight"].half()}
        with pytest.raises(
            InputError, match=r"exp_avg/embed\.weight is .* float16, not .* float32"
        ):
            restore_(transformer, optimizer, half)
        step = "optimizer/step/embed.weight"
        with pytest.raises(InputError, match=r"optimizer/step/embed\.weight is missing"):
            restore_(transformer, optimizer, {n: t for n, t in tensors.items() if n != step})
        zeros = {**tensors, "rng/cpu": torch.zeros_like(tensors["rng/cpu"])}
        with pytest.raises(InputError, match="does not hold a random state"):
            restore_(transformer, optimizer, zeros)
        del tensors["model/embed.weight"]
        with pytest.raises(InputError, match=r"model/embed\.weight is missing"):
            restore_(transformer, optimizer, tensors)


class TestNewestCheckpoint:
    def test_a_run_in_a_folder_whose_name_is_no_utf8_can_be_resumed(self, tmp_path):
        state = TrainState(
            step=2, settings={"runs": os.fsdecode(b"caf\xe9"), "data": {"cache": None}}
        )
        save_checkpoint(tmp_path, state, gather(*trained()))
        found = newest_checkpoint(tmp_path)
        assert found is not None
        assert found[0] == state

    def test_a_checkpoint_of_a_later_version_is_refused_and_not_passed_over(
        self, tmp_path, monkeypatch
    ):
        save_checkpoint(tmp_path, TrainState(step=2), gather(*trained()))
        monkeypatch.setattr("wirework.training.checkpoint.VERSION", 2)
        save_checkpoint(tmp_path, TrainState(step=3), gather(*trained()))
        monkeypatch.undo()
        with pytest.raises(InputError, match="step-3 is not a checkpoint that this version reads"):
            newest_checkpoint(tmp_path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda _: [1, 2],
            lambda _: None,
            lambda about: about | {"seconds": "long"},
            lambda about: about | {"metrics_bytes": -1},
            lambda about: about | {"settings": []},
            lambda about: {name: value for name, value in about.items() if name != "step"},
        ],
    )
    def test_a_state_that_cannot_be_one_is_passed_over(self, tmp_path, capsys, change):
        tensors = gather(*trained())
        save_checkpoint(tmp_path, TrainState(step=2), tensors)
        path = save_checkpoint(tmp_path, TrainState(step=3), tensors) / "state.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        write_sums(path.parent, ["state.json", "tensors.safetensors"])
        found = newest_checkpoint(tmp_path)
        assert found is not None
        assert found[0].step == 2
        assert "state.json is damaged: " in capsys.readouterr().err
        assert newest_state(tmp_path) == found[0]


def test_a_checkpoint_holds_safetensors_and_json_only(tmp_path):
    path = save_checkpoint(tmp_path, TrainState(step=3), gather(*trained()))
    names = {file.name for file in path.iterdir()}
    assert names == {"tensors.safetensors", "state.json", "checksums.json"}
    about = json.loads((path / "state.json").read_text())
    assert (about["format"], about["version"], about["step"]) == ("wirework-checkpoint", 1, 3)


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    for step in (2, 4, 6, 8, 10):
        (tmp_path / f"step-{step}").mkdir()
    prune_checkpoints(tmp_path, keep=2, best=2)
    assert checkpoint_steps(tmp_path) == [2, 8, 10]
    prune_checkpoints(tmp_path, keep=1, best=None)
    assert checkpoint_steps(tmp_path) == [10]


def test_checkpoints_that_were_passed_over_are_kept_under_another_name(tmp_path):
    for _ in range(2):
        for step in (2, 8, 10):
            (tmp_path / f"step-{step}").mkdir(exist_ok=True)
        drop_checkpoints_after(tmp_path, 8)
        assert checkpoint_steps(tmp_path) == [2, 8]
    names = sorted(path.name for path in tmp_path.glob("*damaged*"))
    assert names == ["step-10.damaged", "step-10.damaged-2"]


@pytest.fixture
def stopped(settings, driver, tmp_path):
    """Return the settings of a run that stopped at step 10, with checkpoints at 8 and 10."""
    config = settings()
    assert driver.run(config, tmp_path / "err", call=STEP, nth=10, signals=[15]) == 143
    assert checkpoint_steps(config.runs / config.name / "checkpoints") == [8, 10]
    return config


FAILURES = ["EIO", "ENODEV", "ENOMEM", "EACCES", "ESTALE", "ETIMEDOUT"]


class TestResumeFromCheckpoint:
    @pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "empty"])
    def test_a_damaged_checkpoint_is_passed_over(self, stopped, whole, capsys, damage):
        newest = stopped.runs / stopped.name / "checkpoints" / "step-10"
        file = newest / "tensors.safetensors"
        content = file.read_bytes()
        if damage == "truncated":
            file.write_bytes(content[:-100])
        elif damage == "flipped":
            middle = len(content) // 2
            file.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
        elif damage == "missing":
            file.unlink()
        else:
            shutil.rmtree(newest)
            newest.mkdir()
        run = train(stopped, resume=True, progress=False)
        said = capsys.readouterr().err.splitlines()
        assert "step-10" in said[0]
        assert "trying the checkpoint before it" in said[0]
        assert "step-10 is kept as step-10.damaged" in said[1]
        assert said[2].endswith("at step 8 of 12")
        assert run.model.fingerprint == whole.model.fingerprint
        assert checkpoint_steps(run.path / "checkpoints") == [8, 12]
        assert (run.path / "checkpoints" / "step-10.damaged").is_dir()

    @pytest.mark.parametrize(
        ("file", "code"),
        [("tensors.safetensors", code) for code in FAILURES]
        + [("state.json", "EIO"), ("checksums.json", "EIO")],
    )
    def test_a_checkpoint_that_cannot_be_read_stops_resume_and_stays(
        self, stopped, whole, unreadable, file, code
    ):
        folder = stopped.runs / stopped.name / "checkpoints"
        before = (folder / "step-10").stat().st_ino
        said = f"cannot read {folder}/step-10/{file}: {os.strerror(getattr(errno, code))}"
        with (
            unreadable(folder / "step-10" / file, code),
            pytest.raises(UnreadableError, match=f"{said}. Nothing was deleted: try again"),
        ):
            train(stopped, resume=True, progress=False)
        assert checkpoint_steps(folder) == [8, 10]
        assert (folder / "step-10").stat().st_ino == before
        assert (
            train(stopped, resume=True, progress=False).model.fingerprint == whole.model.fingerprint
        )

    @pytest.mark.parametrize("code", ["EIO", "EACCES"])
    def test_a_folder_of_checkpoints_that_cannot_be_read_is_not_taken_for_an_empty_one(
        self, stopped, whole, unreadable, code
    ):
        with (
            unreadable(stopped.runs / stopped.name / "checkpoints", code),
            pytest.raises(UnreadableError, match=r"cannot read .*checkpoints: "),
        ):
            train(stopped, resume=True, progress=False)
        assert (
            train(stopped, resume=True, progress=False).model.fingerprint == whole.model.fingerprint
        )

    @pytest.mark.parametrize(
        "error", [OSError("No such device (os error 19)"), RuntimeError("mmap")]
    )
    def test_a_checkpoint_that_cannot_be_mapped_is_read(
        self, stopped, whole, monkeypatch, error, capsys
    ):
        def refuse(path):
            raise error

        monkeypatch.setattr("safetensors.torch.load_file", refuse)
        run = train(stopped, resume=True, progress=False)
        assert run.model.fingerprint == whole.model.fingerprint
        assert capsys.readouterr().err.splitlines()[0].endswith("at step 10 of 12")

    def test_without_a_whole_checkpoint_resume_is_refused(self, stopped):
        folder = stopped.runs / stopped.name / "checkpoints"
        for step in (8, 10):
            (folder / f"step-{step}" / "state.json").write_text("{}")
        with pytest.raises(InputError, match=r"all 2 checkpoints in .* are damaged"):
            train(stopped, resume=True, progress=False)


class TestFullDisk:
    def test_a_full_disk_ends_in_one_line_and_spares_the_checkpoint_before(
        self, stopped, driver, tmp_path, whole
    ):
        err = tmp_path / "err"
        # No file may grow beyond 10 kB: the log can go on, the next checkpoint cannot be written.
        assert driver.run(stopped, err, resume=True, limit=10_000) == 2
        last = err.read_text().splitlines()[-1]
        assert last.startswith("cannot write")
        assert "step-12" in last
        newest = stopped.runs / stopped.name / "checkpoints" / "step-10"
        assert load_file(newest / "tensors.safetensors")
        run = train(stopped, resume=True, progress=False)
        assert run.model.fingerprint == whole.model.fingerprint

    def test_a_log_that_cannot_grow_ends_in_one_line(self, stopped, driver, tmp_path, whole):
        log = stopped.runs / stopped.name / "metrics.jsonl"
        err = tmp_path / "err"
        assert driver.run(stopped, err, resume=True, limit=log.stat().st_size + 50) == 2
        assert err.read_text().splitlines()[-1].startswith(f"cannot write {log.parent}")
        run = train(stopped, resume=True, progress=False)
        assert run.model.fingerprint == whole.model.fingerprint
        assert len(run.history()) == len(whole.history())
