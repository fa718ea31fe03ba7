"""Time of a training step: weight-sparse, dense, plain GPTs, and the matrix products only.

    python benchmarks/step.py [--shapes 256x4x128x32 512x4x256x16] [--rounds 9] [--json]

Variants of a shape alternate in each round, and medians are compared, so that noise affects all of
them. A step is forward, backward, gradient scale, AdamW and projection. `make bench` sets
GOMP_SPINCOUNT like the `wirework` command. Peak memory is measured in one process for each variant.
A shape is width x layers x context x batch.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from plain_gpt import PlainGPT
from plain_sparse import PlainSparseGPT
from torch import Tensor, nn

from wirework.config import ModelConfig, OptimizerConfig, WeightSparsityConfig
from wirework.nn import Transformer
from wirework.nn.device_reads import device_reads_deferred
from wirework.nn.projection import Projection
from wirework.training.optimizer import make_optimizer, scale_gradients_
from wirework.training.step_numbers import read_numbers
from wirework.training.weight_sparsity import WeightSparsity

VOCAB, D_HEAD = 2048, 16
VARIANTS = ("plain", "plain-sparse", "dense", "activation-sparse", "weight-sparse")
Shape = tuple[int, int, int, int]
Step = Callable[[], None]


def make_step(variant: str, shape: Shape, device: str = "cpu", read: bool = True) -> Step:
    """Return a step; without `read` ours leaves out the one read of its numbers."""
    d_model, n_layer, n_ctx, batch = shape
    generator = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(0, VOCAB, (2, batch, n_ctx), generator=generator).to(device)
    if variant == "plain":
        plain = PlainGPT(VOCAB, d_model, n_layer, D_HEAD, n_ctx)
        return plain_step(plain.to(device), tokens, targets)
    if variant == "plain-sparse":
        plain_sparse = PlainSparseGPT(VOCAB, d_model, n_layer, D_HEAD)
        return plain_step(plain_sparse.to(device), tokens, targets)
    config = ModelConfig(
        vocab_size=VOCAB, d_model=d_model, n_layer=n_layer, n_ctx=n_ctx, d_head=D_HEAD,
        act_fraction=None if variant == "dense" else 0.25,
    )  # fmt: skip
    transformer = Transformer(config).to(device)
    prior = None
    if variant == "weight-sparse":
        # Annealing over in the first step: every step projects to 1/64 under the floor.
        prior = WeightSparsity(WeightSparsityConfig(anneal_start=0, anneal_end=1e-9), 100)
        prior.wrap_model(transformer)
    return our_step(transformer, prior, tokens, targets, read)


def plain_step(model: PlainGPT | PlainSparseGPT, tokens: Tensor, targets: Tensor) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(tokens.device.type, torch.bfloat16):
            loss = model.loss(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if isinstance(model, PlainSparseGPT):
            model.project_()

    return step


def our_step(
    transformer: Transformer,
    prior: WeightSparsity | None,
    tokens: Tensor,
    targets: Tensor,
    read: bool,
) -> Step:
    optimizer = make_optimizer(transformer, OptimizerConfig())
    parameters = list(transformer.parameters())
    priors = () if prior is None else (prior,)

    def step() -> None:
        kind = tokens.device.type
        with torch.autocast(kind, torch.bfloat16), device_reads_deferred() as nan_scalars:
            loss = transformer.loss(tokens, targets)
        optimizer.zero_grad()
        loss.backward()
        rms = scale_gradients_(parameters, "normalise")
        if read:
            read_numbers({"loss": loss, "rms": rms}, priors, nan_scalars)
        optimizer.step()
        if prior is not None:
            prior.after_step(99)

    return step


def make_products(shape: Shape) -> Step:
    """Compute all matrix products of a step with weights, in bf16, without those of attention."""
    d_model, n_layer, n_ctx, batch = shape
    rows = batch * n_ctx
    widths = [
        (d_model, 3 * d_model),
        (d_model, d_model),
        (d_model, 4 * d_model),
        (4 * d_model, d_model),
    ]
    triples = [
        (
            torch.randn(rows, a).bfloat16(),
            torch.randn(b, a).bfloat16(),
            torch.randn(rows, b).bfloat16(),
        )
        for a, b in widths
    ]
    x, w, y = torch.randn(rows, d_model).bfloat16(), torch.randn(VOCAB, d_model).bfloat16(), None
    y = torch.randn(rows, VOCAB).bfloat16()

    def once(x: Tensor, w: Tensor, y: Tensor) -> None:
        torch.mm(x, w.t())
        torch.mm(y, w)
        torch.mm(y.t(), x)

    def products() -> None:
        for _ in range(n_layer):
            for triple in triples:
                once(*triple)
        once(x, w, y)

    return products


def make_projection(shape: Shape) -> tuple[Step, Step, Step]:
    """A small change to all matrices; projecting them after it; reading and writing them once."""
    d_model, n_layer, n_ctx, _ = shape
    transformer = Transformer(ModelConfig(d_model=d_model, n_layer=n_layer, n_ctx=n_ctx))
    matrices = [p for p in transformer.prunable() if p.parameter.dim() == 2]
    projections = [Projection(p.parameter, floor=4, floor_dim=p.floor_dim) for p in matrices]
    generator = torch.Generator().manual_seed(0)

    def project() -> None:
        for projection in projections:
            projection.keep_(max(1, projection.weight.numel() // 64))

    def read_and_write() -> None:
        for projection in projections:
            projection.weight.data.mul_(1.0)

    def disturb() -> None:
        for projection in projections:
            weight = projection.weight.data
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=1e-4)

    project()
    return disturb, project, read_and_write


def interleaved_medians(
    steps: dict[str, Step], rounds: int, before_round: Step = lambda: None
) -> dict[str, float]:
    """Return the milliseconds of each function; they alternate, after two warm-up rounds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 2):
        before_round()
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - begin)
    return {name: 1e3 * median(values[2:]) for name, values in times.items()}


