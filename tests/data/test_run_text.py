"""A run keeps its text: the corpus may change and the folders move."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wirework import commands, load
from wirework.circuits.masking.saved_means import means_for
from wirework.circuits.masking.training_text import run_data
from wirework.config import DataConfig, MeasureConfig, SaeConfig, TrainConfig
from wirework.data import Prepared, prepare, record_text, text_for_runs, text_of_run
from wirework.errors import InputError
from wirework.measures import text_of
from wirework.training import train

SETTINGS: dict[str, Any] = {
    "name": "tiny", "steps": 4, "batch_size": 2, "eval_batches": 1, "checkpoint_every": 2,
    "precision": "float32", "device": "cpu", "runs": "runs",
    "model": {"n_ctx": 16, "n_layer": 1, "d_model": 16, "d_head": 8},
    "data": {
        "corpus": "notes", "vocab_size": 300, "answers": "none", "val_fraction": 0.3,
        "workers": 1, "cache": "runs/data",
    },
}  # fmt: skip


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig.of({**SETTINGS, **changes})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a corpus of forty files in it."""
    place = tmp_path / "home"
    (place / "notes").mkdir(parents=True)
    for i in range(40):
        text = " ".join(f"word{(i * k) % 97}" for k in range(60))
        (place / "notes" / f"{i}.txt").write_text(text)
    monkeypatch.chdir(place)
    return place


def prepared_names(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name[0] != ".")


def moved_run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Train, change the corpus, move the runs and the working directory; return the runs."""
    train(settings(), progress=False)
    (home / "notes" / "more.txt").write_text("a file more")
    (home / "runs").rename(tmp_path / "elsewhere")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "elsewhere"


class TestTextOfRun:
    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated")  # of sae-lens
    def test_every_reader_finds_the_text_of_a_moved_run(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = moved_run(home, tmp_path, monkeypatch)
        before = prepared_names(runs / "data")
        model = load(runs / "tiny")
        text = text_of_run(runs / "tiny")
        assert text is not None
        assert text.path.samefile(runs / "data" / before[0])
        assert run_data(model, "means").fingerprint == text.fingerprint
        assert text_of(model, None).fingerprint == text.fingerprint
        assert means_for(model, None, 1)
        instruments = MeasureConfig(instruments=("language",))
        commands.measure(runs / "tiny", out=Path("measures"), settings=instruments)
        wanted = {
            "tokens": 1280,
            "batch_size": 64,
            "buffer": 256,
            "eval_tokens": 64,
            "expansion": 2,
        }
        commands.sae(runs / "tiny", out=Path("sae"), settings=SaeConfig.of(wanted))
        assert prepared_names(runs / "data") == before
        assert not Path("data").exists()
        assert not Path("runs").exists()

    def test_without_its_text_the_command_to_give_is_printed(
        self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = moved_run(home, tmp_path, monkeypatch)
        shutil.move(runs / "data", tmp_path / "hidden")
        with pytest.raises(InputError) as caught:
            means_for(load(runs / "tiny"), None, 1)
        message = str(caught.value)
        assert "\n" not in message
        assert message.endswith(f"put that folder back, or give --corpus {home / 'notes'}")
        # Each of the ways out that it names.
        (folder,) = prepared_names(tmp_path / "hidden")
        model = load(runs / "tiny")
        given = verbs_text(model, str(tmp_path / "hidden" / folder))
        assert given.path == tmp_path / "hidden" / folder
        assert verbs_text(model, str(home / "notes")).train.n_documents > given.train.n_documents
        shutil.move(tmp_path / "hidden", runs / "data")
        assert text_of_run(runs / "tiny") is not None

    def test_other_text_in_its_place_is_refused(self, home: Path) -> None:
        train(settings(), progress=False)
        (folder,) = prepared_names(Path("runs/data"))
        (home / "notes" / "more.txt").write_text("a file more")
        other = prepare(settings().data, progress=False)
        shutil.rmtree(home / "runs" / "data" / folder)
        other.path.rename(home / "runs" / "data" / folder)
        with pytest.raises(
            InputError, match="holds other tokens than those that runs/tiny was trai"
        ):
            text_of_run(Path("runs/tiny"))

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"absolute": 3}', "\0"])
    def test_a_damaged_record_is_named(self, home: Path, content: str) -> None:
        train(settings(), progress=False)
        Path("runs/tiny/data.json").write_text(content)
        with pytest.raises(InputError, match=r"runs/tiny/data\.json"):
            text_of_run(Path("runs/tiny"))

    def test_a_run_of_before_reads_what_its_settings_name(self, home: Path) -> None:
        run = train(settings(), progress=False)
        Path("runs/tiny/data.json").unlink()
        assert text_of_run(run.path) is None
        before = prepared_names(Path("runs/data"))
        assert run_data(run.model, "means").path.name == before[0]
        (home / "notes" / "more.txt").write_text("a file more")
        assert run_data(run.model, "means").path.name == before[0]
        assert prepared_names(Path("runs/data")) == before
        shutil.rmtree(Path("runs/data") / before[0])
        with pytest.raises(InputError, match="the corpus of runs/tiny has changed since"):
            run_data(run.model, "means")

    def test_a_function_that_a_record_names_is_only_for_those_who_trust_it(
        self, home: Path
    ) -> None:
        Path("mine.py").write_text(
            "def texts():\n    return [f'{n} words' * 9 for n in range(400)]\n"
        )
        run = train(settings(data={**SETTINGS["data"], "corpus": "mine.py:texts"}), progress=False)
        shutil.rmtree(Path("runs/data"))
        with pytest.raises(
            InputError, match=r"or, if you trust that code, give --corpus .*:texts$"
        ):
            text_of_run(run.path)

    def test_code_that_a_record_names_is_not_run(self, home: Path) -> None:
        """`--corpus` takes the run's settings for its own corpus, without a user's function."""
        Path("mine.py").write_text(
            "from pathlib import Path\ndef more():\n"
            "    Path('ran').touch()\n    return ['a', 'b']\n"
        )
        data = {**SETTINGS["data"], "mix": "mine.py:more"}
        run = train(settings(data=data), progress=False)
        Path("ran").unlink()
        shutil.rmtree(Path("runs/data"))
        with pytest.raises(InputError, match="put that folder back"):
            run_data(run.model, "means")
        assert verbs_text(run.model, "notes").train.n_documents > 20
        assert not Path("ran").exists()

    def test_settings_that_were_edited_are_refused_though_the_tokens_are_recorded(self, home: Path):
        run = train(settings(), progress=False).path
        path = run / "config.yaml"
        path.write_text(path.read_text().replace("corpus: notes", "corpus: other"))
        with pytest.raises(InputError, match=r"config\.yaml was changed after the run began"):
            run_data(load(run), "means")


def verbs_text(model: Any, corpus: str) -> Prepared:
    from wirework.commands.arguments import prepared

    return prepared(model, corpus)


STOPPED = """
import os, signal, sys
from wirework.config import TrainConfig
from wirework.training import loop, train
real = loop.scale_gradients_
steps = iter(range(9))
def stop(*arguments):
    if next(steps) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return real(*arguments)
