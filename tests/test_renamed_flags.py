"""First names of flags and settings still work, with a line that says what they are called now."""

from pathlib import Path
from typing import Any

import pytest
from command_line import run_here

from wirework import config, console
from wirework.config import (
    AcdcConfig,
    FrontierConfig,
    MeasureConfig,
    PruneConfig,
    SelfAblationConfig,
)
from wirework.errors import InputError
from wirework.renamed_flags import with_new_flags, with_new_names


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_said_once", set())


def _has_all(name: str) -> bool:
    return True


class TestWithNewFlags:
    @pytest.mark.parametrize(
        ("flag", "now"),
        [
            ("--anyway", "--allow-unreached"),
            ("--no-both", "--no-symmetric"),
            ("--empty-also", "--empty-extra-rankings"),
            ("--prune.draws=2", "--prune.n-resamples=2"),
            ("--measure.acdc.no-both", "--measure.acdc.no-symmetric"),
            ("--whole", "--full-validation"),
        ],
    )
    def test_a_flag_by_its_first_name(
        self, flag: str, now: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert with_new_flags(["prune", flag, "both"], _has_all) == ["prune", now, "both"]
        assert capsys.readouterr().err.count("is called") == 1

    @pytest.mark.parametrize(
        ("command", "flag", "now"),
        [
            (["measure"], "--which=sae", "--instruments=sae"),
            (["study", "self-ablation"], "--measure.which=sae", "--measure.instruments=sae"),
            (["study", "finders"], "--which=random", "--finders=random"),
            (["study", "finders"], "--draws=2", "--n-resamples=2"),
            (["study", "finders"], "--whole", "--whole"),
        ],
    )
    def test_a_flag_has_the_name_of_its_command(
        self, command: list[str], flag: str, now: str
    ) -> None:
        assert with_new_flags([*command, flag], _has_all) == [*command, now]

    def test_other_words_stay(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--bothers", "also", "-both", "--out=--also", "--level", "both"]
        assert with_new_flags(words, _has_all) == words
        assert not capsys.readouterr().err

    def test_a_flag_of_another_command_stays(self, capsys: pytest.CaptureFixture[str]) -> None:
        names = SelfAblationConfig.setting_names()
        flags = ["--which=a", "--measure.which=sae", "--measure.acdc.both", "--prune.draws=2"]
        assert with_new_flags(["study", "self-ablation", *flags], names.__contains__) == [
            *("study", "self-ablation", "--which=a"),
            *("--measure.instruments=sae", "--measure.acdc.symmetric", "--prune.draws=2"),
        ]
        assert capsys.readouterr().err.count("is called") == 2


class TestWithNewNames:
    def test_settings_of_a_file_by_their_first_names(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert with_new_names({"prune": {"draws": 2}, "seed": 1}) == {
            "prune": {"n_resamples": 2},
            "seed": 1,
        }
        assert "the setting draws is called n_resamples now" in capsys.readouterr().err

    def test_options_in_a_file_have_the_names_of_their_command(self) -> None:
        told = {"which": ["sae"], "measure": {"which": ["sae"]}, "whole": True}
        measured = {"measure": {"instruments": ["sae"]}}
        assert with_new_names(told, "measure") == {
            "instruments": ["sae"],
            "whole": True,
            **measured,
        }
        finders = {"finders": ["sae"], "whole": True, **measured}
        assert with_new_names(told, "study finders") == finders
        assert with_new_names({"whole": True}, "prune") == {"full_validation": True}

    def test_both_names_at_once_are_an_error(self) -> None:
        told = {"measure": {"which": ["sae"], "instruments": ["language"]}}
        with pytest.raises(InputError) as refused:
            with_new_names(told, "study self-ablation", "mine.yaml")
        expected = "instruments is also given as which, its old name: keep one"
        assert str(refused.value) == f"mine.yaml: {expected}"
        with pytest.raises(InputError, match=r"^finders is also given as which"):
            with_new_names({"which": ["sae"], "finders": ["sae"]}, "study finders")


class TestRenamedSettings:
    def test_records_keep_the_first_names_and_open_by_them(self) -> None:
        settings = PruneConfig(n_resamples=5, extra_rankings=(), allow_unreached=True)
        record = settings.recorded()
        assert (record["draws"], record["also"], record["anyway"]) == (5, [], True)
        assert not {"n_resamples", "extra_rankings", "allow_unreached"} & record.keys()
        assert PruneConfig.of(record) == settings
        assert "also" not in settings.recorded(exclude={"also"})
        assert AcdcConfig.of({"both": True}).symmetric

    def test_records_of_nested_settings_keep_the_first_names(self) -> None:
        study = SelfAblationConfig(measure=MeasureConfig(instruments=("sae",)))
        assert study.recorded()["measure"]["which"] == ["sae"]
        assert SelfAblationConfig.of(study.recorded()) == study
        assert "instruments" not in study.recorded()["measure"]

    def test_a_setting_is_an_attribute_by_its_first_name(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings: Any = MeasureConfig(instruments=("sae",))
        assert settings.which == ("sae",)
        assert capsys.readouterr().err == (
            "warning: MeasureConfig.which is called instruments now\n"
        )
        with pytest.raises(AttributeError, match="'PruneConfig' object has no attribute 'which'"):
            PruneConfig().which  # type: ignore[attr-defined]  # noqa: B018

    def test_both_names_at_once_are_an_error(self, tmp_path: Path) -> None:
        both: Any = {"which": ["sae"], "instruments": ["language"]}
        expected = "instruments is also given as which, its old name: keep one"
        with pytest.raises(InputError, match=f"^{expected}$"):
            MeasureConfig(**both)
        with pytest.raises(InputError, match=f"^{expected}$"):
            MeasureConfig.overridden(None, both)
        with pytest.raises(InputError, match=f"^settings: measure: {expected}$"):
            SelfAblationConfig.of({"measure": both})
        file = tmp_path / "measure.yaml"
        file.write_text("which: [sae]\ninstruments: [language]\n")
        with pytest.raises(InputError, match=f"measure.yaml: {expected}$"):
            MeasureConfig.load(file)

    def test_an_override_wins_by_either_name(self, tmp_path: Path) -> None:
        file = tmp_path / "frontier.yaml"
        file.write_text("prune: {draws: 5, steps: 7}\n")
        loaded = FrontierConfig.load(file, {"prune.n_resamples": 2}).prune
        assert (loaded.n_resamples, loaded.steps) == (2, 7)
        old: Any = {"draws": 3}
        assert PruneConfig.overridden(loaded, old).n_resamples == 3
        assert loaded.model_copy(update=old).n_resamples == 3
        assert PruneConfig(**old) == PruneConfig(n_resamples=3)

    @pytest.mark.parametrize("kind", [getattr(config, name) for name in config.__all__])
    def test_a_setting_of_a_renamed_name_was_renamed_in_its_class(self, kind: Any) -> None:
        """`recorded` writes first names by name alone: no class may use a new name otherwise."""
        expected = {
            PruneConfig: {"also", "anyway", "draws"},
            AcdcConfig: {"both"},
            MeasureConfig: {"which"},
        }
        if isinstance(kind, type) and issubclass(kind, config.Config):
            assert kind.renamed().keys() == expected.get(kind, set())


class TestCommand:
    @pytest.mark.parametrize(
        ("words", "flag"),
        [
            (["acdc", "runs/demo", "single_double_quote"], "--which"),
            (["view", "circuit"], "--both"),
        ],
    )
    def test_names_an_unknown_flag_as_it_was_given(self, words: list[str], flag: str) -> None:
        done = run_here(*words, flag)
        assert done.returncode == 2
        assert "is called" not in done.stderr
        assert f"Unknown option: {flag}." in done.stderr

    def test_refuses_a_file_with_both_names(self, tmp_path: Path) -> None:
        file = tmp_path / "prune.yaml"
        file.write_text("draws: 2\nn_resamples: 3\n")
        done = run_here("prune", "model", "task", "--config", file)
        assert done.returncode == 2
        told = "prune.yaml: n_resamples is also given as draws, its old name: keep one"
        assert told in done.stderr
