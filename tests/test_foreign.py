"""Libraries that read a stranger's folder run none of its code and ask nothing."""

import io
import json
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from wirework.config import DataConfig, TrainConfig
from wirework.data import documents
from wirework.errors import InputError
from wirework.foreign import no_prompts
from wirework.interop import load_huggingface

CODE = """
from pathlib import Path
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
Path({marker!r}).touch()

class Config(GPT2Config):
    model_type = "strange"

class Model(GPT2LMHeadModel):
    config_class = Config

class Tokens(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A person at the terminal who says yes to everything."""
    yes = io.StringIO("y\n" * 20)
    monkeypatch.setattr(sys, "stdin", yes)
    return yes


def test_a_question_gets_no_answer_and_the_input_is_put_back(eager: io.StringIO) -> None:
    with no_prompts():
        assert not sys.stdin.isatty()
        with pytest.raises(EOFError):
            input("run the code?")
    assert sys.stdin is eager
    assert input() == "y"


@pytest.mark.parametrize("kind", ["strange", "gpt2"])
@pytest.mark.parametrize(
    "mapped",
    [
        {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
        {"AutoModelForCausalLM": "code.Model"},
        {"AutoTokenizer": ["code.Tokens", "code.Tokens"]},
    ],
    ids=["config", "model", "tokeniser"],
)
def test_code_of_a_converted_folder_is_not_run(
    tmp_path: Path,
    eager: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    mapped: dict[str, Any],
) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "model"
    small = transformers.GPT2Config(vocab_size=60, n_positions=24, n_embd=32, n_layer=1, n_head=4)
    transformers.GPT2LMHeadModel(small).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": kind, "auto_map": mapped})
    )
    tokens = {"tokenizer_class": "Tokens", "auto_map": mapped}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "code.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    with suppress(InputError):  # of a kind that transformers does not know itself
        load_huggingface(folder)
    assert not (tmp_path / "ran").exists()
    assert len(eager.read()) == 40, "a question was asked and answered"


def test_scripts_of_data_sets_are_refused_and_nothing_is_asked(
    eager: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def load_dataset(name: str, subset: str | None, **options: Any) -> list[dict[str, str]]:
        given.update(options, name=name, terminal=sys.stdin.isatty(), input=sys.stdin.read())
        return [{"text": "a story"}]

    module = SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", module)
    assert list(documents(DataConfig(corpus="hub:some/name"))) == ["a story"]
    assert given["trust_remote_code"] is False
    assert (given["terminal"], given["input"]) == (False, "")


def test_a_tracker_asks_for_no_key(
    tmp_path: Path, eager: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wirework.training.track import open_trackers

    given: list[str] = []
    module = ModuleType("wandb")
    module.init = lambda **_: given.append(sys.stdin.read())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    open_trackers(TrainConfig(track=("wandb",)), tmp_path, 0)
    assert given == [""]
