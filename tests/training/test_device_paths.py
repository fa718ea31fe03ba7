"""A whole run by the code of a device, on the CPU, ends with the bits of the CPU's own code."""

import pytest
import torch

from wirework.nn import device_projection, device_reads
from wirework.nn.kernels import device_top_k, top_k
from wirework.training import train
from wirework.training.weight_sparsity import WeightSparsity


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Take the paths of a device; return the names of the functions that were called."""
    called = set()

    def noted(module, name):
        real = getattr(module, name)

        def call(*arguments):
            called.add(name)
            return real(*arguments)

        monkeypatch.setattr(module, name, call)

    def may_read(x):
        return device_reads._state.scalars is None

    monkeypatch.setattr(top_k, "_by_torch", lambda x: True)
    monkeypatch.setattr(WeightSparsity, "_on_cpu", lambda self: False)
    monkeypatch.setattr(device_reads, "may_read", may_read)
    monkeypatch.setattr("wirework.nn.transformer.may_read", may_read)
    noted(device_top_k, "select_by_torch")
    noted(device_top_k, "pass_kept")
    noted(device_projection, "_keep_in_group_")
    return called


def test_a_run_ends_with_the_same_bits(settings, request):
    changes = {"model": {"act_fraction": 0.25, "n_layer": 2}}
    expected = train(settings("cpu", **changes), progress=False)
    calls = request.getfixturevalue("calls")
    run = train(settings("device", **changes), progress=False)
    assert calls == {"select_by_torch", "pass_kept", "_keep_in_group_"}
    assert run.metrics["val_loss"] == expected.metrics["val_loss"]
    parameters = (r.model.transformer.named_parameters() for r in (run, expected))
    for (name, got), (_, wanted) in zip(*parameters, strict=True):
        assert torch.equal(got, wanted), name
