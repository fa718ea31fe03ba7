"""Two training jobs at once on two cores, each with one or two threads, over one job alone."""

import json
import os
import subprocess
import sys
import time

import torch

from benchmarks.figure import Figure, not_available
from benchmarks.settings import Settings
from wirework.config import ModelConfig
from wirework.nn import Transformer

CORES = 2


def measure(settings: Settings) -> list[Figure]:
    """Return how many times slower a job is beside another than alone, in elapsed time."""
    names = {n: f"threads: two jobs of {n} thread{'s' * (n > 1)} / one alone" for n in (1, 2)}
    if cores() < CORES:
        return [not_available(name, f"needs {CORES} cores") for name in names.values()]
    steps, rounds = (4, 1) if settings.quick else (40, 3)
    figures: list[Figure] = []
    for n_threads, name in names.items():
        pairs = [[slowest(jobs, n_threads, steps) for jobs in (1, 2)] for _ in range(rounds)]
        figures += [
            Figure.of(name, [two / one for one, two in pairs]),
            Figure.of(f"threads: one job of {n_threads}, a step", [p[0] for p in pairs], unit="ms"),
        ]
    return figures


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def slowest(jobs: int, n_threads: int, steps: int) -> float:
    """Return milliseconds a step of the slowest of jobs that run at once."""
    words = [sys.executable, "-m", "benchmarks.figures.threads", str(steps)]
    # Spin count and threads are read when torch is loaded, so each job is a new process; it sets
    # the spin count itself, as the command does.
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
    children = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(jobs)
    ]
    return max(float(json.loads(child.communicate()[0])) for child in children)


def step_milliseconds(steps: int) -> float:
    """Return elapsed milliseconds of forward and backward of a model of the demo's shape."""
    config = ModelConfig(n_ctx=64, n_layer=2, d_model=128, learn_bigram=False)
    model = Transformer(config, seed=0)
    tokens = torch.randint(config.vocab_size, (16, 65), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    for count in (5, steps):
        start = time.perf_counter()
        for _ in range(count):
            model.zero_grad()
            model.loss(inputs, targets).backward()
    return 1e3 * (time.perf_counter() - start) / steps


if __name__ == "__main__":
    print(json.dumps(step_milliseconds(int(sys.argv[1]))))
