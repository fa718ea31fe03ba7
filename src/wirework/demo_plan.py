"""How many steps the demo trains: as many as this machine can take in the minutes that it has."""

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

FEWEST_STEPS = 1200
"""What the model needs to learn the demo's task, of 1,024 tokens each (benchmarks/README.md)."""

_TRIAL_STEPS = 30
_OTHER_SECONDS = 60.0
"""Time for what does not depend on the speed of training much: loading, means, page."""
_PRUNING_TOKENS = 700_000
"""Pruning takes as long as training on so many tokens."""
_USUAL_SPEED = 5000.0
"""Tokens per second, where the speed is not measured."""
_WAIT = 0.05
"""The dense model is trained so much later than the sparse one, as a share of its training."""
_PAGE = 0.1
"""Share of `_OTHER_SECONDS` that writing the page takes."""
_MARGIN = 0.85
"""Share of the time left that training is given: speed drifts."""


@dataclass(frozen=True)
class Plan:
    """How long the demo trains. Settled once, so that a demo that goes on after a kill keeps it."""

    steps: int
    """Of both models."""
    steps_of_recipe: int
    """The most."""
    minutes: float
    """Time that the whole demo was given."""
    tokens_per_s: float
    """Speed of the slower model, measured with both training at once; 0: not measured."""

    @property
    def shortened(self) -> bool:
        """Whether there are fewer steps than the recipe has."""
        return self.steps < self.steps_of_recipe


class StageEnds(NamedTuple):
    """Where the stages of a demo end, in tokens of training that take as long."""

    training: float
    pruning: float
    twin: float
    """The dense model trains beside all stages before; here it is waited for."""
    page: float


def stage_ends(plan: Plan, config: TrainConfig) -> StageEnds:
    """Return the ends of the stages of a demo, for its progress line.

    Args:
        plan: steps and measured speed.
        config: settings of the sparse model.
    """
    training = float(plan.steps * config.batch_size * config.model.n_ctx)
    other = _OTHER_SECONDS * (plan.tokens_per_s or _USUAL_SPEED)
    pruning = training + _PRUNING_TOKENS + other
    twin = pruning + _WAIT * training
    return StageEnds(training, pruning, twin, twin + _PAGE * other)


def make_plan(
    config: TrainConfig, twin: TrainConfig, out: Path, minutes: float, began: float
) -> Plan:
    """Return the plan kept in `out`, or time a few steps of both models and keep one.

    Args:
        config: settings of the sparse model; its steps are the most.
        twin: settings of the dense one, which trains at the same time.
        out: folder of the demo.
        minutes: for the whole demo.
        began: when it began, on the monotonic clock.

    Raises:
        InputError: the minutes are not a positive number, or the kept plan is damaged.
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
    """Read the plan that a demo began with.

    Raises:
        InputError: the file is damaged, or lacks what this version needs.
    """
    needed = {"steps": int, "steps_of_recipe": int, "minutes": float, "tokens_per_s": float}
    record = files.read_record(path, needed)
    return Plan(**{name: record[name] for name in needed})


def fitting_steps(
    most: int, tokens_per_step: int, tokens_per_s: float, seconds: float
) -> tuple[int, float]:
    """Return how many steps fit the time, and the seconds that the demo will take with them.

    Args:
        most: steps of the recipe.
        tokens_per_step: of one model.
        tokens_per_s: speed of the slower model.
        seconds: for training and all that comes after.

    Returns:
        At least `FEWEST_STEPS`, if the recipe has them, whether they fit or not.
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
    """Return the speed of training by these settings, from a short run that is thrown away."""
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
    """Return the steps of the run, if it has begun without a plan; else 0."""
    stored = config.runs / config.name / "config.yaml"
    return TrainConfig.load(stored).steps if files.is_file(stored) else 0
