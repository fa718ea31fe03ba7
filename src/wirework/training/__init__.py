"""The training loop, priors, checkpoints and run folders."""

from wirework.signals import Interrupted
from wirework.training.baseline import bigram_loss
from wirework.training.loop import train
from wirework.training.prior import Prior
from wirework.training.run_folder import Run

__all__ = ["Interrupted", "Prior", "Run", "bigram_loss", "train"]
