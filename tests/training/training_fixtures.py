"""Tiny real runs: a corpus of a few standard library files, prepared once."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wirework.config import TrainConfig
from wirework.training import Run, train

VOCABULARY = 400
DRIVER = Path(__file__).with_name("driver.py")


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def settings(tmp_path: Path, corpus: Path, cache: Path) -> Callable[..., TrainConfig]:
    """Return `settings(name, **changes)`; a change of `model`, `data`, ... is merged in."""
    return tiny_settings(tmp_path / "runs", corpus, cache)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Path, cache: Path) -> Run:
    """Return a run of `settings` that nothing interrupted."""
    return train(tiny_settings(tmp_path_factory.mktemp("whole"), corpus, cache)(), progress=False)


def tiny_settings(runs: Path, corpus: Path, cache: Path) -> Callable[..., TrainConfig]:
    def make(name: str = "tiny", **changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "name": name,
            "runs": runs,
            "steps": 12,
            "batch_size": 2,
            "model": {
                "vocab_size": VOCABULARY, "n_ctx": 16, "n_layer": 1, "d_model": 32, "d_head": 8,
            },
            "data": {
                "corpus": str(corpus), "vocab_size": VOCABULARY, "cache": cache,
                "val_fraction": 0.3, "workers": 1,
            },
            "weight_sparsity": {"l0_fraction": 0.15, "floor": 2},
            "device": "cpu",
            "precision": "float32",
            "bigram_start": "zeros",
            "eval_every": 6,
            "eval_batches": 2,
            "log_every": 1,
            "checkpoint_every": 4,
        }  # fmt: skip
        for key, value in changes.items():
            merge = isinstance(value, dict) and isinstance(values.get(key), dict)
            values[key] = {**values[key], **value} if merge else value
        return TrainConfig.of(values)

    return make


class Driver:
    """Starts training processes quickly: each is forked from one that has torch loaded."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, config: TrainConfig, stderr: Path, **job: Any) -> int:
        """Start a training process; return its id."""
        job |= {"config": config.model_dump(mode="json"), "stderr": str(stderr)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """Return the exit code of the process started last; minus the signal that killed it."""
        return int(self._line())

    def run(self, config: TrainConfig, stderr: Path, **job: Any) -> int:
        self.start(config, stderr, **job)
        return self.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@pytest.fixture(scope="session")
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()
