"""A step at default threads, alone and with the same beside it, by how long threads spin.

`GOMP_SPINCOUNT` is read when torch is loaded, so that each row is processes of its own. Where
threads wait asleep, a step takes as much CPU time beside another process as alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

SPINS = ("300000", "30000", "3000", "1000", "300", "0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2, help="how many at once")
    parser.add_argument("--step", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(step_times(given.steps)))
        return
    print("spin count | alone: ms a step, CPU ms | at once: ms a step, CPU ms | slower")
    for spin in SPINS:
        alone, beside = (measured(spin, given.steps, n) for n in (1, given.processes))
        print(
            f"{spin:>10} | {alone[0]:6.1f} {alone[1]:6.1f} | {beside[0]:6.1f} {beside[1]:6.1f}"
            f" | {beside[0] / alone[0]:.2f}",
            flush=True,
        )


def measured(spin: str, steps: int, processes: int) -> tuple[float, float]:
    """Return the medians over processes of milliseconds and CPU milliseconds a step."""
    words = [sys.executable, __file__, "--step", "--steps", str(steps)]
    environment = {**os.environ, "GOMP_SPINCOUNT": spin}
    children = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    found = [json.loads(child.communicate()[0]) for child in children]
    wall, cpu = (statistics.median(times) for times in zip(*found, strict=True))
    return wall, cpu


def step_times(steps: int) -> tuple[float, float]:
    """Return milliseconds and CPU milliseconds of the demo's model forward and backward."""
    import torch

    from wirework.config import ModelConfig
    from wirework.nn import Transformer

    config = ModelConfig(n_ctx=64, n_layer=2, d_model=128, learn_bigram=False)
    model = Transformer(config, seed=0)
    tokens = torch.randint(config.vocab_size, (16, 65), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    for count in (5, steps):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            model.zero_grad()
            model.loss(inputs, targets).backward()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return 1e3 * wall / steps, 1e3 * cpu / steps


if __name__ == "__main__":
    main()
