"""Everything to check and measure on a GPU, in one command of under eight minutes.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --device cpu --quick    # the same code, small, without a GPU

It checks every kernel against its reference, times training steps, AbsTopK, sparse products and a
compiled block, and trains a small run. A part that begins after `--minutes` is left out. Exit code
0 if all checks passed, 1 if one failed, 2 without a GPU.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import wirework as ww
from benchmarks.gpu_checks import CHECKS
from benchmarks.gpu_timings import (
    Table,
    time_abs_top_k,
    time_compiled_block,
    time_sparse_products,
    time_steps,
)
from benchmarks.step import Shape
from wirework.config import TrainConfig
from wirework.fastest import processor

SHAPES: list[Shape] = [(256, 4, 128, 32), (512, 4, 256, 16), (1024, 8, 256, 4)]
QUICK_SHAPES: list[Shape] = [(64, 1, 32, 2)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--minutes", type=float, default=7.0, help="no part begins after them")
    options = parser.parse_args()
    device: str = options.device
    if device != "cpu" and not torch.cuda.is_available():
        print("no CUDA GPU here: use --device cpu --quick to try the script", file=sys.stderr)
        return 2
    begin = time.monotonic()
    where = processor() if device == "cpu" else torch.cuda.get_device_name(device)
    print(f"{where}, torch {torch.__version__}, wirework {ww.__version__}")
    failed = run_checks(device)
    for title, part in parts(device, options.quick).items():
        if time.monotonic() - begin > 60 * options.minutes:
            print(f"\n{title}: left out, {options.minutes:g} minutes are over")
            continue
        print(f"\n{title}")
        failed += not guarded(part)
    print(f"\n{time.monotonic() - begin:.0f} s; {failed} failed")
    return int(failed > 0)


def run_checks(device: str) -> int:
    """Run each check; return how many failed."""
    n_failed = 0
    for name, check in CHECKS.items():
        start = time.monotonic()
        passed = guarded(partial(check, device))
        seconds = time.monotonic() - start
        print(f"{'ok' if passed else 'FAILED':>6}  {name} ({seconds:.1f} s)", flush=True)
        n_failed += not passed
    return n_failed


def guarded(part: Callable[[], None]) -> bool:
    """Return whether a part ran to its end; print the traceback of an error."""
    try:
        part()
    except Exception:  # any: what one kernel does must not hide the other results
        traceback.print_exc()
        return False
    return True


def parts(device: str, quick: bool) -> dict[str, Callable[[], None]]:
    rounds = 1 if quick else 15
    shapes = QUICK_SHAPES if quick else SHAPES
    widths, tokens = ([64], 32) if quick else ([256, 512, 1024, 4096], 4096)
    backend = "aot_eager" if quick else "inductor"
    middle = shapes[len(shapes) // 2]
    return {
        "small run": lambda: train_small_run(device, 6 if quick else 200),
        "training steps": lambda: show(time_steps(shapes, rounds, device)),
        "AbsTopK, forward and backward": lambda: show(
            time_abs_top_k(widths, tokens, rounds, device)
        ),
        "sparse product": lambda: show(
            time_sparse_products(widths[-1] // 4, tokens, rounds, device)
        ),
        "compiled block": lambda: show(time_compiled_block(middle, rounds, device, backend)),
    }


def show(table: Table) -> None:
    """Print a table in Markdown, to be copied into the notes."""
    heads, rows = table
    for row in (heads, ["---"] * len(heads), *rows):
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


def train_small_run(device: str, steps: int) -> None:
    """Train on a few files of the standard library; the loss must be finite and fall."""
    with TemporaryDirectory() as folder:
        texts = Path(folder) / "texts"
        texts.mkdir()
        for module in (argparse, json, traceback):
            source = Path(str(module.__file__))
            (texts / f"{module.__name__}.py").write_bytes(source.read_bytes())
        config = TrainConfig.of(
            {
                "name": "small", "runs": Path(folder) / "runs", "steps": steps, "batch_size": 8,
                "device": device, "precision": "float32" if device == "cpu" else "bfloat16",
                "model": {
                    "vocab_size": 400, "n_ctx": 32, "n_layer": 2, "d_model": 64, "d_head": 16,
                    "act_fraction": 0.25,
                },
                "data": {
                    "corpus": str(texts), "vocab_size": 400, "cache": Path(folder) / "data",
                    "val_fraction": 0.3, "workers": 1,
                },
                "weight_sparsity": {"l0_fraction": 0.1, "floor": 2},
                "bigram_start": "zeros", "eval_every": steps, "eval_batches": 2, "log_every": 1,
                "checkpoint_every": steps,
            }
        )  # fmt: skip
        run = ww.train(config, progress=False)
        losses = run.metrics
        print(f"held-out loss {losses['val_loss']:.3f} nats after {steps} steps; 5.99 is chance")
        assert losses["val_loss"] < 6.2


if __name__ == "__main__":
    sys.exit(main())
