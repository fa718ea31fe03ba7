"""One function per verb of the `wirework` command: read arguments, call the library, print.

There is no logic here, and nothing heavy is imported before a verb runs. `menu.py` lists the verbs.
"""

from wirework.commands.attribute import attribute
from wirework.commands.circuit_words import explain_circuit
from wirework.commands.circuits import acdc, attack, prune, validate
from wirework.commands.convert import (
    huggingface,
    interpbench,
    openai,
    self_ablating,
    to_huggingface,
)
from wirework.commands.listings import doctor, tasks
from wirework.commands.measures import explain, measure, sae
from wirework.commands.pages import export, view
from wirework.commands.steering import steer
from wirework.commands.study import ablations, binarise, finders, frontier, self_ablation
from wirework.commands.training import bridge, demo, train

__all__ = [
    "ablations",
    "acdc",
    "attack",
    "attribute",
    "binarise",
    "bridge",
    "demo",
    "doctor",
    "explain",
    "explain_circuit",
    "export",
    "finders",
    "frontier",
    "huggingface",
    "interpbench",
    "measure",
    "openai",
    "prune",
    "sae",
    "self_ablating",
    "self_ablation",
    "steer",
    "tasks",
    "to_huggingface",
    "train",
    "validate",
    "view",
]
