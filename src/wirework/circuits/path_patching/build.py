"""From kept path edges to a head-level `Circuit`, measured on the prompts of the search.

Shapes: N clean prompts, M destinations, S sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework import __version__
from wirework.circuit_format import (
    CalibrationPart,
    Document,
    Losses,
    PatchingPart,
    PathEdge,
    Provenance,
)
from wirework.circuits.build import CHANCE, model_part, shown_examples, task_part
from wirework.circuits.circuit import Circuit, tokenize_task
from wirework.circuits.path_patching.contrast import Contrast
from wirework.circuits.path_patching.graph import Graph
from wirework.circuits.path_patching.patched import Patched, refuse_curved_stream
from wirework.circuits.path_patching.reach import carrying
from wirework.config import AcdcConfig
from wirework.errors import InputError
from wirework.files import tensors_checksum
from wirework.tasks import Task, TokenizedPairs, pair_losses, tokenizer_of

if TYPE_CHECKING:
    from wirework.model import Model

_EXAMPLES = 32


@dataclass(frozen=True)
class Setting:
    """A model with the prompts of a task, prepared for path patching."""

    model: "Model"
    full_task: Task
    n_pairs: int
    """Number of its pairs that are used."""
    patched: Patched
    config: AcdcConfig
    """Settings of prompts and patching; `tau` and `order` matter only for a search."""

    @classmethod
    def of(
        cls, model: "Model", task: Task, config: AcdcConfig, *, all_pairs: bool = False
    ) -> "Setting":
        """Draw pairs of a task and run the model on them.

        Args:
            model: a model with a tokeniser.
            task: the task as loaded.
            config: settings; `tau` and `order` are not used here.
            all_pairs: use all pairs instead of `config.pairs`.

        Raises:
            InputError: the task does not fit the model, no pair has prompts of equal length, or the
                model's residual stream is not a sum.
        """
        refuse_curved_stream(model.transformer)
        fitted = task.fitted(tokenizer_of(model), model.config.n_ctx)
        batch = tokenize_task(fitted, model)
        places = _equal_length_pairs(fitted, batch)
        if not all_pairs and config.pairs < len(places):
            places = sorted(Random(f"acdc {config.seed}").sample(places, config.pairs))
        contrast = Contrast.of(batch.select(torch.tensor(places)), symmetric=config.symmetric)
        patched = Patched.of(model.transformer, contrast, config.ablation)
        return cls(model, task, len(places), patched, config)


def _equal_length_pairs(task: Task, batch: TokenizedPairs) -> list[int]:
    """Return the indices of the pairs whose two prompts have equal length.

    Raises:
        InputError: a pair of a user's file has not, or no pair has.
    """
    lengths = (batch.last_positions + 1).view(-1, 2).tolist()
    equal = [place for place, (first, second) in enumerate(lengths) if first == second]
    if len(equal) < len(lengths) and not task.generated:
        place = min(set(range(len(lengths))) - set(equal))
        first, second = lengths[place]
        raise InputError(
            f"task {task.name}, pair {place + 1}: the prompts have {first} and {second} tokens; "
            "path edges are patched token by token and need prompts of equal length"
        )
    if not equal:
        raise InputError(
            f"task {task.name} has no pair whose prompts are of equal length for this tokeniser: "
            "path edges are patched token by token"
        )
    return equal


def gates_of(graph: Graph, edges: Sequence[PathEdge]) -> Tensor:
    """Return gates (M, S) float64, 1 for these edges.

    Raises:
        InputError: an edge is not in the graph.
    """
    gates = torch.zeros(len(graph.destinations), len(graph.sources), dtype=torch.float64)
    for edge in edges:
        source, destination = graph.numbered(edge)
        gates[destination, source] = 1
    return gates


@torch.no_grad()
def assemble_paths(
    setting: Setting,
    edges: Sequence[PathEdge],
    *,
    finder: str,
    settings: Mapping[str, Any],
    tau: float | None = None,
    completeness: float | None = None,
) -> Circuit:
    """Measure path edges and return them as a head-level circuit.

    Edges without effect (`carrying`) are dropped unless `config.keep_unreachable`.

    Args:
        setting: model and prompts of the search.
        edges: the kept path edges.
        finder: name of the finder.
        settings: settings of the finder.
        tau: threshold of ACDC; None for other finders.
        completeness: completeness of edge attribution; None for other finders.
    """
    patched, contrast, config = setting.patched, setting.patched.contrast, setting.config
    device = contrast.last_positions.device
    gates = gates_of(patched.graph, edges).to(device)
    idle, constant = carrying(patched, gates)
    if not config.keep_unreachable:
        gates = gates * ~idle
        edges = [edge for edge in edges if not idle[patched.graph.numbered(edge)[::-1]]]
    every = gates_of(patched.graph, [patched.graph.named(e) for e in patched.graph.edges])
    clean, alone = patched.run().logits, patched.run(gates).logits
    without = patched.run(every.to(device) - gates).logits
    before, logit_diffs = contrast.logit_diffs(clean), contrast.logit_diffs(alone)
    loss = float(pair_losses(logit_diffs).mean())
    shown = TokenizedPairs(contrast.clean, contrast.last_positions, contrast.answers)
    shown = TokenizedPairs(
        *(part[:_EXAMPLES] for part in (shown.tokens, shown.last_positions, shown.answers))
    )
    examples = shown_examples(tokenizer_of(setting.model), shown, logit_diffs)
    document = Document(
        model=model_part(setting.model),
        task=task_part(setting.full_task, setting.n_pairs),
        target_loss=loss,
        losses=Losses(
            model=float(pair_losses(before).mean()),
            circuit=loss,
            circuit_calibrated=loss,
            without_circuit=float(pair_losses(contrast.logit_diffs(without)).mean()),
            chance=CHANCE,
        ),
        calibration=CalibrationPart(scale=1.0, shift=0.0),
        nodes=(),
        edges=(),
        io_edges=(),
        examples=examples,
        provenance=Provenance(
            finder=finder,
            settings=dict(settings),
            seed=config.seed,
            wirework=__version__,
            **_means_of(patched),
        ),
        level="head",
        path_edges=tuple(edges),
        patching=PatchingPart(
            metric=config.metric,
            ablation=config.ablation,
            both=config.symmetric,
            tau=tau,
            n_all=len(patched.graph.edges),
            value=float(contrast.metric(config.metric, clean)(alone)),
            kl=float(contrast.metric("kl", clean)(alone)),
            logit_difference=float(logit_diffs.mean()),
            accuracy=float((logit_diffs > 0).double().mean()),
            model_logit_difference=float(before.mean()),
            model_accuracy=float((before > 0).double().mean()),
            n_unreachable=int(idle.sum()),
            n_constant=int(constant.sum()),
            completeness=completeness,
        ),
    )
    longest = max(len(prompt) for prompt in examples.prompts)
    return Circuit(document, {}, torch.zeros(len(examples.prompts), longest, 0))


def _means_of(patched: Patched) -> dict[str, Any]:
    """Return the entries of `Provenance` about ablation means; empty unless ablation is `mean`."""
    if patched.ablation != "mean":
        return {}
    names = zip(patched.graph.sources, patched.ablated, strict=True)
    means = {name: value[0, 0].cpu().contiguous() for name, value in names}
    return {
        "means": tensors_checksum(means, {}),
        "mean_tokens": 2 * int((patched.contrast.last_positions + 1).sum()),
        "mean_source": "task prompts",
    }


@torch.no_grad()
def evaluate_paths(circuit: Circuit, model: "Model", task: Task) -> float:
    """Return the metric of a head-level circuit on all pairs of a task.

    Raises:
        InputError: the model is another one or lacks an edge, or the task does not fit the model.
    """
    circuit.check_model(model)
    part = circuit.document.patching
    assert part is not None
    config = AcdcConfig(metric=part.metric, ablation=part.ablation, symmetric=part.both)
    patched = Setting.of(model, task, config, all_pairs=True).patched
    gates = gates_of(patched.graph, circuit.path_edges).to(patched.contrast.last_positions.device)
    metric = patched.contrast.metric(part.metric, patched.run().logits)
    return float(metric(patched.run(gates).logits))
