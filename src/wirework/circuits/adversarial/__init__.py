"""From a circuit to inputs that break the whole model: attacks, and the reading that finds them."""

from wirework.circuits.adversarial.find import Distraction, find_distractors
from wirework.circuits.adversarial.strongest import Breaking

__all__ = ["Breaking", "Distraction", "find_distractors"]
