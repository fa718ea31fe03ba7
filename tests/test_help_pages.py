"""`--help` is short and shows the basic settings; `--help-all` shows every setting."""

import sys
from collections.abc import Callable

import pytest
from rich.console import Console

from wirework import config as settings
from wirework.cli import main
from wirework.help_pages import flags
from wirework.menu import HELP_ALL, MENU, _owners, app

LINES = 45
CONFIGS = [
    value
    for value in vars(settings).values()
    if isinstance(value, type) and issubclass(value, settings.Config)
]
Help = Callable[..., str]


@pytest.fixture
def help_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Help:
    """Return `help_of(command, flag)`: what the command line prints."""

    def run(command: str, flag: str, columns: int = 80) -> str:
        monkeypatch.setattr(app, "console", Console(width=columns))
        monkeypatch.setattr(sys, "argv", ["wirework", *command.split(), flag])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return capsys.readouterr().out

    return run


class TestHelp:
    @pytest.mark.parametrize("command", MENU)
    def test_help_is_short_and_ends_with_the_way_to_all_settings(self, command: str, help_of: Help):
        text = help_of(command, "--help").rstrip().splitlines()
        assert len(text) <= LINES
        assert text[-1].endswith(f"wirework {command} {HELP_ALL}")

    @pytest.mark.parametrize("command", ["sae", "measure"])
    def test_help_shows_the_basic_settings_alone(self, command: str, help_of: Help):
        owner, words = _owners()[command], set(help_of(command, "--help", 300).split())
        basic, every = (set(flags(owner.setting_names(basic=only))) for only in (True, False))
        assert basic <= words
        assert words.isdisjoint((every - basic) | {"--debug", "--no-lock"})

    def test_h_is_help_and_the_next_help_is_not_the_full_one(self, help_of: Help):
        full = help_of("sae", HELP_ALL)
        assert help_of("sae", "-h") == help_of("sae", "--help") != full
        assert "--buffer" in full


class TestHelpAll:
    @pytest.mark.parametrize("command", _owners())
    def test_help_all_shows_every_setting(self, command: str, help_of: Help):
        words = help_of(command, HELP_ALL, 300).split()
        assert {*flags(_owners()[command].setting_names()), "--debug", "--no-lock"} <= set(words)

    def test_help_all_after_two_dashes_is_a_word_like_others(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        monkeypatch.setattr(sys, "argv", ["wirework", "tasks", "--", HELP_ALL])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert HELP_ALL in capsys.readouterr().err


class TestSettingNames:
    @pytest.mark.parametrize("cls", CONFIGS)
    def test_the_basic_settings_are_settings_each_once(self, cls: type[settings.Config]):
        basic = cls.setting_names(basic=True)
        assert set(basic) <= set(cls.setting_names())
        assert len(set(basic)) == len(basic)
        assert basic or cls is settings.Config

    def test_setting_names_are_those_of_the_groups_too(self):
        names = settings.MeasureConfig.setting_names()
        assert names[:4] == ["instruments", "task", "n_tokens", "acdc.tau"]
        assert "explain.server.base_url" in names
        assert "explain" not in names


def test_a_flag_that_help_does_not_show_works():
    _, bound, _ = app.parse_args(["train", "--optimizer.beta1", "0.5"], exit_on_error=False)
    assert bound.kwargs["settings"].optimizer.beta1 == 0.5
