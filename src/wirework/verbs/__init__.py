"""What each verb of the `wirework` command does: read its arguments, call the library, print.

No logic lives here, and nothing heavy is imported before a verb runs. `cli.py` holds the menu.
"""

from wirework.verbs.circuits import acdc, attack, prune, validate
from wirework.verbs.convert import huggingface, openai, self_ablating, to_huggingface
from wirework.verbs.listings import doctor, tasks
from wirework.verbs.measures import explain, measure, sae
from wirework.verbs.pages import export, view
from wirework.verbs.study import finders, frontier, self_ablation
from wirework.verbs.training import demo, train

__all__ = [
    "acdc",
    "attack",
    "demo",
    "doctor",
    "explain",
    "export",
    "finders",
    "frontier",
    "huggingface",
    "measure",
    "openai",
    "prune",
    "sae",
    "self_ablating",
    "self_ablation",
    "tasks",
    "to_huggingface",
    "train",
    "validate",
    "view",
]