loop.scale_gradients_ = stop
train(TrainConfig.load("settings.yaml"), progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "of before"])
def test_resume_goes_on_bitwise_with_its_text(home: Path, recorded: bool) -> None:
    whole = train(settings(name="whole"), progress=False)
    Path("settings.yaml").write_text(settings().to_yaml())
    process = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True)
    assert "Interrupted" in process.stderr
    assert [path.name for path in Path("runs/tiny/checkpoints").iterdir()]
    before = prepared_names(Path("runs/data"))
    if not recorded:
        Path("runs/tiny/data.json").unlink()
    (home / "notes" / "more.txt").write_text("a file more")
    resumed = train(settings(), resume=True, progress=False)
    assert prepared_names(Path("runs/data")) == before
    assert resumed.model.fingerprint == whole.model.fingerprint
    assert resumed.metrics["val_loss"] == whole.metrics["val_loss"]


class TestTextForRuns:
    def test_a_text_may_be_recorded_before_the_run_begins(self, home: Path) -> None:
        """As the demo and the studies do for all of their runs."""
        data = prepare(settings().data, progress=False)
        for name in ("tiny", "twin"):
            record_text(Path("runs") / name, data, settings().data)
        (home / "notes" / "more.txt").write_text("a file more")
        runs = [Path("runs/nowhere"), Path("runs/twin")]
        assert text_for_runs(runs, settings().data, progress=False).fingerprint == data.fingerprint
        run = train(settings(), progress=False)
        assert run_data(run.model, "means").fingerprint == data.fingerprint
        other = settings().data.model_copy(update={"max_bytes": 9_000})
        assert text_for_runs(runs, other, progress=False).fingerprint != data.fingerprint

    def test_another_tokeniser_than_the_recorded_one_is_refused(self, home: Path) -> None:
        run = train(settings(), progress=False)
        data = DataConfig.of({**SETTINGS["data"], "tokenizer": "runs/tiny/tokenizer.json"})
        assert text_for_runs([run.path], data, progress=False).path.is_dir()
        other = json.loads(Path("runs/tiny/tokenizer.json").read_text())
        other["model"]["merges"].pop()
        Path("mine.json").write_text(json.dumps(other))
        data = DataConfig.of({**SETTINGS["data"], "tokenizer": "mine.json"})
        with pytest.raises(InputError, match=r"another tokeniser than mine\.json"):
            text_for_runs([run.path], data, progress=False)
