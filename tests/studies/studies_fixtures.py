"""A grid of tiny models on a few modules of the standard library."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wirework.config import FrontierConfig

WORDS = 400


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def settings(corpus: Path) -> Callable[..., dict[str, Any]]:
    """Return `settings(**changes)`: two models, one task, a target that any model reaches."""

    def make(**changes: Any) -> dict[str, Any]:
        return {
            "widths": [32],
            "l0_counts": [9000],
            "dense_widths": [16],
            "tasks": ["for_while"],
            "target_losses": [8.0, 4.0],
            "train": {
                "steps": 6,
                "batch_size": 4,
                "model": {"vocab_size": WORDS, "n_layer": 1, "n_ctx": 64},
                "data": {"corpus": str(corpus), "vocab_size": WORDS, "val_fraction": 0.3},
                "weight_sparsity": {"floor": 1, "anneal_end": 0.5},
                "precision": "float32",
                "eval_batches": 2,
            },
            "prune": {
                "target_loss": 4.0,
                "allow_unreached": True,
                "trials": 2,
                "parallel": 2,
                "steps": 3,
                "batch_pairs": 4,
                "eval_pairs": 8,
                "mean_tokens": 1000,
            },
            **changes,
        }

    return make


@pytest.fixture(scope="session")
def study(settings: Callable[..., dict[str, Any]]) -> Callable[..., FrontierConfig]:
    """Return `study(**changes)`: the settings as a config."""
    return lambda **changes: FrontierConfig.of(settings(**changes))
