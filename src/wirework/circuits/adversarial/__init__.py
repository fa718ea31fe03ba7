"""Adversarial inputs from a circuit: read its weak points, then attack the whole model."""

from wirework.circuits.adversarial.find import Distraction, find_distractors
from wirework.circuits.adversarial.strongest import Breaking

__all__ = ["Breaking", "Distraction", "find_distractors"]
