"""Cost of a layer's three products and of a whole step, against the number of nonzero weights.

    python -m benchmarks sweep [--quick] [--out studies/results]

Widths 128 to 2,048, densities 1 to 1/1,000, 512 tokens, one block, float32, no floor. The layer is
the first matrix of an MLP, width to 4 x width, through the library's own code. Each cell is the
median over rounds of CPU time on one thread.
"""

import argparse
import csv
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.machine import this_machine
from benchmarks.step import LIVE_CALLS, Shape, has_live_gradient, make_step
from benchmarks.timing import Step, alternate
from wirework.errors import InputError
from wirework.nn.kernels.layer_gradients import layer_gradients
from wirework.nn.kernels.linear import linear
from wirework.nn.kernels.sparse_linear import compressed_rows

WIDTHS = (128, 256, 512, 1024, 2048)
DENSITIES = (1.0, 1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 1000)
CONTEXT, BATCH, ROUNDS = 128, 4, 3
OUT = Path("studies/results")
LIVE_BELOW = 1 / 8
"""Density of `weight_sparsity.live_below`, from which a live run trains only live weights."""


class Cost(NamedTuple):
    """Milliseconds of one piece of work at one width and density."""

    work: str
    width: int
    density: float
    nonzeros: int
    """Of the layer, or of all matrices and biases of the model."""
    ms: float
    low: float
    high: float


def main(words: Sequence[str]) -> int:
    """Sweep, print the table, write table and plot."""
    from benchmarks.sweep_plot import plot

    options = _arguments(words)
    torch.set_num_threads(1)
    logging.getLogger("wirework").setLevel("ERROR")
    machine = this_machine().line()
    print(machine, flush=True)
    costs: list[Cost] = []
    cells = (WIDTHS[:2], DENSITIES[::5], 1) if options.quick else (WIDTHS, DENSITIES, ROUNDS)
    for cost in sweep(*cells):
        print(
            f"{cost.work:27} width {cost.width:5} density {cost.density:7.4f} "
            f"{cost.nonzeros:9} nonzeros {cost.ms:9.2f} ms ({cost.low:.2f} to {cost.high:.2f})",
            flush=True,
        )
        costs.append(cost)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        write_csv(options.out / "scaling.csv", costs)
        plot(costs, machine).savefig(options.out / "scaling.png", dpi=110)
    except OSError as error:
        raise InputError(f"cannot write to {options.out}: {error.strerror}") from error
    print(f"wrote: {options.out / 'scaling.csv'}\nwrote: {options.out / 'scaling.png'}")
    return 0


def sweep(widths: Sequence[int], densities: Sequence[float], rounds: int) -> Iterator[Cost]:
    """Yield the costs of every width and density."""
    for width in widths:
        for density in densities:
            yield from of_products(width, density, rounds)
            yield from of_step(width, density, rounds)


def of_products(width: int, density: float, rounds: int) -> list[Cost]:
    """Return the costs of the three products of a layer, timed apart.

    The gradient of the weight is timed in both forms, of all weights and of nonzero ones.
    """
    generator = torch.Generator().manual_seed(0)
    weight = sparse_matrix(4 * width, width, density, generator).requires_grad_()
    x = torch.randn(CONTEXT * BATCH, width, generator=generator).requires_grad_()
    grad = torch.randn(CONTEXT * BATCH, 4 * width, generator=generator)
    fixed_x, fixed_weight = x.detach(), weight.detach()
    to_x, to_weight = linear(x, fixed_weight), linear(fixed_x, weight)
    gradient = partial(torch.autograd.grad, grad_outputs=grad, retain_graph=True)
    steps: dict[str, Step] = {
        "output": lambda: linear(fixed_x, fixed_weight),
        "gradient of the input": lambda: gradient(to_x, x),
        "gradient of all weights": lambda: gradient(to_weight, weight),
    }
    if density <= LIVE_BELOW:
        rows = compressed_rows(fixed_weight, int(fixed_weight.count_nonzero()))
        steps["gradient of nonzero weights"] = lambda: layer_gradients(grad, fixed_x, rows)
    return costs_of(steps, width, density, int(weight.count_nonzero()), 3 * rounds)


def of_step(width: int, density: float, rounds: int) -> list[Cost]:
    """Return the costs of a training step; at density 1 there is no projection.

    A live run trains all weights above a density of 1/8, like an exact one: there it is timed once
    for both.
    """
    shape: Shape = (width, 1, CONTEXT, BATCH)
    is_live = has_live_gradient() and density <= LIVE_BELOW
    variants = {"exact": "weight-sparse", **({"live": "live"} if is_live else {})}
    steps: dict[str, Step] = {
        f"step, {name} gradient": make_step(
            "activation-sparse" if density == 1 else variant, shape, l0_fraction=density, floor=0
        )
        for name, variant in variants.items()
    }
    costs = costs_of(steps, width, density, round(density * n_weights(width)), rounds)
    return costs if is_live else [*costs, costs[0]._replace(work="step, live gradient")]


def costs_of(
    steps: dict[str, Step], width: int, density: float, nonzeros: int, rounds: int
) -> list[Cost]:
    """Return the cost of each function."""
    costs = []
    calls = {name: LIVE_CALLS["live"] for name in steps if "live" in name}
    for work, seconds in alternate(steps, rounds, warm_up=2, calls=calls).items():
        ms = [1e3 * value for value in seconds]
        costs.append(Cost(work, width, density, nonzeros, median(ms), min(ms), max(ms)))
    return costs


def sparse_matrix(
    n_outputs: int, width: int, density: float, generator: torch.Generator
) -> torch.Tensor:
    """Return (M, D) whose nonzero entries are an exact share, at random places."""
    weight = torch.randn(n_outputs * width, generator=generator)
    n_zeros = weight.numel() - round(density * weight.numel())
    weight[torch.randperm(weight.numel(), generator=generator)[:n_zeros]] = 0
    return weight.view(n_outputs, width)


def n_weights(width: int) -> int:
    """Return the entries of the matrices of the step's model: one block, both embeddings."""
    from benchmarks.step import VOCAB

    return 12 * width * width + 2 * VOCAB * width


def write_csv(path: Path, costs: Sequence[Cost]) -> None:
    """Write a line for each cost; times in milliseconds."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Cost._fields)
        for cost in costs:
            numbers = (f"{value:.6g}" for value in (cost.ms, cost.low, cost.high))
            writer.writerow((cost.work, cost.width, f"{cost.density:.6g}", cost.nonzeros, *numbers))


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="two widths and densities")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of scaling.csv, scaling.png")
    return parser.parse_args(words)
