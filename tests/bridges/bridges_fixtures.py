"""A tiny bridged run: a dense model of random weights, and a sparse one trained for a few steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wirework.bridges import Bridged, bridge
from wirework.config import ModelConfig, TrainConfig
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.nn import Transformer


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def values(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the settings of a run of a few steps, without its folder."""
    return {
        "steps": 4,
        "batch_size": 2,
        "model": {"n_ctx": 16, "n_layer": 1, "d_model": 32, "d_head": 8},
        "data": {
            "corpus": str(corpus),
            "cache": str(tmp_path_factory.mktemp("data")),
            "val_fraction": 0.3,
            "workers": 1,
        },
        "device": "cpu",
        "precision": "float32",
        "eval_batches": 1,
    }


@pytest.fixture(scope="session")
def save_dense(tokenizer: Tokenizer) -> Callable[..., Path]:
    """Return `save_dense(folder, seed=0)`, which writes a dense model."""

    def save(folder: Path, seed: int = 0) -> Path:
        config = ModelConfig(
            vocab_size=tokenizer.vocab_size, n_ctx=16, n_layer=1, d_model=16, d_head=8
        )
        return Model(Transformer(config, seed), tokenizer).save(folder)

    return save


@pytest.fixture(scope="session")
def bridged(
    values: dict[str, Any],
    save_dense: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bridged:
    """Return a bridged run beside its dense model `dense`, in a folder of its own."""
    folder = tmp_path_factory.mktemp("bridged")
    config = TrainConfig.of({**values, "name": "run", "runs": folder})
    return bridge(save_dense(folder / "dense"), config, progress=False)
