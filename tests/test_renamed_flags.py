"""First names of flags and settings still work, with a line that says what they are called now."""

from typing import Any

import pytest

from wirework import config, console
from wirework.config import AcdcConfig, MeasureConfig, PruneConfig, SelfAblationConfig
from wirework.renamed_flags import with_new_flags, with_new_names


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_said_once", set())


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
        assert with_new_flags(["prune", flag, "both"]) == ["prune", now, "both"]
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
        assert with_new_flags([*command, flag]) == [*command, now]

    def test_other_words_stay(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--bothers", "also", "-both", "--out=--also", "--level", "both"]
        assert with_new_flags(words) == words
        assert not capsys.readouterr().err


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
