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
from torch import Tensor

from wirework.circuits.calibration import IDENTITY, calibrated_loss
from wirework.circuits.node_assembly import pair_error
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.validation.bars import reaches
from wirework.circuits.validation.checks.minimality import without_each
from wirework.circuits.validation.context import ValidationContext
from wirework.circuits.validation.random_circuits import random_circuits
from wirework.circuits.validation.validation_report import RandomControl, SizeRange
from wirework.nn import Transformer
from wirework.summaries import NotMeasured
from wirework.tasks import TokenizedPairs
from wirework.tasks.task_loss import chance_loss

if TYPE_CHECKING:
    from wirework.model import Model

_RANDOM = 20
"""Number of random circuits."""
_MASKS = 256
"""Masks per call."""


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

    In a small model some hold all nodes that the circuit needs. These do the task because the
    circuit does, and are counted apart.

    Returns:
        The control, or a reason if the model has no other such circuit.
    """
    circuit, few = context.circuit, context.first_held_out()
    drawn = random_circuits(
        context.edge_masks, context.gates, few, _RANDOM, circuit.document.provenance.seed
    )
    if not drawn:
        return NotMeasured("the model has no other connected circuit of this composition")
    logit_diffs = [masks.all_logit_diffs(gates[None], few)[0] for masks, gates in drawn]
    losses = [calibrated_loss(part, IDENTITY, circuit.loss_reduction) for part in logit_diffs]
    sufficient = [
        masks
        for (masks, _), part in zip(drawn, logit_diffs, strict=True)
        if _is_sufficient(circuit, part)
    ]
    needed = needed_nodes(context, few) if sufficient else set()
    nodes = [masks.n_nodes for masks, _ in drawn]
    edges = [int(gates[masks.n_nodes :].sum()) for masks, gates in drawn]
    return RandomControl(
        n=len(drawn),
        nodes=SizeRange(circuit.n_nodes, min(nodes), max(nodes)),
        edges=SizeRange(circuit.n_kept_edges, min(edges), max(edges)),
        lowest=float(torch.tensor(losses).min()),
        median=float(torch.tensor(losses).median()),
        n_sufficient=len(sufficient),
        n_with_needed=sum(bool(needed) and needed <= set(masks.kept) for masks in sufficient),
    )


def needed_nodes(context: ValidationContext, batch: TokenizedPairs) -> set[tuple[str, int]]:
    """Return the nodes (site, channel) without which alone the circuit is not sufficient."""
    edge_masks, nodes = context.edge_masks, torch.arange(context.edge_masks.n_nodes)
    logit_diffs = [
        edge_masks.all_logit_diffs(without_each(context.gates, part), batch)
        for part in torch.split(nodes, _MASKS)
    ]
    return {
        node
        for node, part in zip(edge_masks.kept, torch.cat(logit_diffs), strict=True)
        if not _is_sufficient(context.circuit, part)
    }


def _is_sufficient(circuit: NodeCircuit, logit_diffs: Tensor) -> bool:
    """Return whether logit differences (2P,) reach the target of a circuit's search."""
    reduction = circuit.loss_reduction
    return reaches(
        calibrated_loss(logit_diffs, IDENTITY, reduction),
        pair_error(logit_diffs, reduction),
        circuit.document.target_loss,
        chance_loss(reduction),
    )
