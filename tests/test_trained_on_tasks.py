"""Whether a model says that it was trained on text drawn from the tasks."""

from pathlib import Path

import pytest

from wirework.commands.task_audit import print_contamination
from wirework.config import DataConfig, ModelConfig, TrainConfig
from wirework.errors import InputError
from wirework.model import Model, load
from wirework.nn import Transformer


@pytest.mark.parametrize("value", [True, False, None])
def test_a_saved_model_says_it(value: bool | None, tmp_path: Path) -> None:
    config = ModelConfig(vocab_size=60, d_model=16, d_head=8, n_layer=1)
    model = Model(Transformer(config), trained_on_tasks=value)
    again = load(model.save(tmp_path / "model"))
    assert again.trained_on_tasks is value
    assert again.fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"corpus": "programs", "mix": "python"}, False),
        ({"corpus": "python", "mix": "wirework.tasks:practice_texts"}, True),
        ({"corpus": "wirework.tasks.practice:ioi_practice_texts"}, True),
        ({"corpus": "programs", "mix": "notes.txt"}, None),
    ],
)
def test_the_settings_of_a_text_say_it(settings: dict[str, str], expected: bool | None) -> None:
    assert DataConfig(**settings).draws_from_tasks is expected


def test_code_that_a_run_names_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "texts.py").write_text("raise SystemExit('it was run')\n")
    data = DataConfig(corpus=f"{tmp_path / 'texts.py'}:make")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(TrainConfig(data=data).to_yaml())
    with pytest.raises(InputError, match=r"code that a file names is not run.*--contamination"):
        print_contamination(str(run), ["for_while"], None, as_json=True)
