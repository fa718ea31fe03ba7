"""From kept path edges to a `PathCircuit`, measured on the prompts of the search.

Shapes: N clean prompts, M destinations, S sources.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

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
from wirework.circuits.path_patching.patched import Patched
from wirework.circuits.path_patching.path_circuit import PathCircuit
from wirework.circuits.path_patching.reach import edges_without_effect
from wirework.circuits.path_patching.setting import Setting, gates_of
from wirework.files import tensors_checksum
from wirework.tasks import TokenizedPairs, pair_losses, tokenizer_of

_EXAMPLES = 32


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
        finder: name of the finder.
        settings: settings of the finder.
        tau: threshold of ACDC; None for other finders.
        completeness: completeness of edge attribution; None for other finders.
    """
    patched, contrast, config = setting.patched, setting.patched.contrast, setting.config
    device = contrast.last_positions.device
    gates = gates_of(patched.graph, edges).to(device)
    idle, constant = edges_without_effect(patched, gates)
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
    return PathCircuit(document)


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
