"""The model on which searches for a circuit are timed.

The demo's own model is not in the repository. This one is trained by the demo's recipe for fewer
steps, once, and kept in the user's cache folder. The quick one has a planted circuit.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import wirework as ww
from benchmarks.settings import Settings
from wirework.config import PruneConfig, TrainConfig
from wirework.demo import PRUNING, RECIPE, TASK
from wirework.model import Model
from wirework.tasks import Task

STEPS = 1200
QUICK = PruneConfig(
    trials=3, parallel=3, steps=40, batch_pairs=8, eval_pairs=24, lr=1e-2, k_coef=1e-3
)


class Subject(NamedTuple):
    """A model, its task and text, and the settings of two searches."""

    name: str
    model: Model
    task: Task
    data: Any
    """Text for the means; None for that of the model's run."""
    default: PruneConfig
    demo: PruneConfig


def subject(settings: Settings) -> Subject:
    """Return the model to search: planted and small if quick, else of the demo's recipe."""
    if settings.quick:
        return planted_subject()
    run = settings.model or trained_run()
    return Subject("demo", ww.load(run), ww.task(TASK), None, PruneConfig(), PRUNING)


def planted_subject() -> Subject:
    """Return the tests' model with a planted circuit that closes quotes."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "circuits"))
    from hand_wired import PLANT, Corpus

    planted = PLANT["quote closer"]()
    model, task = planted.model, planted.task
    return Subject("planted", model, task, Corpus(model.tokenizer, task), QUICK, QUICK)


def trained_run() -> Path:
    """Return a run of the demo's recipe in the user's cache folder, trained unless it is there.

    Its name has a hash of the recipe with all defaults: other settings are another run.
    """
    from wirework.cache_folder import cache_folder  # not in the version of `stored.json`

    root = (cache_folder() or Path(".cache")) / "benchmarks"
    changes = {
        "runs": str(root), "data.cache": str(root / "data"),
        "steps": STEPS, "precision": "float32", "eval_batches": 4,
    }  # fmt: skip
    settings = TrainConfig.load(RECIPE, changes)
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:8]
    config = settings.model_copy(update={"name": f"demo-{STEPS}-{digest}"})
    return ww.train(config, resume=True, progress=False).path
