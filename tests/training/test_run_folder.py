import shutil

import pytest
import yaml
from present import present

from wirework.config import TrainConfig
from wirework.data import Tokenizer, text_of_run
from wirework.errors import DamagedError, InputError
from wirework.files import locked
from wirework.training import train
from wirework.training.run_folder import edited_settings, read_settings, settings_differences


class TestNewRun:
    def test_an_existing_run_is_not_overwritten(self, settings):
        config = settings(steps=1)
        train(config, progress=False)
        with pytest.raises(
            InputError, match=r"tiny exists: use --resume to continue it, or choose another"
        ):
            train(config, progress=False)

    def test_a_folder_that_is_no_run_is_left_alone(self, settings):
        config = settings()
        folder = config.runs / config.name
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("precious")
        for resume, said in ((False, "exists"), (True, "no config.yaml")):
            with pytest.raises(InputError, match=said):
                train(config, resume=resume, progress=False)
        assert [path.name for path in folder.iterdir()] == ["thesis.txt"]

    def test_a_second_trainer_is_refused(self, settings):
        config = settings(steps=1)
        with (
            locked(config.runs / config.name / "lock", "run"),
            pytest.raises(InputError, match="tiny is in use by another process"),
        ):
            train(config, resume=True, progress=False)

    def test_a_place_that_cannot_be_written_to_is_named(self, settings, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"cannot write .*file/tiny/lock"):
            train(settings(runs=tmp_path / "file"), progress=False)

    @pytest.mark.parametrize(
        "model", [{"d_model": 2**40}, {"n_layer": 10**12}, {"d_mlp": 10**15}, {"n_ctx": 10**16,
                  "positions": "added"}]
    )  # fmt: skip
    def test_settings_that_cannot_fit_are_refused_before_anything_is_made(self, model, settings):
        config = settings(model=model)
        with pytest.raises(
            InputError,
            match=r"^the settings: a model of \S+ parameters needs \S+ GB of memory, \S+ GB",
        ):
            train(config, progress=False)
        assert not config.runs.exists()

    def test_an_altered_tokeniser_of_a_run_is_refused(self, settings):
        run = train(settings(), progress=False)
        path = run.path / "tokenizer.json"
        assert Tokenizer.load(path).fingerprint == present(run.model.tokenizer).fingerprint
        path.write_text(path.read_text().replace('"Ġself"', '"Ġsels"'))
        with pytest.raises(
            InputError, match=r"tiny is damaged: tokenizer\.json does not match its"
        ):
            Tokenizer.load(path)
        with pytest.raises(
            InputError, match=r"tiny is damaged: tokenizer\.json does not match its"
        ):
            train(settings("other", data={"tokenizer": path}), progress=False)

    @pytest.mark.parametrize("change", [{"data": {"corpus": "absent"}}, {"device": "tpu"}])
    def test_a_refused_run_leaves_no_folder(self, settings, change):
        config = settings(**change)
        with pytest.raises(InputError):
            train(config, progress=False)
        assert not (config.runs / config.name).exists()

    def test_a_folder_that_was_there_stays(self, settings):
        config = settings(data={"corpus": "absent"})
        folder = config.runs / config.name
        folder.mkdir(parents=True)
        with pytest.raises(InputError):
            train(config, progress=False)
        assert folder.is_dir()

    def test_a_missing_corpus_is_refused_before_anything_is_timed(
        self, settings, monkeypatch, tmp_path
    ):
        def timed(*_):
            raise AssertionError("precisions were timed")

        monkeypatch.setattr("wirework.training.precision.faster_precision", timed)
        config = settings(precision="auto", data={"corpus": str(tmp_path / "nowhere")})
        with pytest.raises(InputError, match="nowhere does not exist"):
            train(config, progress=False)


