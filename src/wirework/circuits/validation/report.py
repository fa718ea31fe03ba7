"""The checks of a circuit itself, without controls: one entry per check (`checks/`)."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.circuits.build import measure, pair_error
from wirework.circuits.calibration import IDENTITY, Calibration, calibrated_loss
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.held_out import Pairs
from wirework.circuits.masking.activation_cache import (
    activation_cache_of,
    activation_cache_of_search,
)
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.means import text_of
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.validation import checks
from wirework.circuits.validation.checks import MaskedCircuit
from wirework.errors import InputError
from wirework.tasks import Task, TokenizedPairs, rephrased, tokenizer_of

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

COSTLY_CHECK_PAIRS = 32
"""Held-out pairs used for costly checks."""


def circuit_report(
    circuit: NodeCircuit, model: "Model", pairs: Pairs, text: "Tokens | None", *, short: bool
) -> dict[str, Any]:
    """Run all checks of a circuit but the controls; `validate` describes the entries.

    Args:
        circuit: the circuit.
        model: its model.
        pairs: its pairs by their use.
        text: training text; None for the text of the model's run.
        short: only checks that take seconds.
    """
    (edge_masks, gates), batch = circuit.edge_masks(model), tokenize_task(pairs.held_out, model)
    masked_circuit = MaskedCircuit(
        edge_masks.transformer,
        edge_masks.ablation.space,
        edge_masks.mask(torch.ones_like(gates)),
        lambda: edge_masks.applied(gates[None]),
    )
    few = batch.select(torch.arange(min(batch.n_pairs, COSTLY_CHECK_PAIRS)))
    report: dict[str, Any] = {}
    if pairs.judge is not None:
        judged = losses_on(edge_masks, gates, tokenize_task(pairs.judge, model), circuit)
        del judged["circuit_calibrated"]  # the calibration was fitted on these pairs
        report["judged"] = judged
    report["held_out"] = losses_on(edge_masks, gates, batch, circuit)
    report["rephrased"] = result_or_reason(
        lambda: losses_on(
            edge_masks, gates, tokenize_task(_rephrased(pairs.held_out, model), model), circuit
        )
    )
    report["resampled"] = result_or_reason(
        lambda: _resampled(masked_circuit, few, text_of(model, text), model)
    )
    report["interchange"] = asdict(checks.interchange(masked_circuit, few))
    report["agreement"] = asdict(checks.agreement(masked_circuit, few))
    report["coverage"] = asdict(
        checks.coverage(edge_masks.transformer, masked_circuit.gates, circuit.n_edges)
    )
    if not short:
        known = batch if pairs.judge is None else tokenize_task(pairs.judge, model)
        report |= {
            "binarised": result_or_reason(lambda: _binarised(masked_circuit, batch)),
            "minimality": result_or_reason(lambda: _minimality(circuit, model, known, text)),
            "hypothesis_tests": result_or_reason(
                lambda: _hypothesis_tests(edge_masks, gates, batch)
            ),
        }
    return report


def losses_on(
    edge_masks: EdgeMasks, gates: Tensor, batch: TokenizedPairs, circuit: NodeCircuit
) -> dict[str, float | int]:
    """Return a circuit's losses (nats) on some pairs, with the losses to compare them with.

    Args:
        edge_masks: masks over its nodes and all edges between them.
        gates: (G,), 0 for removed edges.
        batch: the tokenised pairs.
        circuit: the circuit, for its calibration.

    Returns:
        `n_pairs`, the entries of `measure`, `circuit_error` (standard error of the circuit's loss
        over pairs, 0 for a single pair) and `circuit_calibrated`.
    """
    scale, shift = circuit.document.calibration.scale, circuit.document.calibration.shift
    logit_diffs = edge_masks.all_differences(gates[None], batch)[0]
    return {
        "n_pairs": batch.n_pairs,
        **measure(edge_masks, gates, batch, logit_diffs),
        "circuit_error": pair_error(logit_diffs),
        "circuit_calibrated": calibrated_loss(logit_diffs, Calibration(scale, shift)),
    }


def circuit_loss(edge_masks: EdgeMasks, gates: Tensor, batch: TokenizedPairs) -> dict[str, float]:
    """Return the loss of a circuit alone, `circuit`, and its standard error, `circuit_error`."""
    logit_diffs = edge_masks.all_differences(gates[None], batch)[0]
    return {
        "circuit": calibrated_loss(logit_diffs, IDENTITY),
        "circuit_error": pair_error(logit_diffs),
    }


def result_or_reason(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a check, or its `reason` if it cannot be computed."""
    try:
        return check()
    except InputError as error:
        return {"reason": str(error)}


def _binarised(masked_circuit: MaskedCircuit, batch: TokenizedPairs) -> dict[str, Any]:
    half = batch.n_pairs // 2
    if not half:
        raise InputError("binarising needs a pair to train on and another to judge by, got 1")
    train, judge = batch.select(torch.arange(half)), batch.select(torch.arange(half, batch.n_pairs))
    return asdict(checks.binarise(masked_circuit, train, judge))


def _minimality(
    circuit: NodeCircuit, model: "Model", batch: TokenizedPairs, text: "Tokens | None"
) -> dict[str, Any]:
    """Remove each unit alone, in all ablation modes of the search."""
    config = circuit.search_config
    (edge_masks, gates), activation_cache = (
        circuit.edge_masks(model),
        activation_cache_of_search(model, text, config),
    )
    ablation = replace(
        edge_masks.ablation, activation_cache=activation_cache, n_resamples=config.n_resamples
    )
    ablation_modes = replace(edge_masks, ablation=ablation).ablation_modes()
    return asdict(checks.minimality(ablation_modes, gates, batch, circuit.document.target_loss))


def _hypothesis_tests(
    edge_masks: EdgeMasks, gates: Tensor, batch: TokenizedPairs
) -> dict[str, Any]:
    nodes = edge_masks.mask(torch.ones_like(gates))
    masks = torch.stack([torch.ones_like(nodes), 1 - nodes])
    model, without = edge_masks.ablation.all_differences(masks, batch)
    alone = edge_masks.all_differences(gates[None], batch)[0]
    scores = [checks.pair_scores(logit_diffs) for logit_diffs in (alone, model, without)]
    few = batch.select(torch.arange(min(batch.n_pairs, COSTLY_CHECK_PAIRS // 2)))
    effects = checks.unit_effects(edge_masks.ablation, nodes, few)
    paths = checks.random_paths(edge_masks.transformer, nodes)
    others = checks.random_effects(edge_masks.ablation, nodes, few, paths)
    return {
        "equivalence": asdict(checks.equivalence_test(scores[0], scores[1])),
        "independence": asdict(checks.independence_test(scores[2], scores[1])),
        "minimality": asdict(checks.minimality_test(effects, others)),
    }


def _resampled(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, text: "Tokens", model: "Model"
) -> dict[str, float]:
    values = activation_cache_of(model, text)
    frozen = checks.constant_resample_ablation(masked_circuit, batch, values)
    return {
        "resample": checks.resample_ablation(masked_circuit, batch, values).mean,
        "stochastic": frozen.mean,
        "adversarial": frozen.worst,
    }


def _rephrased(task: Task, model: "Model") -> Task:
    return rephrased(task, 0).fitted(tokenizer_of(model), model.config.n_ctx)