def peak_memory(variant: str, shape: Shape) -> float:
    """Return the peak resident MiB of a process for three steps, without that of its imports."""
    command = [sys.executable, __file__, "--peak", variant, "--shapes", "x".join(map(str, shape))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(variant: str, shape: Shape) -> None:
    before = resident_mib("VmRSS")
    step = make_step(variant, shape)
    for _ in range(3):
        step()
    print(resident_mib("VmHWM") - before)


def resident_mib(field: str) -> float:
    """Return `VmRSS` (now) or `VmHWM` (peak); the peak of getrusage starts at the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure(shape: Shape, rounds: int) -> dict[str, float]:
    disturb, project, read_and_write = make_projection(shape)
    steps = {variant: make_step(variant, shape) for variant in VARIANTS}
    steps |= {"products": make_products(shape)}
    ms = interleaved_medians(steps, rounds)
    matrices = {"projection": project, "read-and-write": read_and_write}
    ms |= interleaved_medians(matrices, 3 * rounds, before_round=disturb)
    mib = {variant: peak_memory(variant, shape) for variant in VARIANTS}
    return {
        **{f"{name} ms": value for name, value in ms.items()},
        **{f"{name} MiB": value for name, value in mib.items()},
        "weight-sparse / dense": ms["weight-sparse"] / ms["dense"],
        "weight-sparse / plain": ms["weight-sparse"] / ms["plain"],
        "plain-sparse / weight-sparse": ms["plain-sparse"] / ms["weight-sparse"],
        "dense / plain": ms["dense"] / ms["plain"],
        "dense / products": ms["dense"] / ms["products"],
        "projection / read-and-write": ms["projection"] / ms["read-and-write"],
        "memory weight-sparse / dense": mib["weight-sparse"] / mib["dense"],
    }


def machine() -> str:
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = next(line.split(":")[1].strip() for line in facts.splitlines() if "model name" in line)
    amx = "AMX" if "amx_bf16" in facts else "no AMX"
    spin = os.environ.get("GOMP_SPINCOUNT", "unset")
    return (
        f"{name}, {amx}, {torch.get_num_threads()} threads, GOMP_SPINCOUNT {spin}, "
        f"load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=["256x4x128x32", "512x4x256x16"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", choices=VARIANTS)
    options = parser.parse_args()
    shapes: list[Shape] = [tuple(map(int, s.split("x"))) for s in options.shapes]  # type: ignore[misc]
    if options.peak:
        return print_peak(options.peak, shapes[0])
    print(machine(), file=sys.stderr)
    results = {"x".join(map(str, shape)): measure(shape, options.rounds) for shape in shapes}
    if options.json:
        print(json.dumps({"machine": machine(), "results": results}))
        return None
    names = list(next(iter(results.values())))
    print(f"{'':30}" + "".join(f"{shape:>16}" for shape in results))
    for name in names:
        print(f"{name:30}" + "".join(f"{values[name]:16.2f}" for values in results.values()))
    return None


if __name__ == "__main__":
    main()
