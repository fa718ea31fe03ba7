"""Time of a step in one process and in two at once, for several spin counts of threads.

`GOMP_SPINCOUNT` is read when torch is loaded, so each row runs in new processes. If threads sleep
while they wait, a step takes the same CPU time with and without another process.
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
    args = parser.parse_args()
    if args.step:
        print(json.dumps(step_times(args.steps)))
        return
    print("spin count | alone: ms a step, CPU ms | at once: ms a step, CPU ms | slower")
    for spin in SPINS:
        alone, together = (measured(spin, args.steps, n) for n in (1, args.processes))
        print(
            f"{spin:>10} | {alone[0]:6.1f} {alone[1]:6.1f} | {together[0]:6.1f} {together[1]:6.1f}"
            f" | {together[0] / alone[0]:.2f}",
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
    measured_times = [json.loads(child.communicate()[0]) for child in children]
    wall, cpu = (statistics.median(times) for times in zip(*measured_times, strict=True))
    return wall, cpu


def step_times(steps: int) -> tuple[float, float]:
    """Return milliseconds and CPU milliseconds of forward and backward of the demo's model."""
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
