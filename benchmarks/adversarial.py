"""Do circuits survive an adversary that sets the nodes outside them?

    python -m benchmarks.adversarial RUN --out DIR [--task NAME ...]

For each task, a circuit is searched under mean, resample and adversarial ablation, and attacked by
the check of `validate`: gradient ascent of 100 steps over the values of the nodes outside it,
within each node's range on training text, on held-out pairs. Without `--task`: all built-in tasks
on Python; those whose target the model misses have a reason instead of numbers. The same command
resumes a stopped one. One thread.

All searches are quick, of one trial of 60 steps, and end with bisection, so that sizes are counted
as in the paper. Clean-up and edge pruning would make circuits smaller; under resample ablation they
may take minutes a task, under adversarial ablation hours.
"""

import argparse
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import wirework as ww
from benchmarks.machine import this_machine
from wirework.circuits import prune
from wirework.circuits.held_out import pairs_of
from wirework.circuits.validation.context import ValidationContext
from wirework.circuits.validation.validate import adversarial_losses
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import Task, load_task

if TYPE_CHECKING:
    from wirework.data import Tokens

QUICK = PruneConfig(
    trials=1, parallel=1, steps=60, batch_pairs=8, eval_pairs=32, lr=0.02, finalists=1,
    extra_rankings=(), clean_up=False, prune_edges=False,
)  # fmt: skip
SEARCHES = {
    ablation: QUICK.model_copy(update={"ablation": ablation})
    for ablation in ("mean", "resample", "adversarial")
}
"""Settings of the search by its ablation."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", nargs="*", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("wirework").setLevel("ERROR")
    print(this_machine().line(), flush=True)
    model = ww.load(options.run)
    path = options.out / "results.json"
    searches = {ablation: config.model_dump(mode="json") for ablation, config in SEARCHES.items()}
    about = {"model": model.fingerprint, "searches": searches}
    rows = rows_of(path, about)
    known = {(row["task"], row["ablation"]) for row in rows}
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.task or ww.tasks.PYTHON_TASKS:
        for ablation, config in SEARCHES.items():
            if (name, ablation) in known:
                continue
            row = measured(model, load_task(name), config)
            rows.append({"task": name, "ablation": ablation} | row)
            path.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
            print(_line(rows[-1]), flush=True)


def rows_of(path: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an earlier call; none if there was none.

    Args:
        path: `results.json` of the folder.
        about: the model's fingerprint and the settings of the searches, as in the file.
    """
    if not path.exists():
        return []
    stored = json.loads(path.read_text())
    rows: list[dict[str, Any]] = stored.pop("rows")
    if stored != about:
        raise SystemExit(f"{path} is of another model or other searches: give another --out")
    return rows


def measured(
    model: Model, task: Task, config: PruneConfig, data: "Tokens | None" = None
) -> dict[str, Any]:
    """Search a circuit and attack it.

    Args:
        model: the model.
        task: the behaviour.
        config: settings of the search.
        data: training text; None for that of the model's run.

    Returns:
        Counts, whether the search reached its target on both of its samples, the losses in nats of
        the check of adversarial ablation, and CPU seconds of the search; or only a `reason`.
    """
    start = time.process_time()
    try:
        circuit = prune(model, task, config, data=data, progress=False)
    except InputError as error:
        return {"reason": str(error)}
    seconds = time.process_time() - start
    pairs = pairs_of(circuit.document, model, task)
    losses = adversarial_losses(ValidationContext.of(circuit, model, pairs, data))
    sizes = {"n_nodes": circuit.n_nodes, "n_edges": circuit.n_edges}
    reached = circuit.summary()["reached"]
    return sizes | {"reached": reached} | losses.to_dict() | {"cpu_seconds": round(seconds)}


def _line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    if "reason" in row:
        return f"| {row['task']} | {row['ablation']} | {row['reason']} |"
    losses = " | ".join(f"{row[name]:.3f}" for name in ("means", "per_node", "per_prompt"))
    return (
        f"| {row['task']} | {row['ablation']} | {row['n_nodes']} | {row['n_edges']} | {losses} | "
        f"{'yes' if row['survives'] else 'no'} | {row['survived_share']} | {row['cpu_seconds']} |"
    )


if __name__ == "__main__":
    main()
