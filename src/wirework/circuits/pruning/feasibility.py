"""Feasibility of a search: the target loss is below chance, and the model itself reaches it."""

import torch

from wirework.circuits.masking.ablation import Ablation
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs
from wirework.tasks.task_loss import chance_loss


def check_chance(config: PruneConfig) -> None:
    """Check that a target loss is below chance.

    Raises:
        InputError: it is not: an empty circuit would reach it.
    """
    chance = chance_loss(config.loss_reduction)
    if config.target_loss >= chance and not config.allow_unreached:
        raise InputError(
            f"target_loss (--target-loss) {config.target_loss:g} asks for nothing: a circuit "
            f"without nodes has {chance:.3f} nats, which is chance; give less"
        )


def check_target(ablation: Ablation, batch: TokenizedPairs, target: float) -> None:
    """Check that the model itself reaches the target loss.

    Raises:
        InputError: its task loss is above the target, or not a number.
    """
    own_loss = model_loss(ablation, batch)
    if not own_loss <= target:
        raise InputError(
            f"the model's own task loss {own_loss:.3f} does not reach the target {target:g}: no "
            "circuit of it can be expected to; raise the target (--target-loss) or train the model "
            "further"
        )


def without_feasibility_checks(config: PruneConfig) -> PruneConfig:
    """Return a config with the feasibility checks disabled, for searches to compare with.

    Only nodes and edges are compared, so that embedding edges are not pruned.
    """
    return config.model_copy(update={"allow_unreached": True, "embedding_edges": False})


def model_loss(ablation: Ablation, batch: TokenizedPairs) -> float:
    """Return the task loss of the model with nothing ablated but excluded nodes, in nats.

    Of several ablation modes, which differ in the values of excluded nodes, the highest counts.
    """
    everything = torch.ones(1, ablation.size, device=batch.tokens.device)
    modes = (ablation,) if ablation.excluded is None else ablation.ablation_modes()
    return max(float(mode.losses(everything, batch)[0]) for mode in modes)
