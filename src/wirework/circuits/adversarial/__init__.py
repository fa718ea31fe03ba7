"""Adversarial inputs from a circuit: read its weak points, then attack the whole model."""

from wirework.circuits.adversarial.find import AttackReport, find_attacks
from wirework.circuits.adversarial.strongest import BreakingAttack
from wirework.renamed_names import old_names

__all__ = ["AttackReport", "BreakingAttack", "find_attacks"]

__getattr__ = old_names(
    __name__,
    Breaking="BreakingAttack",
    Distraction="AttackReport",
    find_distractors="find_attacks",
)