class TestResume:
    def test_resume_of_a_run_that_never_began_begins_it(self, settings, capsys):
        run = train(settings(steps=1), resume=True, progress=False)
        assert run.metrics["step"] == 1
        assert "no checkpoint yet: starting at step 0" in capsys.readouterr().err

    def test_resume_under_other_settings_lists_the_differences(self, settings):
        train(settings(steps=2), progress=False)
        changed = settings(steps=3, optimizer={"lr": 0.5}, weight_sparsity=None)
        with pytest.raises(InputError) as caught:
            train(changed, resume=True, progress=False)
        message = str(caught.value)
        for part in (
            "steps: 2 -> 3", "optimizer.lr: 0.003 -> 0.5", "weight_sparsity: set -> None",
        ):  # fmt: skip
            assert part in message
        assert "\n" not in message

    def test_other_data_are_refused_on_resume(self, settings, driver, tmp_path, corpus):
        other = tmp_path / "corpus"
        other.mkdir()
        for file in corpus.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        config = settings(data={"corpus": str(other)})
        step = "wirework.training.loop:scale_gradients_"
        assert driver.run(config, tmp_path / "err", call=step, nth=6, signals=[15]) == 143
        (other / "more.py").write_text("value = 1\n" * 500)
        text = text_of_run(config.runs / config.name)
        assert text is not None
        shutil.rmtree(text.path)
        with pytest.raises(
            InputError, match=r"cannot be resumed with changed settings: data: \w{12} -> \w{12}"
        ):
            train(config, resume=True, progress=False)

    def test_the_settings_of_a_resumed_run_stay_resolved(self, settings, driver, tmp_path):
        config = settings(precision="bfloat16")
        step = "wirework.training.loop:scale_gradients_"
        assert driver.run(config, tmp_path / "err", call=step, nth=6, signals=[15]) == 143
        run = train(settings(precision="auto", device="auto"), resume=True, progress=False)
        assert TrainConfig.load(run.path / "config.yaml").precision == "bfloat16"


class TestSettingsDifferences:
    def test_harmless_settings_may_change_and_auto_means_as_before(self, settings):
        old = settings(device="cpu", precision="bfloat16")
        new = settings(
            device="auto", precision="auto", log_every=5, keep_checkpoints=9, eval_every=3
        )
        assert settings_differences(old, new) == []
        assert settings_differences(new, old) == [
            "precision: auto -> bfloat16",
            "device: auto -> cpu",
        ]

    def test_models_may_move_but_not_come_or_go(self):
        here, there = (TrainConfig.of({"start_from": path}) for path in ("here", "there"))
        assert settings_differences(here, there) == []
        assert settings_differences(here, TrainConfig()) == ["start_from: here -> None"]
        assert settings_differences(TrainConfig(), there) == ["start_from: None -> there"]

    def test_every_other_setting_matters(self):
        old = TrainConfig()
        assert settings_differences(old, TrainConfig(seed=1)) == ["seed: 0 -> 1"]
        assert settings_differences(old, TrainConfig(batch_size=1)) == ["batch_size: 32 -> 1"]


