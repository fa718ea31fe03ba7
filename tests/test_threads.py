"""Threads wait briefly and are no more than the quota allows, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from wirework import threads
from wirework.threads import cpu_quota, settle_threads

MINE = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")


@pytest.fixture
def before_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def seen(code, **given):
    others = {name: value for name, value in os.environ.items() if name not in MINE}
    code += "; import os; print(os.environ.get('GOMP_SPINCOUNT'))"
    words = [sys.executable, "-c", code]
    return subprocess.check_output(words, text=True, env=others | given).split()[-1]


class TestSpinning:
    @pytest.mark.parametrize("code", ["import wirework", "import wirework, torch"])
    def test_is_short_for_those_who_import_wirework(self, code):
        assert seen(code) == str(threads.SPIN)

    def test_is_what_the_user_set(self):
        assert seen("import wirework", GOMP_SPINCOUNT="7") == "7"
        assert seen("import wirework", OMP_WAIT_POLICY="active") == "None"

    @pytest.mark.usefixtures("before_torch")
    @pytest.mark.parametrize(("system", "expected"), [("linux", "300"), ("darwin", None)])
    def test_is_set_where_the_library_is_gnu_s(self, monkeypatch, system, expected):
        monkeypatch.setattr(sys, "platform", system)
        environment: dict[str, str] = {}
        settle_threads(environment)
        assert environment.get("GOMP_SPINCOUNT") == expected

    def test_adds_nothing_else_to_the_environment(self):
        code = "import os; before = dict(os.environ); import wirework, torch; "
        code += "print(sorted(dict(os.environ).items() - before.items()))"
        given = {name: value for name, value in os.environ.items() if name not in MINE}
        given["OMP_NUM_THREADS"] = "1"
        told = subprocess.check_output([sys.executable, "-c", code], text=True, env=given)
        assert "'GOMP_SPINCOUNT', '300'" in told
        assert told.count("(") == 1

    def test_is_left_alone_once_torch_is_loaded(self):
        assert seen("import torch, wirework") == "None"


class TestQuota:
    @pytest.mark.parametrize(
        ("content", "cores"),
        [
            ("200000 100000\n", 2),
            ("150000 100000\n", 2),
            ("1000 100000\n", 1),
            ("max 100000\n", None),
            ("", None),
            ("1 0", None),
        ],
    )
    def test_of_version_two(self, tmp_path, content, cores):
        (tmp_path / "cpu.max").write_text(content)
        assert cpu_quota(tmp_path) == cores

    @pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("-1", None)])
    def test_of_version_one(self, tmp_path, quota, cores):
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
        assert cpu_quota(tmp_path) == cores

    def test_there_is_none_without_control_groups(self, tmp_path):
        assert cpu_quota(tmp_path) is None

    @pytest.mark.usefixtures("before_torch")
    @pytest.mark.parametrize(("quota", "expected"), [(1, "1"), (None, None), (10**6, None)])
    def test_limits_threads(self, monkeypatch, quota, expected):
        monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
        monkeypatch.setattr(threads, "_cores", lambda: 4)
        environment: dict[str, str] = {}
        settle_threads(environment)
        assert environment.get("OMP_NUM_THREADS") == expected

    @pytest.mark.usefixtures("before_torch")
    def test_does_not_change_what_the_user_set(self, monkeypatch):
        monkeypatch.setattr(threads, "cpu_quota", lambda: 1)
        environment = {"OMP_NUM_THREADS": "3"}
        settle_threads(environment)
        assert environment["OMP_NUM_THREADS"] == "3"
