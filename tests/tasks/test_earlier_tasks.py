import pytest

from wirework.tasks import load_task
from wirework.tasks.earlier_tasks import earlier_task
from wirework.tasks.task_split import fingerprint


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("single_double_quote", "7b379490263c4541c51fc4a615e1d144e827d347dabcc5f6f001cf8fc4290755"),
        ("bracket_counting", "1b703da6ade2416e99e72338aa4df7ea5c3e7244d5aba4dddd22737b915feb5a"),
        ("for_while", "a2bad67a644a270c36c5a9eb051d155fb782a22dc58ed372f16c786fcbdfd0fe"),
    ],
)
def test_pairs_are_those_of_version_0_2(name: str, sha256: str) -> None:
    task = earlier_task(name, 0, 1024)
    assert task is not None
    assert fingerprint(task) == sha256
    assert fingerprint(load_task(name)) != sha256


def test_other_tasks_have_no_earlier_pairs() -> None:
    assert earlier_task("class_init", 0, 16) is None
