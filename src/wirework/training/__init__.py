"""One training loop; priors plug into it."""

from wirework.training.baseline import bigram_loss
from wirework.training.loop import train
from wirework.training.prior import Prior
from wirework.training.run import Run
from wirework.signals import Interrupted

__all__ = ["Interrupted", "Prior", "Run", "bigram_loss", "train"]
