"""A user's own text, however small: one call trains on it."""

from pathlib import Path
from typing import Any

import pytest

from wirework.config import DataConfig, TrainConfig
from wirework.data import ANSWERS, END_OF_TEXT, prepare, single_token
from wirework.data.answers import answers_for, story_answers
from wirework.errors import InputError
from wirework.training import Run, train


def words(n: int) -> str:
    """Return `n` lines of words, no two the same."""
    lines = (f"On day {i} the {i * i % 97}th bird sang of {i % 13} trees.\n" for i in range(n))
    return "".join(lines)


def trained(tmp_path: Path, text: str, **changes: Any) -> Run:
    """Train two steps on a text file with settings that say nothing of its size."""
    path = tmp_path / "notes.txt"
    path.write_text(text)
    model = {"n_ctx": 32, "n_layer": 1, "d_model": 16, "d_head": 8, **changes.pop("model", {})}
    data = {"corpus": str(path), "cache": str(tmp_path / "data"), **changes.pop("data", {})}
    values = {"runs": str(tmp_path / "runs"), "steps": 2, "precision": "float32", "device": "cpu"}
    return train(TrainConfig.of({**values, **changes, "model": model, "data": data}), False, False)


class TestTrainOnSmallText:
    @pytest.mark.parametrize("lines", [40, 400, 8000])
    def test_text_of_any_size_is_trained_on_with_no_setting(
        self, tmp_path: Path, lines: int, capsys
    ):
        run = trained(tmp_path, words(lines))
        size = run.model.config.vocab_size
        assert run.model.tokenizer is not None
        assert size == run.model.tokenizer.vocab_size <= 2048
        said = [
            line for line in capsys.readouterr().err.splitlines() if "fills a vocabulary" in line
        ]
        path = tmp_path / "notes.txt"
        few = f"{path} fills a vocabulary of {size} tokens instead of 2048: the smaller one is used"
        assert said == ([few] if size < 2048 else [])
        stored = TrainConfig.load(run.path / "config.yaml")
        assert (stored.data.vocab_size, stored.model.vocab_size) == (size, size)

    def test_a_text_of_a_few_lines_has_shorter_contexts(self, tmp_path: Path, capsys):
        run = trained(tmp_path, words(30), model={"n_ctx": 1024})
        assert run.metrics["val_loss"] > 0
        assert "too few for a context of 1024" in capsys.readouterr().err

    @pytest.mark.parametrize("which", ["data", "model"])
    def test_one_setting_is_enough(self, tmp_path: Path, which: str):
        run = trained(tmp_path, words(400), **{which: {"vocab_size": 300}})
        assert run.model.tokenizer is not None
        assert run.model.tokenizer.vocab_size == run.model.config.vocab_size == 300

    def test_a_number_that_the_text_cannot_fill_is_refused_with_the_one_to_give(
        self, tmp_path: Path
    ):
        with pytest.raises(InputError) as caught:
            trained(tmp_path, words(40), data={"vocab_size": 3000})
        message = str(caught.value)
        size = int(message.split("at most ")[1].split(" tokens")[0])
        assert f"vocab_size is 3000: give --data.vocab_size {size} or auto" in message
        assert (
            trained(tmp_path, words(40), data={"vocab_size": size}).model.config.vocab_size == size
        )

    def test_a_run_on_a_small_text_is_resumed_as_it_began(self, tmp_path: Path):
        run = trained(tmp_path, words(40))
        settings = TrainConfig.load(run.path / "config.yaml")
        auto = settings.model_dump() | {"steps": 2}
        auto["data"] |= {"vocab_size": "auto"}
        auto["model"] |= {"vocab_size": 0}
        again = train(TrainConfig.of(auto), resume=True, progress=False)
        assert again.model.fingerprint == run.model.fingerprint

    def test_a_given_tokeniser_decides_the_models_vocabulary(self, tmp_path: Path):
        run = trained(tmp_path, words(400), data={"vocab_size": 300})
        mine = str(run.path / "tokenizer.json")
        other = trained(tmp_path, words(400), name="other", data={"tokenizer": mine})
        assert other.model.config.vocab_size == 300
        wide = trained(
            tmp_path, words(400), name="wide", data={"tokenizer": mine}, model={"vocab_size": 310}
        )
        assert wide.model.config.vocab_size == 310


class TestPrepareSmallText:
    def test_what_auto_made_does_not_pass_for_the_number(self, tmp_path: Path):
        path = tmp_path / "notes.txt"
        path.write_text(words(40))
        small = prepare(DataConfig(corpus=str(path)), tmp_path, progress=False)
        asked = DataConfig(corpus=str(path), vocab_size=2048)
        with pytest.raises(InputError, match=f"at most {small.tokenizer.vocab_size} tokens"):
            prepare(asked, tmp_path, progress=False)

    def test_prose_is_cut_by_the_plain_pattern(self, tmp_path: Path):
        path = tmp_path / "notes.txt"
        path.write_text(words(400) + "He said 'no')\n")
        tokenizer = prepare(DataConfig(corpus=str(path)), tmp_path, progress=False).tokenizer
        assert tokenizer.token(tokenizer.eot) == END_OF_TEXT
        with pytest.raises(InputError, match="must be one token after"):
            single_token(tokenizer, "values = [[1, 2], [3, 4", "]]")


class TestAnswersFor:
    @pytest.mark.parametrize(
        ("settings", "answers"),
        [
            ({"corpus": "python"}, ANSWERS),
            ({"corpus": "stories"}, story_answers()),
            ({"corpus": "hub:some/name"}, ()),
            ({"corpus": "hub:some/name", "answers": "stories"}, story_answers()),
            ({"corpus": "hub:some/name", "mix": "wirework.tasks:practice_texts"}, ANSWERS),
            (
                {"corpus": "hub:some/name", "mix": "wirework.tasks:ioi_practice_texts"},
                story_answers(),
            ),
            ({"corpus": "stories", "mix": "wirework.tasks:practice_texts"}, story_answers()),
            ({"corpus": "python", "answers": "none"}, ()),
        ],
    )
    def test_answers_follow_the_corpus(self, settings: dict[str, str], answers: tuple[object, ...]):
        assert answers_for(DataConfig.of(settings)) == answers

    def test_answers_of_files_follow_their_names(self, tmp_path: Path):
        for name in ("a.py", "notes.txt", "a.jsonl"):
            (tmp_path / name).write_text("x = 1\n")
        assert answers_for(DataConfig(corpus=str(tmp_path / "a.py"))) == ANSWERS
        assert answers_for(DataConfig(corpus=str(tmp_path / "notes.txt"))) == ()
        assert answers_for(DataConfig(corpus=str(tmp_path / "a.jsonl"))) == ()
        assert answers_for(DataConfig(corpus=str(tmp_path))) == ()
        (tmp_path / "b.py").write_text("y = 2\n")
        assert answers_for(DataConfig(corpus=str(tmp_path))) == ANSWERS
