"""Verbs that train."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wirework.commands.arguments import Json, Settings, once_there_is_room, resumable
from wirework.commands.printing import show
from wirework.config import TrainConfig


def train(
    *,
    settings: Annotated[TrainConfig, Settings] = TrainConfig(),
    resume: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Train, and print where the run lies and its last measures.

    Args:
        resume: Continue the run of this name from its newest whole checkpoint, bit for bit.
    """
    from wirework.training import train as run_training

    with once_there_is_room("the same command with --resume goes on from what was saved"):
        run = run_training(settings, resume=resume)
    show("training", {"run": str(run.path), **run.metrics}, json)


def demo(
    *,
    out: Path = Path("runs"),
    recipe: Path | None = None,
    minutes: float = 10.0,
    json: Json = False,
) -> None:
    """Run the demo and print its table.

    Args:
        out: Folder for the runs, the circuit, the page and the picture.
        recipe: Settings of the sparse model's training; the shipped recipe if left out.
        minutes: What all of it may take; on a slow machine the models get fewer steps. A demo that
            goes on keeps the number of steps that it began with.
    """
    from wirework.demo import demo as run_demo

    with resumable(out):
        table = run_demo(out, recipe, minutes)
    show("demo", table, json)
