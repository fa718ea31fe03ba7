"""Create the priors of a run from its settings; CONTRIBUTING.md says how to add one."""

from wirework.config import TrainConfig
from wirework.training.prior import Prior
from wirework.training.self_ablation import SelfAblation
from wirework.training.weight_sparsity import WeightSparsity


def make_priors(config: TrainConfig) -> list[Prior]:
    """Return the priors that the settings ask for, in the order in which they act."""
    priors: list[Prior] = []
    if config.gating is not None:
        priors.append(SelfAblation(config.gating, config.seed))
    if config.weight_sparsity is not None:
        priors.append(WeightSparsity(config.weight_sparsity, config.steps))
    return priors
