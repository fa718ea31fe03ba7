"""From the text on this machine to a circuit and its page, in one call.

The demo calls public functions only; its recipe is `recipes/demo.yaml`. A killed demo resumes where
it stopped.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from wirework.circuits import NodeCircuit, held_out_losses, prune
from wirework.circuits.validation.bars import reaches
from wirework.circuits.validation.validation_report import PairLosses
from wirework.config import PruneConfig, TrainConfig
from wirework.console import Progress, counted
from wirework.data import Prepared, eval_batches, record_text, text_for_runs
from wirework.demo_plan import Plan, make_plan, stage_ends
from wirework.errors import InputError
from wirework.files import check_file
from wirework.model import Model
from wirework.tasks import load_task, tokenizer_of
from wirework.training import bigram_loss, train
from wirework.training.metrics import last_step
from wirework.view import load_page_data, write_figure, write_page

RECIPE = Path(__file__).parent / "recipes" / "demo.yaml"
TASK = "single_double_quote"
TARGET_LOSS = 0.15
"""Target task loss in nats, on held-out pairs (sec. 2.2)."""

PRUNING = PruneConfig(target_loss=0.12, trials=4, steps=100, batch_pairs=16, lr=0.02, finalists=2)
"""Settings of a quick search, whose lower target lets held-out pairs reach `TARGET_LOSS`."""

MINUTES = 3.0
"""Minutes for the whole demo, without the installation, on two cores."""

DENSE_TWIN = {"weight_sparsity": None, "model.act_fraction": None}
"""Settings that turn a sparse recipe into its dense twin: same text, steps and shape."""

DENSE_RATE = 0.25
"""Learning rate of the dense twin / that of the sparse model, which is too high for dense weights.
In a sweep with the shipped recipe, a quarter gave the dense model its lowest loss."""


def demo(
    out: str | Path, recipe: str | Path | None = None, minutes: float = MINUTES
) -> dict[str, Any]:
    """Train a sparse model and its dense twin, find and check the quote circuit, draw it.

    Args:
        out: folder for the runs (`demo`, `demo-dense`), the circuit, the page and the picture.
        recipe: settings of the sparse run; None for the shipped ones.
        minutes: time for the whole demo. If the recipe's steps take longer, fewer are trained.

    Returns:
        `val_loss, dense_val_loss, bigram_val_loss` (nats per token), `nonzero_fraction`,
        `n_nodes, n_edges, n_kept_edges`, `paper_nodes, paper_edges` (at plain bisection),
        `task_loss_model, task_loss_circuit, task_loss_without_circuit` (nats, on held-out pairs),
        `circuit, page, png` (paths), `steps, steps_of_recipe, tokens_per_s` (0: not measured),
        `minutes`, `seconds`.

    Raises:
        InputError: there is no text, or the trained model cannot do the task.
    """
    began = time.monotonic()
    with Progress("demo", None, alone=True) as bar:  # the total is unknown until the plan is made
        return _demo(Path(out), Path(recipe or RECIPE), minutes, began, bar)


def _demo(out: Path, path: Path, minutes: float, began: float, bar: Progress) -> dict[str, Any]:
    """Run the demo; `bar` shows the progress of all stages."""
    for name in ("demo.json", f"{TASK}.html", f"{TASK}.png"):
        check_file(out / name)
    places = {"runs": str(out), "data.cache": str(out / "data")}
    config = TrainConfig.load(path, places)
    twin = _dense_twin(config, path, places)
    runs = [config.runs / config.name, twin.runs / twin.name]
    data = text_for_runs(runs, config.data)
    for run in runs:
        record_text(run, data, config.data, replace=False)
    plan = make_plan(config, twin, out, minutes, began)
    config, twin = (
        settings.model_copy(update={"steps": plan.steps}) for settings in (config, twin)
    )
    ends = stage_ends(plan, config)
    bar.stage(ends.training, total=ends.page)
    every = torch.get_num_threads()
    half = max(1, every // 2)  # small products gain almost nothing from more
    with _trained_beside(twin, half) as training:
        with _threads(half):
            sparse = train(config, resume=True)
        if data.tokenizer.fingerprint != tokenizer_of(sparse.model).fingerprint:
            raise InputError(
                f"the text on this machine has changed since {sparse.path} was trained: "
                "give another --out"
            )
        bar.stage(ends.pruning)
        with _more_time_named(plan), _threads(half if training() else every):
            circuit, losses = _circuit_of(sparse.model)
        bar.stage(ends.twin)
    dense = train(twin, resume=True)
    bar.stage(ends.page)
    folder = circuit.save(out / "circuits" / TASK)
    page = write_page(folder, out / f"{TASK}.html")
    png = write_figure(load_page_data(folder), out / f"{TASK}.png")
    return {
        "val_loss": sparse.metrics["val_loss"],
        "dense_val_loss": dense.metrics["val_loss"],
        "bigram_val_loss": _bigram_loss(config, data, sparse.model.config.vocab_size),
        "nonzero_fraction": sparse.metrics["nonzero_fraction"],
        "n_nodes": circuit.n_nodes,
        "n_edges": circuit.n_edges,
        "n_kept_edges": circuit.n_kept_edges,
        "paper_nodes": circuit.paper_size and circuit.paper_size.n_nodes,
        "paper_edges": circuit.paper_size and circuit.paper_size.n_edges,
        "task_loss_model": losses.model,
        "task_loss_circuit": losses.circuit,
        "task_loss_without_circuit": losses.without_circuit,
        "circuit": str(folder),
        "page": str(page),
        "png": str(png),
        **asdict(plan),
        "seconds": round(time.monotonic() - began, 1),
    }


def _circuit_of(model: Model) -> tuple[NodeCircuit, PairLosses]:
    """Return the circuit and its losses on held-out pairs."""
    circuit = prune(model, load_task(TASK), PRUNING)  # saves the means beside the model
    losses = held_out_losses(circuit, model)
    if not reaches(losses.circuit, losses.circuit_error, TARGET_LOSS):
        raise InputError(
            f"the circuit's task loss on held-out pairs is {losses.circuit:.3f} +- "
            f"{losses.circuit_error:.3f}, above {TARGET_LOSS}: the recipe trains too weak a model"
        )
    return circuit, losses


@contextmanager
def _more_time_named(plan: Plan) -> Iterator[None]:
    """Add to an error how to train longer, if the model had fewer steps than the recipe."""
    try:
        yield
    except InputError as error:
        if not plan.shortened:
            raise
        raise InputError(
            f"{error}. It had {plan.steps:,} of the recipe's {plan.steps_of_recipe:,} steps in "
            f"{plan.minutes:g} minutes: try --minutes {2 * plan.minutes:g} with another --out"
        ) from error


def _dense_twin(config: TrainConfig, recipe: Path, places: dict[str, str]) -> TrainConfig:
    rate = {"optimizer.lr": DENSE_RATE * config.optimizer.lr}
    name = {"name": f"{config.name}-dense"}
    return TrainConfig.load(recipe, {**places, **name, **rate, **DENSE_TWIN})


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use this number of threads in the block, so that another process can use the other cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _trained_beside(config: TrainConfig, threads: int) -> Iterator[Callable[[], bool]]:
    """Train in a second process during the block; at the end of the block, wait for it.

    Yields a function that returns whether it still trains. While it does, pruning with all threads
    takes longer than with half of them, and slows the training too (benchmarks/README.md).

    An exception in the block stops the process, with a checkpoint. So does the end of this process,
    because the second one watches its standard input. Its only result is the run's folder:
    `train(config, resume=True)` then returns the run, continues it, or raises the same error.
    """
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, config.model_dump_json(), str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield lambda: child.poll() is None
        _wait_for(child, config)
    finally:
        child.communicate()  # closes its standard input


def _wait_for(child: "subprocess.Popen[bytes]", config: TrainConfig) -> None:
    """Wait for a training process to end, and show its progress."""
    if child.poll() is not None:
        return
    with Progress(f"training {config.name}", config.steps, count=counted) as bar:
        while child.poll() is None:
            bar.update(last_step(config.runs / config.name))
            with suppress(subprocess.TimeoutExpired):
                child.wait(1.0)


_CHILD = "from wirework.demo import train_while_watched; train_while_watched()"


def train_while_watched() -> None:
    """Train with the settings (JSON) and threads in `sys.argv`; stop when standard input closes."""

    def watch() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    settings, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    train(TrainConfig.of(json.loads(settings)), resume=True, progress=False)


def _bigram_loss(config: TrainConfig, data: Prepared, vocab_size: int) -> float:
    """Return the loss of the bigram table alone on the models' evaluation batches."""
    held_out = eval_batches(data.val, config.model.n_ctx, config.batch_size, config.eval_batches)
    return bigram_loss(data.train, held_out, vocab_size)
