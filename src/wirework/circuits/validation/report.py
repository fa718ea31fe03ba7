"""The part of a circuit's report that is about the circuit itself: one key a check (`checks/`)."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.circuits.build import measure, pair_error
from wirework.circuits.calibration import IDENTITY, Calibration, calibrated_loss
from wirework.circuits.circuit import Circuit, rows_of
from wirework.circuits.held_out import Pairs
from wirework.circuits.masking.activation_cache import (
    activation_cache_of,
    activation_cache_of_search,
)
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.means import text_of
from wirework.circuits.validation import checks
from wirework.circuits.validation.checks import MaskedCircuit
from wirework.errors import InputError
from wirework.tasks import Task, TokenizedPairs, rephrased, tokenizer_of

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

FEW = 32
"""Unseen pairs that the costlier checks are made on."""


def circuit_report(
    circuit: Circuit, model: "Model", pairs: Pairs, text: "Tokens | None", *, short: bool
) -> dict[str, Any]:
    """Make all checks of a circuit but the controls; `validate` says what each part is.

    Args:
        circuit: what to check.
        model: the one it was found in.
        pairs: its task.
        text: training text; None for that of the run which the model lies in.
        short: only what takes seconds.
    """
    (edge_masks, gates), rows = circuit.edge_masks(model), rows_of(pairs.held_out, model)
    subject = MaskedCircuit(
        edge_masks.transformer,
        edge_masks.ablation.space,
        edge_masks.mask(torch.ones_like(gates)),
        lambda: edge_masks.applied(gates[None]),
    )
    few = rows.select(torch.arange(min(rows.n_pairs, FEW)))
    report: dict[str, Any] = {}
    if pairs.judge is not None:
        judged = losses_on(edge_masks, gates, rows_of(pairs.judge, model), circuit)
        del judged["circuit_calibrated"]  # fitted on these very pairs
        report["judged"] = judged
    report["held_out"] = losses_on(edge_masks, gates, rows, circuit)
    report["rephrased"] = or_reason(
        lambda: losses_on(
            edge_masks, gates, rows_of(_rephrased(pairs.held_out, model), model), circuit
        )
    )
    report["resampled"] = or_reason(lambda: _resampled(subject, few, text_of(model, text), model))
    report["interchange"] = asdict(checks.interchange(subject, few))
    report["agreement"] = asdict(checks.agreement(subject, few))
    report["coverage"] = asdict(
        checks.coverage(edge_masks.transformer, subject.gates, circuit.n_edges)
    )
    if not short:
        known = rows if pairs.judge is None else rows_of(pairs.judge, model)
        report |= {
            "binarised": or_reason(lambda: _binarised(subject, rows)),
            "minimality": or_reason(lambda: _minimality(circuit, model, known, text)),
            "hypothesis_tests": or_reason(lambda: _hypothesis_tests(edge_masks, gates, rows)),
        }
    return report


def losses_on(
    edge_masks: EdgeMasks, gates: Tensor, rows: TokenizedPairs, circuit: Circuit
) -> dict[str, float | int]:
    """Return a circuit's losses (nats) on some pairs beside what they are to be compared with.

    Args:
        edge_masks: its nodes and all edges between them.
        gates: (G,), 0 for the edges that it does without.
        rows: the pairs.
        circuit: whose calibration is used.

    Returns:
        `n_pairs`, what `measure` says, `circuit_error`, the standard error of the circuit's loss
        over pairs (0 of a single one, which has no spread), and `circuit_calibrated`.
    """
    scale, shift = circuit.document.calibration.scale, circuit.document.calibration.shift
    logit_diffs = edge_masks.all_differences(gates[None], rows)[0]
    return {
        "n_pairs": rows.n_pairs,
        **measure(edge_masks, gates, rows, logit_diffs),
        "circuit_error": pair_error(logit_diffs),
        "circuit_calibrated": calibrated_loss(logit_diffs, Calibration(scale, shift)),
    }


def circuit_loss(edge_masks: EdgeMasks, gates: Tensor, rows: TokenizedPairs) -> dict[str, float]:
    """Return the loss of a circuit alone, `circuit`, and its standard error, `circuit_error`."""
    logit_diffs = edge_masks.all_differences(gates[None], rows)[0]
    return {
        "circuit": calibrated_loss(logit_diffs, IDENTITY),
        "circuit_error": pair_error(logit_diffs),
    }


def or_reason(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a check says, or, as its `reason`, why it cannot be made."""
    try:
        return check()
    except InputError as error:
        return {"reason": str(error)}


def _binarised(subject: MaskedCircuit, rows: TokenizedPairs) -> dict[str, Any]:
    half = rows.n_pairs // 2
    if not half:
        raise InputError("binarising needs a pair to train on and another to judge by, got 1")
    train, judge = rows.select(torch.arange(half)), rows.select(torch.arange(half, rows.n_pairs))
    return asdict(checks.binarise(subject, train, judge))


def _minimality(
    circuit: Circuit, model: "Model", rows: TokenizedPairs, text: "Tokens | None"
) -> dict[str, Any]:
    """Close each unit alone, what is removed frozen in all the ways that the search froze it."""
    config = circuit.search_config
    (edge_masks, gates), activation_cache = (
        circuit.edge_masks(model),
        activation_cache_of_search(model, text, config),
    )
    ablation = replace(
        edge_masks.ablation, activation_cache=activation_cache, n_resamples=config.n_resamples
    )
    ablation_modes = replace(edge_masks, ablation=ablation).ablation_modes()
    return asdict(checks.minimality(ablation_modes, gates, rows, circuit.document.target_loss))


def _hypothesis_tests(edge_masks: EdgeMasks, gates: Tensor, rows: TokenizedPairs) -> dict[str, Any]:
    nodes = edge_masks.mask(torch.ones_like(gates))
    both = torch.stack([torch.ones_like(nodes), 1 - nodes])
    model, without = edge_masks.ablation.all_differences(both, rows)
    alone = edge_masks.all_differences(gates[None], rows)[0]
    scores = [checks.pair_scores(logit_diffs) for logit_diffs in (alone, model, without)]
    few = rows.select(torch.arange(min(rows.n_pairs, FEW // 2)))
    effects = checks.unit_effects(edge_masks.ablation, nodes, few)
    paths = checks.random_paths(edge_masks.transformer, nodes)
    others = checks.random_effects(edge_masks.ablation, nodes, few, paths)
    return {
        "equivalence": asdict(checks.equivalence_test(scores[0], scores[1])),
        "independence": asdict(checks.independence_test(scores[2], scores[1])),
        "minimality": asdict(checks.minimality_test(effects, others)),
    }


def _resampled(
    subject: MaskedCircuit, rows: TokenizedPairs, text: "Tokens", model: "Model"
) -> dict[str, float]:
    values = activation_cache_of(model, text)
    frozen = checks.frozen_ablation(subject, rows, values)
    return {
        "resample": checks.resample_ablation(subject, rows, values).mean,
        "stochastic": frozen.mean,
        "adversarial": frozen.worst,
    }


def _rephrased(task: Task, model: "Model") -> Task:
    return rephrased(task, 0).fitted(tokenizer_of(model), model.config.n_ctx)
