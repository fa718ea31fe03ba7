"""Constants of `wirework.tasks` under their old names."""

import pytest

from wirework import tasks


@pytest.mark.parametrize(
    ("old", "new"), [("BUILT_IN", "PYTHON_TASKS"), ("KNOWN", "BUILT_IN_TASKS")]
)
def test_an_old_name_still_works_and_warns(old, new, capsys):
    assert getattr(tasks, old) is getattr(tasks, new)
    assert f"warning: wirework.tasks.{old} is called {new} now" in capsys.readouterr().err


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'NONE'"):
        tasks.NONE  # noqa: B018
