import subprocess
import sys

import pytest
import torch

from wirework.errors import InputError
from wirework.nn.kernels.triton import choice
from wirework.nn.kernels.triton.choice import use_triton

X = torch.ones(2, 4)


def no_ways():
    raise AssertionError("measured")


@pytest.mark.parametrize("value", ["0", "auto"])
def test_on_the_cpu_the_kernels_are_not_used(monkeypatch, value):
    monkeypatch.setenv("WIREWORK_TRITON", value)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert not use_triton("test", X, no_ways)


def test_the_variable_needs_the_interpreter_on_the_cpu(monkeypatch):
    monkeypatch.setenv("WIREWORK_TRITON", "1")
    monkeypatch.setattr(choice, "installed", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not use_triton("test", X, no_ways)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert use_triton("test", X, no_ways)


def test_a_wrong_value_is_refused(monkeypatch):
    monkeypatch.setenv("WIREWORK_TRITON", "yes")
    with pytest.raises(InputError, match="must be 0, 1 or auto, got 'yes'"):
        use_triton("test", X, no_ways)


def test_without_triton_the_variable_names_the_extra(monkeypatch):
    monkeypatch.setenv("WIREWORK_TRITON", "1")
    monkeypatch.setattr(choice, "installed", lambda: False)
    with pytest.raises(InputError, match=r"pip install wirework\[triton\]"):
        use_triton("test", X, no_ways)


class FakeCuda:
    """What `use_triton` looks at in a tensor on a GPU."""

    device = torch.device("cuda", 0)


@pytest.mark.parametrize("fastest", ["torch", "triton"])
def test_on_cuda_the_faster_one_is_chosen_once_for_each_gpu(monkeypatch, fastest):
    asked = []

    def choose(question, default, ways, clock):
        asked.append((question, default, sorted(ways())))
        return fastest

    monkeypatch.delenv("WIREWORK_TRITON", raising=False)
    monkeypatch.setattr(choice, "installed", lambda: True)
    monkeypatch.setattr("wirework.fastest.choose", choose)
    monkeypatch.setattr(choice, "_gpu", lambda device: "GPU X")
    both = {"torch": lambda: 1, "triton": lambda: 2}
    assert use_triton("AbsTopK", FakeCuda(), lambda: both) == (fastest == "triton")
    assert asked == [("AbsTopK on GPU X", "torch", ["torch", "triton"])]


def test_nothing_imports_triton_unasked():
    code = (
        "import sys, torch\n"
        "from wirework.nn.kernels.device_top_k import select\n"
        "select(torch.ones(2, 4), 2)\n"
        "import wirework.training.loop\n"
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60).returncode == 0
