import errno
import os
import re
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from wirework.circuits.pruning.hyperparameter_search import centre, n_finished, rounds
from wirework.circuits.pruning.journal import Journal
from wirework.circuits.pruning.learned_masks import MaskSettings
from wirework.circuits.pruning.search_folder import (
    Candidate,
    kept_best,
    merged,
    open_search,
    read_candidates,
    write_candidates,
)
from wirework.config import PruneConfig
from wirework.errors import DamagedError, InputError, UnreadableError
from wirework.model import Model
from wirework.tasks import Task
from wirework.tasks.task_split import parts_of


def tried(config: PruneConfig, folder: Path | None = None, most: int = 99) -> list[MaskSettings]:
    """Return what at most `most` rounds of a search try where later trials are the smaller ones."""
    seen: list[MaskSettings] = []
    for number, current in enumerate(rounds(config, folder), 1):
        seen.extend(current.settings)
        if number > most:
            return seen  # cut off: drawn, never told
        current.tell([-float(current.first + i) for i in range(len(current.settings))])
    return seen


class TestRounds:
    def test_the_first_trial_is_the_centre_and_every_trial_counts(self) -> None:
        config = PruneConfig(trials=7, parallel=3)
        found = list(map(len, (r.settings for r in told(config))))
        assert found == [3, 3, 1]
        seen = tried(config)
        assert seen[0] == centre(config)
        for name in (
            "k_coef",
            "init_noise_scale",
            "init_noise_bias",
            "weight_decay",
            "lr",
            "lr_warmup",
        ):
            assert len({getattr(one, name) for one in seen}) == 7

    def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(self, tmp_path: Path) -> None:
        config = PruneConfig(trials=10, parallel=3)
        whole = tried(config)
        for most in (0, 1, 2):
            tried(config, tmp_path, most)
        done = tried(config, tmp_path)
        assert done == whole[9:]  # three rounds were told before
        assert tried(config, tmp_path) == []
        assert len(tried(PruneConfig(trials=12, parallel=3), tmp_path)) == 2

    def test_a_large_seed_is_taken(self) -> None:
        config = PruneConfig(trials=2, parallel=1, seed=10**9)
        assert len(tried(config)) == 2

    def test_random_draws_do_not_look_at_what_was_found(self) -> None:
        def drawn(sampler: str, sign: float) -> list[MaskSettings]:
            seen: list[MaskSettings] = []
            for current in rounds(PruneConfig(trials=24, parallel=4, sampler=sampler)):
                seen.extend(current.settings)
                current.tell([sign * one.lr for one in current.settings])
            return seen

        assert drawn("random", 1) == drawn("random", -1)
        assert drawn("tpe", 1) != drawn("tpe", -1)

    def test_the_larger_half_of_all_that_came_to_a_rung_stops(self) -> None:
        first, second = (None, None)
        for current in rounds(PruneConfig(trials=8, parallel=4)):
            if not current.first:
                first = current.in_better_half(5, [0, 1, 2, 3], [40, 10, 30, 20])
                assert current.in_better_half(9, [1, 3], [10, 12]) == [True, False]
                current.tell([None, 10, None, None])
            else:
                second = current.in_better_half(5, [0, 1, 2, 3], [26, 24, 25, 50])
                current.tell([1.0] * 4)
        assert first == [False, True, False, True]
        assert second == [False, True, True, False]  # of 40 10 30 20 26 24 25 50 the median is 25.5

    def test_shares_stay_below_one_and_zeros_stay_zero(self) -> None:
        seen = tried(PruneConfig(trials=12, inv_beta2=0.9, init_noise_bias=0, weight_decay=0))
        assert all(0 < one.inv_beta2 < 1 and 0 < one.lr_warmup < 1 for one in seen)
        assert {(one.init_noise_bias, one.weight_decay) for one in seen} == {(0, 0)}

    def test_a_round_that_was_cut_off_while_it_was_told_is_told_to_its_end(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        config = PruneConfig(trials=8, parallel=4)
        whole, tell = tried(config), optuna.Study.tell
        told_of: list[int] = []

        def stop(study: optuna.Study, number: int, *rest: Any) -> optuna.trial.FrozenTrial:
            if len(told_of) == 2:
                raise KeyboardInterrupt
            told_of.append(number)
            return tell(study, number, *rest)

        monkeypatch.setattr(optuna.Study, "tell", stop)
        with pytest.raises(KeyboardInterrupt):
            tried(config, tmp_path)
        monkeypatch.setattr(optuna.Study, "tell", tell)
        assert n_finished(tmp_path) == 4
        assert tried(config, tmp_path) == whole[4:]

    @pytest.mark.parametrize("share", [0.99, 0.999])
    def test_a_centre_at_the_end_of_its_range_is_tried(self, share: float) -> None:
        assert tried(PruneConfig(trials=2, inv_beta2=share))[0].inv_beta2 == share


def told(config: PruneConfig):
    for current in rounds(config):
        yield current
        current.tell([1.0] * len(current.settings))


DAMAGED = [b"junk\n", b"[]\n", b"{}\n", b"\xff\xfe\n", b'{"op_code": 99, "worker_id": "w"}\n']


class TestJournal:
    @pytest.mark.parametrize("line", DAMAGED)
    def test_a_damaged_study_is_told_so(self, tmp_path: Path, line: bytes) -> None:
        tried(PruneConfig(trials=2), tmp_path)
        path = tmp_path / "study.log"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:3], line, *lines[4:]]))
        with pytest.raises(InputError, match=f"damaged .*: delete {tmp_path} to search anew"):
            tried(PruneConfig(trials=3), tmp_path)

    def test_a_write_that_failed_leaves_no_trace_in_the_sums(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        journal = Journal(tmp_path / "study.log")
        journal.append_logs([{"a": 1}])
        with monkeypatch.context() as patched:
            patched.setattr("wirework.circuits.pruning.journal.sync_file", full)
            with pytest.raises(InputError, match="No space left"):
                journal.append_logs([{"b": 2}])
        journal.append_logs([{"c": 3}])
        assert Journal(tmp_path / "study.log").read_logs(0) == [{"a": 1}, {"c": 3}]

    def test_a_study_of_an_older_version_is_gone_on_with(self, tmp_path: Path) -> None:
        config = PruneConfig(trials=6, parallel=2)
        whole = tried(config)
        tried(config, tmp_path, 1)
        old = without_sums(tmp_path / "study.log")
        assert tried(config, tmp_path) == whole[2:]
        lines = (tmp_path / "study.log").read_bytes().splitlines()
        assert lines[: len(old)] == old
        assert all(b'"sum"' in line for line in lines[len(old) :])

    def test_a_study_whose_checksums_were_taken_off_is_not_taken_for_an_older_one(
        self,
        tmp_path: Path,
    ) -> None:
        tried(PruneConfig(trials=2), tmp_path)
        path = tmp_path / "study.log"
        path.write_bytes(re.sub(rb', "sum": "[0-9a-f]{16}"', b"", path.read_bytes()))
        with pytest.raises(
            DamagedError, match=r"study\.log is damaged in line 1: it has no checksum"
        ):
            tried(PruneConfig(trials=2), tmp_path)

    @pytest.mark.parametrize("line", DAMAGED)
    def test_a_damaged_study_of_an_older_version_is_told_so(
        self, tmp_path: Path, line: bytes
    ) -> None:
        tried(PruneConfig(trials=2), tmp_path)
        path = tmp_path / "study.log"
        lines = without_sums(path)
        path.write_bytes(b"\n".join([*lines[:3], line.rstrip(), *lines[4:], b""]))
        with pytest.raises(InputError, match=f"damaged .*: delete {tmp_path} to search anew"):
            tried(PruneConfig(trials=3), tmp_path)

    @pytest.mark.parametrize(
        "what", [b'"param_value_internal": ', b'"intermediate_value": ', b'"values": [']
    )
    def test_a_number_of_a_study_that_changed_is_told_of(self, tmp_path: Path, what: bytes) -> None:
        for current in rounds(PruneConfig(trials=2), tmp_path):
            current.in_better_half(1, [0, 1], [3.0, 4.0])
            current.tell([3.0, 4.0])
        path = tmp_path / "study.log"
        content = path.read_bytes()
        assert what in content
        path.write_bytes(content.replace(what, what + b"1", 1))
        with pytest.raises(
            DamagedError, match=r"study\.log is damaged in line \d+: it does not match"
        ):
            tried(PruneConfig(trials=3), tmp_path)

    def test_a_full_disk_names_the_study_and_the_search_goes_on(self, tmp_path: Path) -> None:
        config = PruneConfig(trials=4, parallel=2)
        whole = tried(config)
        tried(config, tmp_path, 1)
        path = tmp_path / "study.log"
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
        try:
            with pytest.raises(InputError, match=r"cannot write .*study\.log: File too large"):
                tried(config, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert tried(config, tmp_path) == whole[2:]

    def test_a_lock_that_a_kill_left_is_no_obstacle(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        folder = Path("search")
        folder.mkdir()
        tried(PruneConfig(trials=2), folder)
        (folder / "study.log.lock").symlink_to(folder / "study.log")
        assert len(tried(PruneConfig(trials=3), folder)) == 1

    def test_a_torn_last_line_is_dropped(self, tmp_path: Path) -> None:
        config = PruneConfig(trials=4, parallel=2)
        whole = tried(config)
        tried(config, tmp_path, 1)
        path = tmp_path / "study.log"
        path.write_bytes(path.read_bytes()[:-9])
        assert tried(config, tmp_path) == whole[2:]


def without_sums(path: Path) -> list[bytes]:
    """Make a study look as older versions wrote it; return its lines."""
    lines = path.read_bytes().splitlines()
    bare = [
        re.sub(rb'(, "checksum": "sum")?, "sum": "[0-9a-f]{16}"}$', b"}", line) for line in lines
    ]
    assert bare != lines
    path.write_bytes(b"".join(line + b"\n" for line in bare))
    return bare


class TestKeptBest:
    @pytest.mark.parametrize("name", ["study.log", "told.json", "best.safetensors"])
    def test_a_search_that_cannot_be_read_is_not_called_damaged(
        self, tmp_path: Path, unreadable: Callable[..., AbstractContextManager[None]], name: str
    ) -> None:
        tried(PruneConfig(trials=2), tmp_path)
        write_candidates(tmp_path, [Candidate(3, 2, torch.ones(4))])
        said = f"cannot read {tmp_path}/{name}: Input/output error"
        with unreadable(tmp_path / name), pytest.raises(UnreadableError, match=said):
            kept_best(tmp_path, 1)

    def test_a_search_whose_masks_are_gone_or_too_few_says_what_to_do(self, tmp_path: Path) -> None:
        assert kept_best(tmp_path, 5) == []  # nothing was searched yet
        tried(PruneConfig(trials=3, parallel=3), tmp_path)
        with pytest.raises(InputError, match=f"0 of its 3 trials, .* more: delete {tmp_path} to"):
            kept_best(tmp_path, 1)
        write_candidates(
            tmp_path, [Candidate(7, 4, torch.arange(3.0)), Candidate(9, 2, torch.ones(3))]
        )
        assert len(kept_best(tmp_path, 2)) == 2
        with pytest.raises(
            InputError, match="2 of its 3 trials, and finalists=3 asks for more: ask"
        ):
            kept_best(tmp_path, 3)


class TestOpenSearch:
    def test_folders_that_killed_searches_left_empty_are_removed(
        self, wired: Model, task: Task, tmp_path: Path
    ) -> None:
        (tmp_path / "0123456789ab").mkdir()
        (tmp_path / "0123456789ac").mkdir()
        (tmp_path / "0123456789ac" / "study.log").touch()
        (tmp_path / "mine").mkdir()
        folder = open_search(tmp_path, wired, task, parts_of(task, 8, 0), PruneConfig(), "text")
        names = {"0123456789ac", "mine", folder.name}
        assert {path.name for path in tmp_path.iterdir()} == names

    def test_the_folder_of_a_search_is_of_one_search(
        self, wired: Model, random_model: Model, task: Task, tmp_path: Path
    ) -> None:
        place, config, parts = tmp_path / "some" / "search", PruneConfig(), parts_of(task, 8, 0)
        folder = open_search(place, wired, task, parts, config, "text")
        longer = config.model_copy(update={"trials": 99})
        assert open_search(place, wired, task, parts, longer, "text") == folder
        reseeded = config.model_copy(update={"seed": 3})
        others = {
            open_search(place, random_model, task, parts, config, "text"),
            open_search(place, wired, task.take(task.pairs[1:]), parts, config, "text"),
            open_search(place, wired, task, parts, reseeded, "text"),
            open_search(place, wired, task, parts, config, "other text"),
            open_search(place, wired, task, parts_of(task, 8, 1), config, "text"),
        }
        assert len({folder, *others}) == 6
        with pytest.raises(InputError, match="cannot write"):
            open_search(Path("/proc/search"), wired, task, parts, config, "text")

    def test_without_templates_the_name_is_that_of_earlier_versions(
        self, wired: Model, task: Task, tmp_path: Path
    ) -> None:
        plain = task.take([replace(pair, template=None) for pair in task.pairs])
        places = {
            open_search(tmp_path, wired, plain, parts_of(plain, 8, seed), PruneConfig(), "text")
            for seed in (0, 1)
        }
        assert len(places) == 1


class TestReadCandidates:
    def test_masks_that_were_altered_are_told_of(self, tmp_path: Path) -> None:
        write_candidates(tmp_path, [Candidate(3, 2, torch.ones(4))])
        path = tmp_path / "best.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(InputError, match="does not match its checksum"):
            read_candidates(tmp_path)

    def test_the_best_masks_come_back(self, tmp_path: Path) -> None:
        assert read_candidates(tmp_path) == []
        best = [Candidate(7, 4, torch.arange(3.0)), Candidate(9, 2, torch.ones(3))]
        write_candidates(tmp_path, best)
        again = read_candidates(tmp_path)
        assert [one[:2] for one in again] == [(7, 4), (9, 2)]
        assert all(torch.equal(a.tau, b.tau) for a, b in zip(again, best, strict=True))
        assert [one[:2] for one in merged(again[1:], [*best, Candidate(7, 3, torch.zeros(3))])] == [
            (7, 3), (7, 4), (9, 2),
        ]  # fmt: skip
        (tmp_path / "best.safetensors").write_bytes(b"no")
        with pytest.raises(InputError, match="is damaged"):
            read_candidates(tmp_path)
