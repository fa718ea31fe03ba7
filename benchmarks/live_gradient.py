"""What live gradients cost: held-out loss, task loss and circuit size beside exact training.

    python -m benchmarks.live_gradient --seeds 1 2 3

Each cell trains the demo's recipe with one way to get gradients and one seed, and searches for the
circuit of the demo's task. Cells are added to `studies/results/live_gradient/cells.csv` as they
end; a cell that is there is not trained again. The CPU time of a resumed run is left empty. Then it
prints the table of means.
"""

import argparse
import csv
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import wirework as ww
from benchmarks.figures.inference import set_variable
from wirework.cache_folder import cache_folder
from wirework.circuits import held_out_losses
from wirework.config import TrainConfig
from wirework.demo import PRUNING, RECIPE, TASK
from wirework.errors import InputError
from wirework.model import Model

RESULTS = Path(__file__).parents[1] / "studies" / "results" / "live_gradient"
_LIVE = {"weight_sparsity.gradient": "live"}
_EVERY = "weight_sparsity.dense_every"
_CANDIDATES = "weight_sparsity.candidates"
_FEW = {"weight_sparsity.start_fraction": 0.05}
_EARLY = {"weight_sparsity.anneal_end": 0.1}
BASE = "exact"
WAYS: dict[str, dict[str, Any]] = {
    BASE: {},
    "exact, dense products": {},
    **{f"live, every {n}": {**_LIVE, _EVERY: n, _CANDIDATES: 1} for n in (1, 4, 16, 64)},
    "live, every 4, by gradient": {
        **_LIVE, _EVERY: 4, _CANDIDATES: 1, "weight_sparsity.candidate_rule": "gradient",
    },
    **{
        f"live, every {n}, 4 candidates": {**_LIVE, _EVERY: n, _CANDIDATES: 4}
        for n in (4, 16, 64)
    },
    "live, every 16, 8 candidates": {**_LIVE, _EVERY: 16, _CANDIDATES: 8},
    "exact, start_fraction 0.05": _FEW,
    "live, every 4, 4 candidates, start_fraction 0.05": {
        **_LIVE, _EVERY: 4, _CANDIDATES: 4, **_FEW,
    },
    "exact, anneal_end 0.1": _EARLY,
    "live, every 4, anneal_end 0.1": {**_LIVE, _EVERY: 4, _CANDIDATES: 1, **_EARLY},
}  # fmt: skip
"""Changes to the recipe, by name. Dense products round otherwise, and so show what is chance."""
COLUMNS = ("way", "seed", "steps", "val_loss", "task_loss", "circuit_loss", "nodes", "edges",
           "nonzero_fraction", "train_cpu_s")  # fmt: skip


def main() -> None:
    """Train the cells that are missing, and print the table."""
    options = _arguments()
    torch.set_num_threads(1)
    path = RESULTS / "cells.csv"
    cells = read_cells(path)
    for seed in options.seeds:
        for way in WAYS:
            key = (way, str(seed), str(options.steps))
            if not any((cell["way"], cell["seed"], cell["steps"]) == key for cell in cells):
                cells.append(trained_cell(way, seed, options.steps))
                write_cells(path, cells)
                print(", ".join(cells[-1].values()), flush=True)
    print(table(cells))


def trained_cell(way: str, seed: int, steps: int) -> dict[str, str]:
    """Train one cell and search for its circuit; return its row."""
    root = (cache_folder() or Path(".cache")) / "live_gradient"
    name = way.replace(", ", "-").replace(" ", "_")
    changes = {
        "name": f"{name}-{seed}-{steps}", "runs": str(root), "data.cache": str(root / "data"),
        "seed": seed, "steps": steps, "precision": "float32",
    }  # fmt: skip
    config = TrainConfig.load(RECIPE, {**changes, **WAYS[way]})
    is_new, start = not (root / config.name).exists(), time.process_time()
    with set_variable("0" if way == "exact, dense products" else None):
        run = ww.train(config, resume=True, progress=False)
    seconds = time.process_time() - start
    values = {
        "way": way, "seed": seed, "steps": steps,
        "val_loss": f"{run.metrics['val_loss']:.5f}",
        "nonzero_fraction": f"{run.metrics['nonzero_fraction']:.5f}",
        "train_cpu_s": f"{seconds:.0f}" if is_new else "", **circuit_values(run.model),
    }  # fmt: skip
    return {column: str(values[column]) for column in COLUMNS}


def circuit_values(model: Model) -> dict[str, str]:
    """Return the task loss of a model, and size and loss of its circuit; empty if there is none."""
    task = ww.task(TASK)
    (report,) = ww.tasks.task_reports(model, [TASK])
    values = {"task_loss": f"{report.loss:.4f}", "circuit_loss": "", "nodes": "", "edges": ""}
    try:
        circuit = ww.prune(model, task, PRUNING)
    except InputError:  # the model cannot do the task
        return values
    loss = held_out_losses(circuit, model).circuit
    sizes = {"nodes": str(circuit.n_nodes), "edges": str(circuit.n_kept_edges)}
    return {**values, "circuit_loss": f"{loss:.4f}", **sizes}


def read_cells(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file, or none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_cells(path: Path, cells: Iterable[Mapping[str, str]]) -> None:
    """Write all rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(cells)


def table(cells: Sequence[Mapping[str, str]]) -> str:
    """Return the means over seeds as a table in Markdown.

    The loss is compared with the exact run of the same seed: mean, lowest and highest difference.
    """
    exact = {cell["seed"]: float(cell["val_loss"]) for cell in cells if cell["way"] == BASE}
    lines = [
        "| gradient | seeds | held-out loss | against exact, % | task loss | circuit: loss | nodes "
        "| edges | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        rows = [cell for cell in cells if cell["way"] == way and cell["seed"] in exact]
        if rows:
            lines.append(_line(way, rows, exact))
    return "\n".join(lines)


def _line(way: str, rows: Sequence[Mapping[str, str]], exact: Mapping[str, float]) -> str:
    more = [100 * (float(row["val_loss"]) / exact[row["seed"]] - 1) for row in rows]
    against = "" if way == BASE else f"{mean(more):+.2f} ({min(more):+.2f} to {max(more):+.2f})"
    words = [
        way, str(len(rows)), _mean(rows, "val_loss", 3), against, _mean(rows, "task_loss", 3),
        _mean(rows, "circuit_loss", 3), _each(rows, "nodes"), _each(rows, "edges"),
        _mean(rows, "train_cpu_s", 0),
    ]  # fmt: skip
    return f"| {' | '.join(words)} |"


def _mean(rows: Sequence[Mapping[str, str]], column: str, digits: int) -> str:
    numbers = [float(row[column]) for row in rows if row[column]]
    return f"{mean(numbers):.{digits}f}" if numbers else ""


def _each(rows: Sequence[Mapping[str, str]], column: str) -> str:
    return ", ".join(row[column] or "none" for row in rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.live_gradient",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=1500)
    return parser.parse_args()


if __name__ == "__main__":
    main()
