"""Controls of a circuit: the same method where there is no mechanism to find.

- Searched controls (`validate.searched_controls`): the same search on random labels
  (`random_labels.py`) and on the model with shuffled weights.
- Random control: connected circuits of the same composition, drawn at random
  (`random_circuits.py`).

If these reach the target loss with as few nodes, the circuit's loss is no evidence: then the search
solves the task, whatever the model computes.
"""

import copy
from typing import TYPE_CHECKING

import torch

from wirework.circuits.calibration import IDENTITY, calibrated_loss
from wirework.circuits.node_assembly import pair_error
from wirework.circuits.validation.bars import reaches
from wirework.circuits.validation.context import ValidationContext
from wirework.circuits.validation.random_circuits import random_circuits
from wirework.circuits.validation.validation_report import RandomControl, SizeRange
from wirework.nn import Transformer
from wirework.summaries import NotMeasured
from wirework.tasks.task_loss import chance_loss

if TYPE_CHECKING:
    from wirework.model import Model

_RANDOM = 20
"""Number of random circuits."""


@torch.no_grad()
def shuffled(model: "Model", seed: int) -> "Model":
    """Return the model with the entries of each weight matrix and bias randomly permuted.

    The number and the magnitudes of the weights stay the same; what the model learned is lost.

    Args:
        model: the model; not changed.
        seed: seed of the permutations.
    """
    from wirework.model import Model

    transformer: Transformer = copy.deepcopy(model.transformer)
    generator = torch.Generator().manual_seed(seed)
    for _, weight, _ in transformer.prunable():
        order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
        weight.copy_(weight.flatten()[order].view_as(weight))
    return Model(transformer, model.tokenizer)


def random_control(context: ValidationContext) -> RandomControl | NotMeasured:
    """Measure random connected circuits of the same composition on a few held-out pairs.

    Returns:
        The control, or a reason if the model has no other such circuit.
    """
    circuit, few = context.circuit, context.first_held_out()
    target, seed = circuit.document.target_loss, circuit.document.provenance.seed
    reduction = circuit.loss_reduction
    drawn = random_circuits(context.edge_masks, context.gates, few, _RANDOM, seed)
    if not drawn:
        return NotMeasured("the model has no other connected circuit of this composition")
    logit_diffs = [masks.all_logit_diffs(gates[None], few)[0] for masks, gates in drawn]
    losses = [calibrated_loss(part, IDENTITY, reduction) for part in logit_diffs]
    errors = [pair_error(part, reduction) for part in logit_diffs]
    nodes = [masks.n_nodes for masks, _ in drawn]
    edges = [int(gates[masks.n_nodes :].sum()) for masks, gates in drawn]
    return RandomControl(
        n=len(drawn),
        nodes=SizeRange(circuit.n_nodes, min(nodes), max(nodes)),
        edges=SizeRange(circuit.n_kept_edges, min(edges), max(edges)),
        lowest=float(torch.tensor(losses).min()),
        median=float(torch.tensor(losses).median()),
        n_sufficient=sum(
            reaches(loss, error, target, chance_loss(reduction))
            for loss, error in zip(losses, errors, strict=True)
        ),
    )
