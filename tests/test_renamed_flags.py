"""First names of flags and settings still work, with a line that says what they are called now."""

import pytest

from wirework import console
from wirework.config import AcdcConfig, PruneConfig
from wirework.renamed_flags import with_new_flags, with_new_names


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_said_once", set())


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
def test_a_flag_by_its_first_name(flag: str, now: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert with_new_flags(["prune", flag, "both"]) == ["prune", now, "both"]
    assert capsys.readouterr().err.count("is called") == 1


def test_other_words_stay(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--bothers", "also", "-both", "--out=--also", "--level", "both"]
    assert with_new_flags(words) == words
    assert not capsys.readouterr().err


def test_settings_of_a_file_by_their_first_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert with_new_names({"prune": {"draws": 2}, "seed": 1}) == {
        "prune": {"n_resamples": 2},
        "seed": 1,
    }
    assert "the setting draws is called n_resamples now" in capsys.readouterr().err


def test_records_keep_the_first_names_and_open_by_them() -> None:
    config = PruneConfig(n_resamples=5, extra_rankings=(), allow_unreached=True)
    record = config.recorded()
    assert (record["draws"], record["also"], record["anyway"]) == (5, [], True)
    assert not {"n_resamples", "extra_rankings", "allow_unreached"} & record.keys()
    assert PruneConfig.of(record) == config
    assert "also" not in config.recorded(exclude={"also"})
    assert AcdcConfig.of({"both": True}).symmetric
