"""Corrupted prompts of `ioi`: the pair's other prompt, or the clean one with new names."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from present import present

import wirework as ww
from wirework.circuits.path_patching.contrast import Contrast
from wirework.circuits.path_patching.corruption import corrupted
from wirework.circuits.path_patching.setting import Setting
from wirework.config import AcdcConfig, MeasureConfig, ModelConfig
from wirework.data import train_tokenizer
from wirework.data.answers import story_answers
from wirework.data.stories import bounded, ioi_words
from wirework.errors import InputError
from wirework.measures import measure
from wirework.model import Model
from wirework.nn import Transformer
from wirework.tasks import Task, load_task

OTHER_TASK = "corruption new_names is for the built-in task ioi, not for 'quotes': use other_prompt"


@pytest.fixture(scope="module")
def stories() -> Model:
    """A random model that reads stories."""
    tokenizer = train_tokenizer(bounded(0, 500_000), 1024, story_answers())
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, n_ctx=64, n_layer=1, d_model=16, d_head=8, bigram=False
    )
    return Model(Transformer(config, seed=1), tokenizer)


@pytest.fixture(scope="module")
def ioi() -> Task:
    return load_task("ioi")


@pytest.fixture
def quotes(ioi: Task) -> Task:
    """Pairs of a user's file."""
    return replace(ioi, name="quotes", generated=False, path="quotes.jsonl", single=())


def contrast(model: Model, task: Task, config: AcdcConfig) -> Contrast:
    return Setting.of(model, task, config).patched.contrast


def texts(model: Model, tokens: torch.Tensor, last: torch.Tensor) -> list[str]:
    tokenizer = present(model.tokenizer)
    return [
        tokenizer.decode(row[: end + 1])
        for row, end in zip(tokens.tolist(), last.tolist(), strict=True)
    ]


def names_in(prompt: str) -> list[str]:
    return [word for word in re.findall(r"\w+", prompt) if word in ioi_words().names]


class TestCorruption:
    def test_ioi_has_new_names_by_default_and_the_answers_of_the_clean_prompt(
        self, stories: Model, ioi: Task
    ) -> None:
        config = AcdcConfig(pairs=8)
        new, other = (
            contrast(stories, ioi, config.model_copy(update={"corruption": corruption}))
            for corruption in (None, "other_prompt")
        )
        assert torch.equal(new.clean, other.clean)
        assert torch.equal(new.answers, other.answers)
        for clean, prompt in zip(
            texts(stories, new.clean, new.last_positions),
            texts(stories, new.corrupted, new.last_positions),
            strict=True,
        ):
            assert len(set(names_in(clean) + names_in(prompt))) == 2 + 3
        assert ((new.clean != new.corrupted).sum(1) == 3).all()
        assert ((other.clean != other.corrupted).sum(1) == 1).all()

    def test_only_names_of_one_token_are_drawn(self, stories: Model, ioi: Task) -> None:
        single = set(ioi_words().names[:20])
        pairs = [pair for pair in ioi.pairs if {answer[1:] for answer in pair.answers} <= single]
        assert 32 < len(pairs) < len(ioi.pairs)

        class OfFewNames:
            def encode(self, text: str) -> list[int]:
                return [0] if text[1:] in single else [0, 0]

        few: Any = OfFewNames()
        drawn = corrupted(ioi.take(pairs), "new_names", few)
        for pair in drawn.pairs:
            assert set(names_in(pair.prompts[1])) <= single
        every = corrupted(ioi.take(pairs), "new_names", present(stories.tokenizer))
        assert not {name for pair in every.pairs for name in names_in(pair.prompts[1])} <= single

    def test_symmetric_takes_the_other_prompt(self, stories: Model, ioi: Task) -> None:
        setting = Setting.of(stories, ioi, AcdcConfig(pairs=2, symmetric=True))
        assert setting.config.corruption == "other_prompt"
        with pytest.raises(InputError, match="symmetric needs a right answer after both"):
            ww.acdc(stories, ioi, corruption="new_names", symmetric=True, progress=False)

    def test_a_task_without_new_names_is_refused_or_has_the_other_prompt(
        self, stories: Model, quotes: Task
    ) -> None:
        assert Setting.of(stories, quotes, AcdcConfig(pairs=2)).config.corruption == "other_prompt"
        for finder in (ww.acdc, ww.edge_attribution):
            with pytest.raises(InputError, match=OTHER_TASK):
                finder(stories, quotes, corruption="new_names")
        of_ioi_s_name = replace(quotes, name="ioi")  # a file ioi.jsonl
        with pytest.raises(InputError, match="built-in task ioi"):
            ww.acdc(stories, of_ioi_s_name, corruption="new_names", progress=False)


class TestRecords:
    def test_a_circuit_names_its_corruption_and_evaluates_itself_with_it(
        self, stories: Model, ioi: Task, tmp_path: Path
    ) -> None:
        some = ioi.take(ioi.pairs[:16])
        circuits = {
            corruption: ww.acdc(
                stories, some, 1e-6, corruption=corruption, pairs=16, progress=False
            )
            for corruption in ("new_names", "other_prompt")
        }
        for corruption, circuit in circuits.items():
            loaded = ww.PathCircuit.load(circuit.save(tmp_path / corruption))
            assert loaded.patching.corruption == corruption
            assert loaded.document.provenance.settings["corruption"] == corruption
            assert loaded.evaluate(stories, some) == pytest.approx(circuit.patching.value)
        assert circuits["new_names"].patching.kl != circuits["other_prompt"].patching.kl
        default = ww.acdc(stories, some, 1e-6, pairs=16, progress=False)
        assert default.document == circuits["new_names"].document

    def test_a_circuit_of_an_earlier_version_has_the_other_prompt(
        self, stories: Model, ioi: Task
    ) -> None:
        some = ioi.take(ioi.pairs[:16])
        circuit = ww.acdc(stories, some, 1e-6, corruption="other_prompt", pairs=16, progress=False)
        values = circuit.document.to_json()
        del values["patching"]["corruption"]
        document = type(circuit.document).of_json(values, "circuit.json")
        assert document.patching is not None
        assert document.patching.corruption is None
        old = replace(circuit, document=document)
        assert old.evaluate(stories, some) == pytest.approx(circuit.patching.value)

    def test_edge_attribution_records_it(self, stories: Model, ioi: Task) -> None:
        scores = ww.edge_attribution(stories, ioi, pairs=2)
        assert scores.settings["corruption"] == "new_names"
        assert scores.circuit(3).patching.corruption == "new_names"


class TestMeasure:
    def test_measure_uses_new_names_unless_told_otherwise(self, stories: Model) -> None:
        of_default = measure(stories, ["acdc"], MeasureConfig(), progress=False)
        assert of_default["acdc"]["corruption"] == "new_names"
        config = MeasureConfig.of({"acdc": {"corruption": "other_prompt"}})
        assert measure(stories, ["acdc"], config, progress=False)["acdc"]["corruption"] == (
            "other_prompt"
        )

    def test_measure_refuses_it_for_another_task(self, stories: Model) -> None:
        config = MeasureConfig.of({"task": "for_while", "acdc": {"corruption": "new_names"}})
        with pytest.raises(InputError, match="not for 'for_while'"):
            measure(stories, ["acdc"], config, progress=False)
