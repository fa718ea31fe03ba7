"""A choice by measuring is made once per machine, by all processes alike, whatever the cache is."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from wirework import fastest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fastest, "_chosen", {})
    return tmp_path / "wirework" / "fastest.json"


def forget(monkeypatch):
    """Be a new process."""
    monkeypatch.setattr(fastest, "_chosen", {})


def slow():
    until = time.thread_time() + 2e-3
    while time.thread_time() < until:
        pass


def ways(fast, *others):
    return lambda: {**dict.fromkeys(others, slow), fast: lambda: None}


def never():
    raise AssertionError("measured")


@pytest.mark.usefixtures("one_thread")
class TestChoose:
    def test_takes_the_fastest(self, cache):
        assert fastest.choose("q", "b", ways("a", "b", "c")) == "a"

    def test_keeps_to_the_default_unless_another_is_clearly_faster(self, cache, monkeypatch):
        for seconds, expected in (({"a": 1.0, "b": 1.05}, "b"), ({"a": 1.0, "b": 1.2}, "a")):
            forget(monkeypatch)
            monkeypatch.setattr(fastest, "milliseconds", lambda _, clock, seconds=seconds: seconds)
            assert fastest.choose(f"q{expected}", "b", ways("a", "b")) == expected

    def test_one_way_is_not_timed(self, cache):
        assert fastest.choose("q", "a", lambda: {"a": never}) == "a"

    def test_in_inference_a_way_can_still_compute_gradients(self, cache):
        def backward(leaf):
            with torch.enable_grad():
                leaf.square().sum().backward()

        def graded():
            leaf = torch.ones(2, requires_grad=True)
            return {"a": lambda: backward(leaf), "b": slow}

        with torch.inference_mode():
            assert fastest.choose("q", "b", graded) == "a"
            assert torch.is_inference_mode_enabled()

    def test_is_remembered_by_later_processes(self, cache, monkeypatch):
        assert fastest.choose("q", "b", ways("a", "b")) == "a"
        forget(monkeypatch)
        assert fastest.choose("q", "b", never) == "a"
        assert set(fastest.remembered()["q"][1]) == {"a", "b"}

    def test_another_number_of_threads_is_measured_anew(self, cache, monkeypatch):
        assert fastest.choose("q", "b", ways("a", "b")) == "a"
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
        assert fastest.choose("q", "b", ways("b", "a")) == "b"

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff{",
            b"[]",
            b"[" * 100_000,
            b'{"version": 1}',
            b'{"version": 1, "machines": [1]}',
            b'{"version": 2, "machines": {}}',
            "for this machine",
        ],
    )
    def test_measures_again_where_the_cache_is_damaged(self, cache, content, capsys):
        if content == "for this machine":
            machines = {fastest.machine(1): {"q": {"way": "z"}, "r": 3}}
            content = json.dumps({"version": 1, "machines": machines}).encode()
        cache.parent.mkdir()
        cache.write_bytes(content)
        assert fastest.choose("q", "b", ways("a", "b")) == "a"
        assert json.loads(cache.read_bytes())["machines"][fastest.machine(1)]["q"]["way"] == "a"
        assert capsys.readouterr() == ("", "")

    def test_does_without_a_cache_that_cannot_be_written(self, cache, monkeypatch, capsys):
        cache.parent.write_text("a file where the folder should be")
        assert fastest.choose("q", "b", ways("a", "b")) == "a"
        assert fastest.choose("q", "b", never) == "a"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", _no_home)
        assert fastest.choose("r", "b", ways("a", "b")) == "a"
        assert capsys.readouterr() == ("", "")

    def test_a_lock_that_is_never_released_is_not_waited_for_long(self, cache, monkeypatch):
        monkeypatch.setattr(fastest, "_LOCK_SECONDS", 0.05)
        cache.parent.mkdir()
        with fastest._alone(cache):
            assert fastest.choose("q", "b", ways("a", "b")) == "a"


def _no_home():
    raise RuntimeError("no home")


CHILD = """
import random, sys, time
import torch
from wirework import fastest
torch.set_num_threads(1)
one, other = random.sample(["a", "b"], 2)
spin = lambda: [None for _ in range(30_000)]
ways = {"c": lambda: [spin() for _ in range(4)], one: spin, other: lambda: None}
print(fastest.choose("q", "c", lambda: ways))
"""


@pytest.mark.slow
def test_processes_that_start_at_once_choose_alike(cache):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        for _ in range(4)
    ]
    answers = {child.communicate(timeout=120)[0] for child in children}
    assert len(answers) == 1
    assert answers <= {"a\n", "b\n"}


@pytest.mark.usefixtures("one_thread")
class TestRecord:
    def test_holds_what_the_block_chose_even_if_known_before(self, cache):
        fastest.choose("before", "b", ways("a", "b"))
        fastest.choose("both", "b", ways("a", "b"))
        with fastest.collected_choices() as record:
            fastest.choose("both", "b", never)
            fastest.choose("inside", "b", ways("b", "a"))
        assert record == {"both": "a", "inside": "b"}

    def test_adopted_choices_are_made_without_measuring(self, cache):
        assert fastest.adopt(fastest.machine(1), {"q": "b"})
        assert fastest.choose("q", "a", never) == "b"

    def test_those_of_another_machine_are_not_adopted(self, cache):
        assert not fastest.adopt("another machine", {"q": "b"})
        assert fastest.choose("q", "b", ways("a", "b")) == "a"


def test_a_machine_is_known_by_processor_libraries_limits_and_threads(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    named = fastest.machine.__wrapped__(3)
    for part in (fastest.processor(), torch.__version__, "ONEDNN_MAX_CPU_ISA=AVX2", "3 threads"):
        assert part in named
