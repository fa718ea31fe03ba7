"""When a layer is computed by Triton; `triton_interpreted.py` has the products themselves."""

import subprocess
import sys

import pytest
import torch

from wirework.errors import InputError
from wirework.nn.kernels import device_sparse_linear, sparse_linear
from wirework.nn.kernels.device_sparse_linear import (
    has_few_entries,
    is_wanted,
    linear_by_triton,
)
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.kernels.triton import choice

X, WEIGHT = torch.ones(2, 16), torch.eye(16)


@pytest.fixture(autouse=True)
def _asked_for(monkeypatch):
    """All that the decision needs, without triton: the interpreter is only named."""
    monkeypatch.setenv("WIREWORK_TRITON", "1")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delenv(sparse_linear.VARIABLE, raising=False)
    monkeypatch.setattr(choice, "installed", lambda: True)


@pytest.fixture
def block():
    with unchanged_weights():
        yield


def test_it_is_wanted_in_a_block_only():
    assert not is_wanted(X, WEIGHT)
    with unchanged_weights():
        assert is_wanted(X, WEIGHT)
    assert not is_wanted(X, WEIGHT)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("value", ["0", "auto", None])
def test_only_the_variable_turns_it_on(monkeypatch, value):
    monkeypatch.delenv("WIREWORK_TRITON")
    if value is not None:
        monkeypatch.setenv("WIREWORK_TRITON", value)
    assert not is_wanted(X, WEIGHT)


@pytest.mark.usefixtures("block")
def test_on_the_cpu_it_needs_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    assert not is_wanted(X, WEIGHT)
    monkeypatch.setattr(choice, "installed", lambda: False)
    assert not is_wanted(X, WEIGHT)  # and no error: the variable does not concern the CPU


@pytest.mark.usefixtures("block")
def test_without_triton_the_variable_names_the_extra(monkeypatch):
    monkeypatch.setattr(choice, "installed", lambda: False)
    with pytest.raises(InputError, match=r"pip install wirework\[triton\]"):
        is_wanted(X, WEIGHT)


@pytest.mark.usefixtures("block")
def test_a_gradient_of_the_weight_excludes_it():
    weight = torch.nn.Parameter(WEIGHT.clone())
    assert not is_wanted(X, weight)
    with torch.no_grad():
        assert is_wanted(X, weight)
    with torch.inference_mode():
        assert is_wanted(X, weight)
    assert is_wanted(X.clone().requires_grad_(), weight.requires_grad_(False))


@pytest.mark.usefixtures("block")
def test_operands_that_the_kernel_does_not_take():
    assert is_wanted(X.bfloat16(), WEIGHT.bfloat16())
    assert not is_wanted(X.double(), WEIGHT.double())
    assert not is_wanted(X, WEIGHT.half())
    assert not is_wanted(X.to("meta"), WEIGHT)
    assert not is_wanted(X[:0], WEIGHT)
    assert not is_wanted(X[:, :0], torch.ones(3, 0))
    assert not is_wanted(X, torch.ones(0, 16))
    assert not is_wanted(X, WEIGHT[:8])  # a view


@pytest.mark.usefixtures("block")
def test_autocast_and_compilation_exclude_it(monkeypatch):
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_wanted(X, WEIGHT)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    assert not is_wanted(X, WEIGHT)


@pytest.mark.parametrize(
    ("setting", "n_entries", "is_few"),
    [
        (None, 32, True),  # of 256
        (None, 33, False),
        ("auto", 33, False),
        ("0.25", 64, True),
        ("0.25", 65, False),
        ("0", 1, False),
    ],
)
def test_the_density_decides(monkeypatch, setting, n_entries, is_few):
    if setting is not None:
        monkeypatch.setenv(sparse_linear.VARIABLE, setting)
    weight = torch.zeros(256)
    weight[:n_entries] = 1
    assert has_few_entries(weight.view(16, 16)) == is_few


@pytest.mark.usefixtures("block")
def test_a_dense_weight_is_looked_at_once_and_left(monkeypatch):
    looks: list[torch.Tensor] = []
    monkeypatch.setattr(device_sparse_linear, "has_few_entries", looks.append)
    weight = torch.ones(16, 16)
    assert linear_by_triton(X, weight, None) is None
    assert linear_by_triton(X, weight, None) is None
    assert len(looks) == 1


def test_the_decision_does_not_import_triton():
    code = (
        "import sys, torch\n"
        "from wirework.nn.kernels.linear import linear\n"
        "from wirework.nn.kernels.sparse_linear import unchanged_weights\n"
        "with unchanged_weights():\n"
        "    linear(torch.ones(2, 16), torch.ones(16, 16))\n"
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60).returncode == 0
