"""Controls of a circuit: results of the same method where there is no mechanism to find.

- Searched controls: the same search on random labels (`random_labels.py`) and on the model with
  shuffled weights.
- Random control: connected circuits of the same composition, drawn at random
  (`random_circuits.py`).

If these reach the target loss with as few nodes, the target loss is no evidence: the search solved
the task, not the model.
"""

import copy
from typing import TYPE_CHECKING, Any

import torch

from wirework.circuits.circuit import tokenize_task
from wirework.circuits.held_out import Pairs, pairs_of
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.masking.means import text_of
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.pruning.prune import PruningRun, without_feasibility_checks
from wirework.circuits.validation.random_circuits import random_circuits
from wirework.circuits.validation.random_labels import random_labels
from wirework.circuits.validation.report import (
    COSTLY_CHECK_PAIRS,
    circuit_loss,
    circuit_report,
    result_or_reason,
)
from wirework.circuits.validation.verdict import reaches, verdict
from wirework.config import PruneConfig
from wirework.console import Progress
from wirework.nn import Transformer
from wirework.tasks import Task

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

N_SEARCHED = 2
"""Number of searched controls."""

_RANDOM = 20  # random circuits drawn


def searched_controls(
    circuit: NodeCircuit, model: "Model", task: Task, data: "Tokens | None"
) -> dict[str, dict[str, Any]]:
    """Repeat the search of a circuit on random labels and on shuffled weights.

    Args:
        circuit: the circuit to validate.
        model: its model.
        task: its task, with all pairs.
        data: text on which means are measured; None for the text of the model's run.

    Returns:
        `nonsense task` and `shuffled weights`, each with `task`, `n_nodes` and `n_edges` of the
        circuit found, whether it `reached` the target on held-out pairs, its checks and verdict;
        or a `reason` if no search is possible.
    """
    config = circuit.search_config
    seed = config.seed
    return {
        "nonsense task": result_or_reason(
            lambda: searched(model, random_labels(task, model, seed), config, text_of(model, data))
        ),
        "shuffled weights": result_or_reason(
            lambda: searched(shuffled(model, seed), task, config, text_of(model, data))
        ),
    }


def searched(model: "Model", task: Task, config: PruneConfig, text: "Tokens") -> dict[str, Any]:
    """Search for a circuit and check it; `searched_controls` describes the result.

    Raises:
        InputError: no search is possible: too few pairs, or a loss that is not a number.
    """
    # A random-label task has at most half of the pairs, which may be fewer than a batch.
    config = without_feasibility_checks(config)
    pruning_run = PruningRun.of(model, task, config, AblationBaseline.of(model, text, config))
    with Progress(f"control: search on {task.name}", shown=None, part=1.0) as bar:
        circuit = pruning_run.run(bar.update)
    report = circuit_report(
        circuit, model, pairs_of(circuit.document, model, task), text, short=True
    )
    about = {"n_nodes": circuit.n_nodes, "n_edges": circuit.n_edges}
    target = circuit.document.target_loss
    return {
        "task": task.name,
        **about,
        "reached": reaches(report["held_out"], target),
        **report,
        "verdict": verdict({**about, "target_loss": target, **report}, {}),
    }


@torch.no_grad()
def shuffled(model: "Model", seed: int) -> "Model":
    """Return the model with the entries of each weight matrix and bias randomly permuted.

    Number and magnitudes of the weights stay the same; the learned computation is destroyed.
    """
    from wirework.model import Model

    transformer: Transformer = copy.deepcopy(model.transformer)
    generator = torch.Generator().manual_seed(seed)
    for _, weight, _ in transformer.prunable():
        order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
        weight.copy_(weight.flatten()[order].view_as(weight))
    return Model(transformer, model.tokenizer)


def random_control(circuit: NodeCircuit, model: "Model", pairs: Pairs) -> dict[str, Any]:
    """Measure random connected circuits of the same composition on a few held-out pairs.

    Returns:
        `n`, their number; `nodes` and `edges`: size of the `circuit`, `least` and `most` of the
        random ones; `lowest` and `median` of their losses in nats; `n_sufficient`: how many are
        sufficient (`reaches`). A `reason` if the model has no other such circuit.
    """
    edge_masks, gates = circuit.edge_masks(model)
    batch = tokenize_task(pairs.held_out, model)
    few = batch.select(torch.arange(min(batch.n_pairs, COSTLY_CHECK_PAIRS)))
    seed = circuit.document.provenance.seed
    drawn = random_circuits(edge_masks, gates, few, _RANDOM, seed)
    if not drawn:
        return {"reason": "the model has no other connected circuit of this make-up"}
    losses = [circuit_loss(*one, few) for one in drawn]
    random_losses = torch.tensor([one["circuit"] for one in losses])
    sizes = [one.n_nodes for one, _ in drawn]
    edges = [int(part[one.n_nodes :].sum()) for one, part in drawn]
    return {
        "n": len(drawn),
        "nodes": {"circuit": circuit.n_nodes, "least": min(sizes), "most": max(sizes)},
        "edges": {"circuit": circuit.n_edges, "least": min(edges), "most": max(edges)},
        "lowest": float(random_losses.min()),
        "median": float(random_losses.median()),
        "n_sufficient": sum(reaches(one, circuit.document.target_loss) for one in losses),
    }