class TestReadSettings:
    def test_settings_edited_in_the_runs_folder_are_compared_with_the_checkpoint(
        self, settings, driver, tmp_path
    ):
        config = settings()
        step = "wirework.training.loop:scale_gradients_"
        assert driver.run(config, tmp_path / "err", call=step, nth=6, signals=[15]) == 143
        stored = config.runs / config.name / "config.yaml"
        stored.write_text(stored.read_text().replace("batch_size: 2", "batch_size: 4"))
        with pytest.raises(
            InputError, match=r"cannot be resumed with changed settings: batch_size: 2 -> 4"
        ):
            train(settings(batch_size=4), resume=True, progress=False)
        with pytest.raises(
            InputError, match=r"config\.yaml was changed after .*, batch_size: 2 -> 4"
        ):
            read_settings(stored.parent)
        stored.write_text(
            stored.read_text().replace("batch_size: 4", "batch_size: 2") + "# a note\n"
        )
        assert read_settings(stored.parent).batch_size == 2
        shutil.rmtree(stored.parent / "checkpoints")
        with pytest.raises(InputError, match="was changed after the run began, and there is no"):
            train(config, resume=True, progress=False)

    def test_a_harmless_edit_of_the_settings_is_none(self, settings):
        run = train(settings(), progress=False)
        stored = run.path / "config.yaml"
        assert edited_settings(run.path) == []
        stored.write_text(stored.read_text().replace("log_every: 1", "log_every: 7"))
        assert edited_settings(run.path) == []
        assert read_settings(run.path).log_every == 7

    def test_settings_of_an_older_version_have_no_checksum(self, settings):
        run = train(settings(), progress=False)
        (run.path / "config.yaml").write_text(settings().to_yaml())
        (run.path / "checksums.json").unlink()
        (run.path / "data.json").unlink()
        assert read_settings(run.path) == settings()
        assert train(settings(), resume=True, progress=False).metrics == run.metrics

    def test_settings_that_lost_their_checksum_are_not_taken_for_an_older_versions(self, settings):
        run = train(settings(), progress=False)
        stored = run.path / "config.yaml"
        bare = yaml.safe_dump(yaml.safe_load(stored.read_text()))  # comments are lost
        stored.write_text(bare.replace("batch_size: 2", "batch_size: 4"))
        with pytest.raises(
            InputError, match=r"config\.yaml was changed after .*, batch_size: 2 -> 4"
        ):
            read_settings(run.path)
        shutil.rmtree(run.path / "checkpoints")
        with pytest.raises(
            DamagedError, match=r"config\.yaml was changed after the run began, and th"
        ):
            read_settings(run.path)
        with pytest.raises(
            DamagedError, match=r"config\.yaml was changed after the run began, and th"
        ):
            train(settings(), resume=True, progress=False)


class TestAlteredLog:
    def test_an_altered_log_is_named_and_is_no_longer_a_sign_of_the_end(self, settings, capsys):
        config = settings(steps=4)
        run = train(config, progress=False)
        log = run.path / "metrics.jsonl"
        lines = log.read_bytes().splitlines(keepends=True)
        assert b'"kind": "final"' in lines[-1]
        before = b'"kind": "final", "val_loss": '
        log.write_bytes(log.read_bytes().replace(before, before + b"1"))
        again = train(config, resume=True, progress=False)
        said = capsys.readouterr().err
        assert (
            f"metrics.jsonl is damaged in line {len(lines)}: it does not match its checksum" in said
        )
        assert again.metrics["val_loss"] == run.metrics["val_loss"]
        assert len(again.history()) == len(lines)
        log.write_bytes(log.read_bytes().replace(b'"step": 2', b'"step": 3'))
        with pytest.raises(
            InputError, match=r"metrics\.jsonl is damaged in line 2: .*move the file"
        ):
            train(config, resume=True, progress=False)
        log.rename(log.with_name("old"))
        assert (
            train(config, resume=True, progress=False).metrics["val_loss"]
            == run.metrics["val_loss"]
        )

    @pytest.mark.parametrize("change", ["altered", "lost", "no JSON"])
    def test_a_damaged_first_line_of_the_log_is_one_line(self, settings, capsys, change):
        config = settings(steps=4)
        log = train(config, progress=False).path / "metrics.jsonl"
        first, *rest = log.read_bytes().splitlines(keepends=True)
        spoilt = {
            "altered": first.replace(b'"step": 1', b'"step": 7'),
            "lost": b"",
            "no JSON": b"{\n",
        }
        log.write_bytes(spoilt[change] + b"".join(rest))
        for part in ("no part", "model"):  # with its model the run would be finished
            shutil.rmtree(log.with_name(part), ignore_errors=True)
            capsys.readouterr()
            with pytest.raises(InputError, match=r"damaged in line 1: .*: move the file away, and"):
                train(config, resume=True, progress=False)
            assert capsys.readouterr().err == ""
