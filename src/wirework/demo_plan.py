"""Number of training steps of the demo: as many as this machine can do in the given minutes."""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from wirework import files
from wirework.config import TrainConfig
from wirework.console import say, warn
from wirework.errors import InputError
from wirework.parallel import parallel_map
from wirework.training import train

FEWEST_STEPS = 2000
"""Fewest steps, of 1,024 tokens. 1,200 teach the model the demo's task on the text of most
machines, but not of all (benchmarks/README.md)."""

_TRIAL_STEPS = 40
"""Steps that are timed. The first half, which compiles and chooses kernels, is left out."""
_OTHER_SECONDS = 20.0
"""Seconds for stages that hardly depend on training speed: loading, means, page."""
_PRUNING_TOKENS = 350_000
"""Time of pruning with a reserve, in tokens of training."""
_USUAL_PRUNING_TOKENS = 300_000
"""Time of pruning, in tokens of training: 7 to 10 CPU seconds (benchmarks/README.md), the means
and first compiling."""
_USUAL_SPEED = 5000.0
"""Tokens per second, if the speed is not measured."""
_WAIT = 0.05
"""Delay with which the dense model finishes after the sparse one, as a share of its training."""
_PAGE_SECONDS = 3.0
"""Seconds for the page and the picture."""
_MARGIN = 0.85
"""Share of the remaining time that is planned for training, because the speed varies."""


@dataclass(frozen=True)
class Plan:
    """Length of the demo's training. Decided once, so that a resumed demo keeps it."""

    steps: int
    """Training steps of both models."""
    steps_of_recipe: int
    """Steps of the recipe: the maximum."""
    minutes: float
    """Time for the whole demo."""
    tokens_per_s: float
    """Speed of the slower model, measured with both training at once; 0: not measured."""

    @property
    def shortened(self) -> bool:
        """Whether the demo trains fewer steps than the recipe."""
        return self.steps < self.steps_of_recipe


class StageEnds(NamedTuple):
    """Ends of the stages of a demo, in estimated seconds from the start of training."""

    training: float
    pruning: float
    twin: float
    """End of the wait for the dense model, which trains in parallel with the stages before."""
    page: float


def stage_ends(plan: Plan, config: TrainConfig) -> StageEnds:
    """Return the ends of the stages of a demo, for its progress line.

    Unlike `fitting_steps`, this includes no reserve: the progress line scales the remaining
    estimate by (elapsed time / estimate for the part done).

    Args:
        plan: steps and measured speed.
        config: settings of the sparse model.
    """
    speed = plan.tokens_per_s or _USUAL_SPEED
    training = plan.steps * config.batch_size * config.model.n_ctx / speed
    pruning = training + _USUAL_PRUNING_TOKENS / speed
    twin = max(pruning, (1 + _WAIT) * training)
    return StageEnds(training, pruning, twin, twin + _PAGE_SECONDS)


def make_plan(
    config: TrainConfig, twin: TrainConfig, out: Path, minutes: float, began: float
) -> Plan:
    """Return the plan saved in `out`, or time a few steps of both models and save a new one.

    Args:
        config: settings of the sparse model; its steps are the maximum.
        twin: settings of the dense model, which trains at the same time.
        out: folder of the demo.
        minutes: time for the whole demo.
        began: start of the demo on the monotonic clock.

    Raises:
        InputError: the minutes are not a positive number, or the saved plan is damaged.
    """
    if not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"minutes must be a positive number, got {minutes}")
    minutes, path = float(minutes), out / "demo.json"
    kept = _kept(path) if files.is_file(path) else None
    if kept is not None and kept.steps_of_recipe == config.steps:
        if kept.minutes != minutes:
            say(
                f"{out} keeps to the {kept.steps:,} steps that it began with: "
                "other minutes are for another --out"
            )
        return kept
    plan = _new_plan(config, twin, minutes, began)
    files.write_record(path, asdict(plan))
    return plan


def _kept(path: Path) -> Plan:
    """Read the saved plan of a demo.

    Raises:
        InputError: the file is damaged, or lacks a key that this version needs.
    """
    needed = {"steps": int, "steps_of_recipe": int, "minutes": float, "tokens_per_s": float}
    record = files.read_record(path, needed)
    return Plan(**{name: record[name] for name in needed})


def fitting_steps(
    most: int, tokens_per_step: int, tokens_per_s: float, seconds: float
) -> tuple[int, float]:
    """Return the number of steps that fit the time, and the seconds that the demo then takes.

    Args:
        most: steps of the recipe.
        tokens_per_step: tokens per step of one model.
        tokens_per_s: speed of the slower model.
        seconds: time for training and all later stages.

    Returns:
        Steps and seconds. There are at least `FEWEST_STEPS`, or those of the recipe if fewer, even
        if they do not fit.
    """
    other = _OTHER_SECONDS + _PRUNING_TOKENS / tokens_per_s
    steps = int(_MARGIN * (seconds - other) * tokens_per_s / tokens_per_step)
    steps = min(most, max(FEWEST_STEPS, steps // 50 * 50))
    return steps, other + steps * tokens_per_step / tokens_per_s


def _new_plan(config: TrainConfig, twin: TrainConfig, minutes: float, began: float) -> Plan:
    begun = [_begun(settings) for settings in (config, twin)]
    if config.steps <= FEWEST_STEPS or any(begun):
        return Plan(max(begun) or config.steps, config.steps, minutes, 0.0)
    say("timing a few steps of both models")
    speed = min(parallel_map(tokens_per_second, [config, twin], jobs=2))
    seconds = 60 * minutes - (time.monotonic() - began)
    per_step = config.batch_size * config.model.n_ctx
    steps, needed = fitting_steps(config.steps, per_step, speed, seconds)
    pace = f"{speed:,.0f} tokens/s: {steps:,} of the recipe's {config.steps:,} steps"
    if needed > seconds:
        warn(f"{pace}, the fewest that are enough, take about {needed / 60:.0f} minutes from here")
    else:
        say(f"{pace} fit the {minutes:g} minutes")
    return Plan(steps, config.steps, minutes, round(speed, 1))


def tokens_per_second(config: TrainConfig) -> float:
    """Return the training speed with these settings, from a short run that is deleted."""
    with TemporaryDirectory(prefix="wirework-") as folder:
        changes = {
            "runs": Path(folder),
            "steps": _TRIAL_STEPS,
            "log_every": 10,
            "eval_batches": 1,
            "eval_every": _TRIAL_STEPS,
            "checkpoint_every": _TRIAL_STEPS,
        }
        run = train(config.model_copy(update=changes), progress=False)
        lines = [line["timing"] for line in run.history() if line["kind"] == "train"]
    speeds = [float(line["tokens_per_s"]) for line in lines[-2:]]
    return len(speeds) / math.fsum(1 / speed for speed in speeds)


def _begun(config: TrainConfig) -> int:
    """Return the steps of a run that began without a plan, else 0."""
    stored = config.runs / config.name / "config.yaml"
    return TrainConfig.load(stored).steps if files.is_file(stored) else 0
