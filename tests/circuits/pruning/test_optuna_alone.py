"""What optuna's own storages and pruners do not guarantee, and `Journal` and `Round` do.

A test that fails here means that optuna has learnt it: then our code for it can go
(docs/architecture.md, "The study of a search").
"""

import struct
from pathlib import Path

import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner, SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from wirework.circuits.pruning.journal import Journal
from wirework.errors import DamagedError

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def study_in(backend: BaseJournalBackend) -> optuna.Study:
    return optuna.create_study(
        storage=JournalStorage(backend), study_name="study", load_if_exists=True
    )


def four_trials(study: optuna.Study) -> None:
    for size in (100.0, 101.0, 102.0, 103.0):
        trial = study.ask()
        trial.suggest_float("lr", 0.001, 0.1, log=True)
        study.tell(trial, size)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.log"
    four_trials(study_in(JournalFileBackend(str(path))))
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    path = tmp_path / "ours.log"
    four_trials(study_in(Journal(path)))
    return path


def change_digit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"102.0", b"109.0"))


def drop_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b"101.0" not in line))


def test_optuna_reads_a_changed_result(theirs: Path) -> None:
    change_digit(theirs)
    values = [trial.value for trial in study_in(JournalFileBackend(str(theirs))).trials]
    assert values == [100.0, 101.0, 109.0, 103.0]


def test_optuna_does_not_miss_a_line(theirs: Path) -> None:
    drop_line(theirs)
    values = [trial.value for trial in study_in(JournalFileBackend(str(theirs))).trials]
    assert values == [100.0, None, 102.0, 103.0]


def test_optuna_appends_to_a_torn_line(theirs: Path) -> None:
    theirs.write_bytes(theirs.read_bytes()[:-20])
    study = study_in(JournalFileBackend(str(theirs)))
    with pytest.raises(ValueError, match="delimiter"):
        study.tell(study.ask(), 5.0)


def test_sqlite_reads_a_changed_value(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="study")
    four_trials(study)
    before = study.trials[2].params["lr"]
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack(">d", before)) + 6] ^= 0x10
    path.write_bytes(content)
    study = optuna.load_study(storage=f"sqlite:///{path}", study_name="study")
    assert study.trials[2].params["lr"] != before


@pytest.mark.parametrize("damage", [change_digit, drop_line])
def test_our_journal_refuses_both(ours: Path, damage) -> None:
    damage(ours)
    with pytest.raises(DamagedError, match=r"ours\.log.* to search anew"):
        Journal(ours)


def test_our_journal_drops_a_torn_line_and_goes_on(ours: Path) -> None:
    ours.write_bytes(ours.read_bytes()[:-20])
    study = study_in(Journal(ours))
    study.tell(study.ask(), 5.0)
    values = [trial.value for trial in study_in(Journal(ours)).trials]
    assert values == [100.0, 101.0, 102.0, None, 5.0]


@pytest.mark.parametrize(
    ("pruner", "stopped"),
    [
        # Compares with finished trials only: a first round has none.
        (MedianPruner(n_startup_trials=0), [False, False, False, False]),
        # Decides as each trial reports: a trial after the best one is stopped whatever follows.
        (SuccessiveHalvingPruner(min_resource=25, reduction_factor=2), [False, True, True, True]),
    ],
)
def test_optuna_does_not_stop_the_worse_half_of_a_round(
    pruner: BasePruner, stopped: list[bool]
) -> None:
    study = optuna.create_study(pruner=pruner)
    trials = [study.ask() for _ in range(4)]
    for trial, size in zip(trials, (10, 20, 30, 40), strict=True):
        trial.report(size, 25)
    assert [trial.should_prune() for trial in trials] == stopped
