"""From the text on this machine to a circuit and its page, in one call.

Every part is what a user would call by hand; the recipe is `recipes/demo.yaml`. A demo that was
killed goes on where it stopped.
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
"""Nats that the circuit must reach, on pairs that the search never saw (sec. 2.2)."""

PRUNING = PruneConfig(
    target_loss=0.13,
    trials=4,
    parallel=4,
    steps=100,
    batch_pairs=16,
    lr=0.02,
    finalists=1,
    extra_rankings=(),
)
"""A quick search, which aims below the target so that unseen pairs reach it too."""

MINUTES = 10.0
"""What all of it may take, on two cores of any x86 processor of the last ten years."""

DENSE_TWIN = {"weight_sparsity": None, "model.act_fraction": None}
"""What makes the dense twin of a sparse recipe: the same text, steps and shape."""

DENSE_RATE = 0.25
"""Learning rate of the twin / that of the sparse model, too high for dense weights: of rates
swept for the shipped recipe, a quarter gave the dense model its lowest loss."""


def demo(
    out: str | Path, recipe: str | Path | None = None, minutes: float = MINUTES
) -> dict[str, Any]:
    """Train a sparse model and its dense twin, find and check the quote circuit, draw it.

    Args:
        out: folder for the runs (`demo`, `demo-dense`), the circuit, the page and the picture.
        recipe: settings of the sparse run; None for the shipped ones.
        minutes: for all of it. Where the recipe's steps would take longer, there are fewer.

    Returns:
        `val_loss, dense_val_loss, bigram_val_loss` (nats per token), `nonzero_fraction`,
        `n_nodes, n_edges`, `task_loss_model, task_loss_circuit, task_loss_without_circuit` (nats,
        on held-out pairs), `circuit, page, png` (paths), `steps, steps_of_recipe, tokens_per_s`
        (0: not measured), `minutes`, `seconds`.

    Raises:
        InputError: no text, or the trained model cannot do the task.
    """
    began = time.monotonic()
    with Progress("demo", None, alone=True) as bar:  # until the plan is made, its length is unknown
        return _demo(Path(out), Path(recipe or RECIPE), minutes, began, bar)


def _demo(out: Path, path: Path, minutes: float, began: float, bar: Progress) -> dict[str, Any]:
    """Run the demo; `bar` stands for all of its work."""
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
    half = max(1, every // 2)  # small products gain next to nothing from more
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
    """Return the circuit and its losses on pairs that the search never saw."""
    circuit = prune(model, load_task(TASK), PRUNING)  # leaves its means beside the model
    losses = held_out_losses(circuit, model)
    if losses.circuit > TARGET_LOSS:
        raise InputError(
            f"the circuit's task loss on held-out pairs is {losses.circuit:.3f}, "
            f"above {TARGET_LOSS}: the recipe trains too weak a model"
        )
    return circuit, losses


@contextmanager
def _more_time_named(plan: Plan) -> Iterator[None]:
    """Where the model had fewer steps than the recipe has, say in an error how it gets more."""
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
    """Use so many threads in the block, and leave the other cores to another process."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _trained_beside(config: TrainConfig, threads: int) -> Iterator[Callable[[], bool]]:
    """Train in a process of its own during the block, and wait for it at its end.

    Yields whether it still trains: pruning with all threads beside it takes longer than with half
    of them, and slows it down as well (benchmarks/README.md).

    An exception ends it too, with a checkpoint, and so does the end of this process, whatever the
    way: it watches its standard input. Nothing comes back but the run: `train(config, resume=True)`
    then returns it, goes on with it, or meets the error that it met.
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
    """Wait until a training process ends, and show how far it is."""
    if child.poll() is not None:
        return
    with Progress(f"training {config.name}", config.steps, count=counted) as bar:
        while child.poll() is None:
            bar.update(last_step(config.runs / config.name))
            with suppress(subprocess.TimeoutExpired):
                child.wait(1.0)


_CHILD = "from wirework.demo import train_while_watched; train_while_watched()"


def train_while_watched() -> None:
    """Train by the settings (JSON) and threads in `sys.argv` until standard input ends."""

    def watch() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    settings, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    train(TrainConfig.of(json.loads(settings)), resume=True, progress=False)


def _bigram_loss(config: TrainConfig, data: Prepared, vocab_size: int) -> float:
    """Return the loss of the bigram table alone on the batches that the models are judged on."""
    held_out = eval_batches(data.val, config.model.n_ctx, config.batch_size, config.eval_batches)
    return bigram_loss(data.train, held_out, vocab_size)
