"""Create the priors of a run from its settings; CONTRIBUTING.md says how to add one."""

from wirework.config import TrainConfig
from wirework.model import Model
from wirework.training.bridging import Bridging
from wirework.training.hard_concrete import HardConcrete
from wirework.training.prior import Prior
from wirework.training.revival import Revival
from wirework.training.self_ablation import SelfAblation
from wirework.training.weight_sparsity import WeightSparsity


def make_priors(config: TrainConfig, dense: Model | None = None) -> list[Prior]:
    """Return the priors that the settings ask for, in the order in which they act.

    Args:
        config: settings.
        dense: the dense model of `config.bridges`; None without bridges.
    """
    assert (config.bridges is None) == (dense is None), "bridges need their dense model"
    priors: list[Prior] = []
    # First: it counts neurons of the clean stream only, and new weights are projected at once.
    if config.revival is not None:
        priors.append(Revival(config.revival, config.steps))
    if config.bridges is not None and dense is not None:
        priors.append(Bridging(config.bridges, dense, config.seed))
    if config.gating is not None:
        priors.append(SelfAblation(config.gating, config.seed))
    if config.weight_sparsity is not None:
        priors.append(WeightSparsity(config.weight_sparsity, config.steps))
    # Last: the losses of all other priors are those of the gated weights.
    if config.hard_concrete is not None:
        priors.append(HardConcrete(config.hard_concrete, config.steps))
    return priors
