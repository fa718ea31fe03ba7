import time

import pytest
import torch

from wirework.errors import InputError
from wirework.training import precision, train
from wirework.training.precision import (
    auto_precision,
    autocast,
    faster_precision,
    resolve,
    resolve_device,
)


def test_auto_becomes_a_choice_and_a_choice_stays(settings):
    chosen = resolve(settings(device="auto", precision="auto"))
    assert chosen.device in ("cpu", "cuda")
    assert chosen.precision in ("float32", "bfloat16")
    fixed = settings(device="cpu", precision="bfloat16")
    assert resolve(fixed) == fixed


class TestFasterPrecision:
    def test_the_faster_precision_is_one_of_the_two(self, settings):
        assert faster_precision(settings(), torch.device("cpu")) in ("float32", "bfloat16")

    def test_few_tokens_are_enough_where_a_precision_is_many_times_slower(
        self, settings, monkeypatch
    ):
        seen = []

        class SlowInBfloat16(torch.nn.Linear):
            def forward(self, x):
                seen.append((x.dtype, len(x)))
                if x.dtype == torch.bfloat16:
                    time.sleep(0.02)
                return super().forward(x)

        monkeypatch.setattr(precision, "Linear", SlowInBfloat16)
        config = settings(batch_size=512)
        assert faster_precision(config, torch.device("cpu")) == "float32"
        assert max(tokens for _, tokens in seen) < config.batch_size * config.model.n_ctx / 10
        assert {dtype for dtype, _ in seen} == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"corpus": "not/here"}}, "not/here"),
        ({"data": {"tokenizer": "not/here.json"}}, r"not/here\.json"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_nothing_is_timed_before_what_may_be_refused(settings, monkeypatch, changes, message):
    def never(*_):
        raise AssertionError("timed")

    monkeypatch.setattr(precision, "faster_precision", never)
    with pytest.raises(InputError, match=message):
        train(settings(precision="auto", **changes), progress=False)


class TestResolveDevice:
    def test_a_device_that_is_not_here_is_refused(self):
        with pytest.raises(InputError, match="device 'tpu' is not available"):
            resolve_device("tpu")

    def test_a_gpu_number_beyond_those_here_is_refused(self):
        count = torch.cuda.device_count()
        with pytest.raises(
            InputError, match=f"device 'cuda:{count}' is not available: use auto, cpu"
        ):
            resolve_device(f"cuda:{count}")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
    def test_cuda_without_a_gpu_is_refused(self):
        with pytest.raises(InputError, match="needs a CUDA GPU"):
            resolve_device("cuda")


@pytest.mark.parametrize(
    ("device", "numba", "words"),
    [
        ("cpu", True, "auto is bfloat16 for dense runs, float32 for runs that end with at most 1/8 "
                      "of the weights"),
        ("cpu", False, "auto is bfloat16 for all runs"),
        ("cuda", True, "auto is bfloat16 for all runs"),
    ],
)  # fmt: skip
def test_the_choice_in_words(monkeypatch, device, numba, words):
    monkeypatch.setattr(precision, "faster_precision", lambda *_: "bfloat16")
    monkeypatch.setattr("wirework.nn.kernels.compiled.is_available", lambda: numba)
    assert auto_precision(torch.device(device)) == words


def test_products_run_in_the_precision_of_the_settings(settings):
    x = torch.ones(2, 2)
    with autocast(settings(precision="bfloat16")):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(settings(precision="float32")):
        assert (x @ x).dtype == torch.float32
