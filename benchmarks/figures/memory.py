"""Peak memory of a weight-sparse run over the dense one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figure import Figure, not_available
from benchmarks.figures.step import NO_LIVE, SMALL, SPARSEST, TARGETS
from benchmarks.settings import Settings
from benchmarks.step import Shape, has_live_gradient, make_step
from wirework.config import WeightSparsityConfig
from wirework.malloc import freed_memory_kept

STEPS = {"dense": 2, "weight-sparse": 2, "live": 16, "live-from-few": 16}
"""In 16 steps a live run computes the dense gradients of some matrices; each needs some memory."""
EXACT_TARGET, LIVE_TARGET = 1.0, 0.5


def measure(settings: Settings) -> Iterator[Figure]:
    """Yield ratios of peaks, of one process for each run, and MiB."""
    rounds = 1 if settings.quick else 2
    if settings.quick:
        yield from over_dense(SMALL, "weight-sparse", 1 / 64, None, rounds, settings)
        return
    for shape in TARGETS:
        yield from over_dense(shape, "weight-sparse", 1 / 64, EXACT_TARGET, rounds, settings)
    yield from over_dense(SPARSEST, "live", 0.005, LIVE_TARGET, rounds, settings)
    if can_begin_with_few():
        yield from over_dense(SPARSEST, "live-from-few", 0.005, LIVE_TARGET, rounds, settings)


def can_begin_with_few() -> bool:
    """Return whether a run of this version can begin with few weights."""
    return "start_fraction" in WeightSparsityConfig.model_fields


def over_dense(
    shape: Shape,
    variant: str,
    l0_fraction: float,
    target: float | None,
    rounds: int,
    settings: Settings,
) -> list[Figure]:
    """Return the figures of one shape; runs of both kinds alternate."""
    where = f"memory {'x'.join(map(str, shape))}"
    name = f"{where} {variant} {100 * l0_fraction:.2g}% / dense"
    if variant == "live" and not has_live_gradient():
        return [not_available(name, NO_LIVE, target)]
    pairs = [
        [peak_mib(one, shape, l0_fraction, settings) for one in (variant, "dense")]
        for _ in range(rounds)
    ]
    sparse, dense = ([pair[place] for pair in pairs] for place in (0, 1))
    ratios = [one / other for one, other in zip(sparse, dense, strict=True)]
    return [
        Figure.of(name, ratios, target=target),
        Figure.of(f"{where} {variant}", sparse, unit="MiB"),
        Figure.of(f"{where} dense", dense, unit="MiB"),
    ]


def peak_mib(variant: str, shape: Shape, l0_fraction: float, settings: Settings) -> float:
    """Return the peak resident MiB of a process for a few steps, without that of its imports."""
    words = [variant, *map(str, shape), str(l0_fraction), settings.precision]
    command = [sys.executable, "-m", "benchmarks.figures.memory", *words]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_peak(words: list[str]) -> float:
    """Return the growth of this process to its peak, in MiB."""
    variant, *sizes, l0_fraction, precision = words
    width, layers, context, batch = map(int, sizes)
    make_step("dense", (16, 1, 8, 1))()  # prepares the text, and loads what each step needs
    before = resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of the text
    shape = (width, layers, context, batch)
    with freed_memory_kept():  # as in `train`
        step = make_step(variant, shape, precision=precision, l0_fraction=float(l0_fraction))
        for _ in range(STEPS[variant]):
            step()
    return resident_mib("VmHWM") - before


def resident_mib(field: str) -> float:
    """Return `VmRSS` (now) or `VmHWM` (peak); the peak of getrusage starts at the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    from benchmarks.quiet import quiet

    quiet()
    print(own_peak(sys.argv[1:]))
