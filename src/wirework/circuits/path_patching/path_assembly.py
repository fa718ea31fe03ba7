"""Build a `PathCircuit` from kept path edges: measure its losses on the prompts of the search.

Shapes: N clean prompts, M destinations, S sources.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wirework import __version__
from wirework.circuit_format import (
    CalibrationPart,
    Document,
    Examples,
    Losses,
    PatchingPart,
    PathEdge,
    Provenance,
)
from wirework.circuits.node_assembly import CHANCE, model_part, shown_examples, task_part
from wirework.circuits.path_patching.patched import Patched
from wirework.circuits.path_patching.path_circuit import PathCircuit
from wirework.circuits.path_patching.reach import edges_without_effect
from wirework.circuits.path_patching.setting import Setting, gates_of
from wirework.files import tensors_checksum
from wirework.tasks import TokenizedPairs, pair_losses, tokenizer_of

_EXAMPLES = 32
"""Number of prompts that are stored as examples."""


@torch.no_grad()
def assemble_paths(
    setting: Setting,
    edges: Sequence[PathEdge],
    *,
    finder: str,
    settings: Mapping[str, Any],
    tau: float | None = None,
    completeness: float | None = None,
) -> PathCircuit:
    """Measure path edges and return them as a circuit.

    Edges without effect (`edges_without_effect`) are dropped unless `config.keep_unreachable`.

    Args:
        setting: model and prompts of the search.
        edges: the kept path edges.
        finder: name of the finder, for the record.
        settings: settings of the finder, for the record.
        tau: threshold of ACDC; None for other finders.
        completeness: completeness of edge attribution; None for other finders.

    Returns:
        The circuit, with losses, metrics and example prompts.
    """
    patched, contrast, config = setting.patched, setting.patched.contrast, setting.config
    device = contrast.last_positions.device
    gates = gates_of(patched.graph, edges).to(device)
    idle, constant = edges_without_effect(patched, gates)
    if not config.keep_unreachable:
        gates = gates * ~idle
        edges = [edge for edge in edges if not idle[patched.graph.numbered(edge)[::-1]]]
    all_edges = [patched.graph.named(edge) for edge in patched.graph.edges]
    all_gates = gates_of(patched.graph, all_edges).to(device)
    runs = _Logits(
        model=patched.run().logits,
        circuit=patched.run(gates).logits,
        without_circuit=patched.run(all_gates - gates).logits,
    )
    losses = _losses(setting, runs)
    document = Document(
        model=model_part(setting.model),
        task=task_part(setting.full_task, setting.n_pairs),
        target_loss=losses.circuit,
        losses=losses,
        calibration=CalibrationPart(scale=1.0, shift=0.0),
        nodes=(),
        edges=(),
        io_edges=(),
        examples=_examples(setting, contrast.logit_diffs(runs.circuit)),
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
            **_metrics(setting, runs),
            metric=config.metric,
            ablation=config.ablation,
            both=config.symmetric,
            tau=tau,
            n_all=len(patched.graph.edges),
            n_unreachable=int(idle.sum()),
            n_constant=int(constant.sum()),
            completeness=completeness,
            corruption=config.corruption,
        ),
    )
    return PathCircuit(document)


class _Logits(NamedTuple):
    """Logits (N, V) at the last tokens of three runs."""

    model: Tensor
    """Nothing removed."""
    circuit: Tensor
    """All edges outside the circuit removed."""
    without_circuit: Tensor
    """The edges of the circuit removed."""


def _losses(setting: Setting, runs: _Logits) -> Losses:
    """Return the task losses of the runs, in nats. A path circuit is not calibrated."""
    model, circuit, without_circuit = (
        float(pair_losses(setting.patched.contrast.logit_diffs(logits)).mean()) for logits in runs
    )
    return Losses(
        model=model,
        circuit=circuit,
        circuit_calibrated=circuit,
        without_circuit=without_circuit,
        chance=CHANCE,
    )


def _metrics(setting: Setting, runs: _Logits) -> dict[str, float]:
    """Return the entries of `PatchingPart` that are measured on the model and the circuit."""
    contrast = setting.patched.contrast
    of_model, of_circuit = contrast.logit_diffs(runs.model), contrast.logit_diffs(runs.circuit)
    return {
        "value": float(contrast.metric(setting.config.metric, runs.model)(runs.circuit)),
        "kl": float(contrast.metric("kl", runs.model)(runs.circuit)),
        "logit_difference": float(of_circuit.mean()),
        "accuracy": float((of_circuit > 0).double().mean()),
        "model_logit_difference": float(of_model.mean()),
        "model_accuracy": float((of_model > 0).double().mean()),
    }


def _examples(setting: Setting, logit_diffs: Tensor) -> Examples:
    """Return the first clean prompts as examples, with the circuit's logit differences (N,)."""
    contrast = setting.patched.contrast
    prompts = TokenizedPairs(
        contrast.clean[:_EXAMPLES],
        contrast.last_positions[:_EXAMPLES],
        contrast.answers[:_EXAMPLES],
    )
    return shown_examples(tokenizer_of(setting.model), prompts, logit_diffs)


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
