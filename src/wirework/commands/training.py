"""Verbs that train."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wirework.commands.arguments import Json, Settings, once_there_is_room, resumable
from wirework.commands.printing import (
    print_next,
    print_verdict,
    print_wrote,
    show,
    without_pooled_kurtosis,
)
from wirework.config import TrainConfig
from wirework.config.training import BridgeTrainConfig
from wirework.errors import number_of

if TYPE_CHECKING:
    from wirework.training import Run


def train(
    *,
    settings: Annotated[TrainConfig, Settings] = TrainConfig(),
    resume: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Train, and print the run's folder and its last measures.

    Args:
        resume: Continue the run of this name from its newest undamaged checkpoint, bit for bit.
    """
    from wirework.training import train as run_training

    with once_there_is_room("the same command with --resume goes on from what was saved"):
        run = run_training(settings, resume=resume)
    if not json:
        print_verdict(
            f"trained: {run.metrics['val_loss']:.4g} nats per token on held-out text (lower is "
            "better)"
        )
    _show_run("training", run, json)


def bridge(
    dense: Path | None = None,
    /,
    *,
    settings: Annotated[BridgeTrainConfig, Settings] = BridgeTrainConfig(),
    resume: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Train a sparse model with bridges to a dense one; print the run's folder and last measures.

    Args:
        dense: Model or run folder of the dense model; default: bridges.dense.
        resume: Continue the run of this name from its newest undamaged checkpoint, bit for bit.
    """
    from wirework.bridges.bridged import with_bridges
    from wirework.training import train as run_training

    with once_there_is_room("the same command with --resume goes on from what was saved"):
        run = run_training(with_bridges(settings, dense), resume=resume)
    if not json:
        print_verdict(
            f"bridged: {run.metrics['val_loss']:.4g} nats per token on held-out text; below, "
            "normalised MSE and KL summed over the residual locations (lower is better)"
        )
    _show_run("bridging", run, json)


def _show_run(title: str, run: "Run", json: bool) -> None:
    """Print the last measures of a run and its folder."""
    where = {"run": str(run.path)} if json else {}
    metrics = run.metrics if json else without_pooled_kurtosis(run.metrics)
    show(title, {**where, **metrics}, json)
    if not json:
        print_wrote(run.path)
        print_next("tasks", run.path)


def demo(
    *,
    out: Path = Path("runs"),
    recipe: Path | None = None,
    minutes: float = 3.0,
    json: Json = False,
) -> None:
    """Run the demo and print its table.

    Args:
        out: Folder for the runs, the circuit, the page and the picture.
        recipe: Settings of the sparse model's training; default: the shipped recipe.
        minutes: Time for the whole demo; on a slow machine the models get fewer steps. A resumed
            demo keeps its number of steps.
    """
    from wirework.demo import TARGET_LOSS
    from wirework.demo import demo as run_demo

    with resumable(out):
        table = run_demo(out, recipe, minutes)
    if not json:
        print_verdict(
            f"{number_of(table['n_nodes'], 'node')} and {number_of(table['n_edges'], 'edge')} of "
            f"the sparse model close quotes with task loss {table['task_loss_circuit']:.3f} nats "
            f"(target {TARGET_LOSS}, chance 0.693); the model without them has "
            f"{table['task_loss_without_circuit']:.3f}"
        )
    files = ("circuit", "page", "png")
    shown = {name: value for name, value in table.items() if json or name not in files}
    show("demo", shown, json)
    if not json:
        circuit = Path(table["circuit"])
        print_wrote(*(table[name] for name in files))
        print_next("attack", circuit, "--out", circuit.with_name(f"{circuit.name}-attack"))
