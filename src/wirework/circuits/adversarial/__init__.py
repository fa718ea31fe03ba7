"""Adversarial inputs from a circuit: read its weak points, then attack the whole model."""

from wirework.circuits.adversarial.find import AttackReport, find_attacks
from wirework.circuits.adversarial.strongest import BreakingAttack
from wirework.renamed_names import new_name

__all__ = ["AttackReport", "BreakingAttack", "find_attacks"]

_RENAMED = {
    "Breaking": "BreakingAttack",
    "Distraction": "AttackReport",
    "find_distractors": "find_attacks",
}


def __getattr__(name: str) -> object:
    """Return a public name under the name that it had in the version before."""
    value: object = globals()[new_name("wirework.circuits.adversarial", name, _RENAMED)]
    return value
