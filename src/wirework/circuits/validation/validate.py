"""Validate a circuit: sufficiency, necessity, further checks and controls in one report.

Each entry is one check (`checks/`) or one control (`controls.py`); `verdict.py` turns them into a
verdict. The short report takes seconds. The full report repeats the circuit's search on controls:
random labels and shuffled weights.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework.circuits.circuit import Circuit, tokenize_task
from wirework.circuits.held_out import pairs_of
from wirework.circuits.loading import load_inputs
from wirework.circuits.masking.means import text_of
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.validation.controls import N_SEARCHED, random_control, searched_controls
from wirework.circuits.validation.report import circuit_report, losses_on, result_or_reason
from wirework.circuits.validation.stability import stability
from wirework.circuits.validation.validation_report import ValidationReport
from wirework.circuits.validation.verdict import verdict
from wirework.console import Progress
from wirework.errors import InputError, number_of
from wirework.tasks import Task, load_task

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_CHECKS = 0.3  # time of all checks of the circuit itself, as a fraction of one search


def validate(
    circuit: Circuit | str | Path,
    model: "Model | str | Path | None" = None,
    task: Task | str | Path | None = None,
    *,
    own_task: Task | str | Path | None = None,
    data: "Tokens | None" = None,
    short: bool = False,
    runs: int = 0,
    progress: bool | None = True,
) -> ValidationReport:
    """Validate a circuit on held-out pairs, with further checks and controls.

    Args:
        circuit: the circuit; a path is loaded.
        model: its model; a path is loaded; None to load it from the path saved in the circuit.
        task: a task, or what `ww.task` takes; None for the task of the search. Pairs of another
            task that share a prompt with a training or judging pair are dropped. Required for a
            task of a user's function, because code that only a file names is not run.
        own_task: the task of the search, if a user's function generates it and `task` has other
            pairs.
        data: training text, for resampled activations and controls; None for the text of the
            model's run. Without text, the entries that need it give a `reason`.
        short: only checks that take seconds: no binarisation, hypothesis tests, minimality or
            searched controls.
        runs: repetitions of the search, to measure the stability of each edge; not with `short`.
        progress: show progress on standard error; None: as the caller does.

    Returns:
        A dict that has its verdict at hand (`faithful`, `reasons`, `summary()`). Its keys: `task`,
        `target_loss`, `n_nodes`, `n_edges`; `judged` (where the pairs are known),
        `held_out` and `rephrased`, each with `n_pairs` and, in nats, `model`, `circuit` (everything
        else ablated: sufficiency) with its standard error, `circuit_calibrated`, `without_circuit`
        (only the circuit ablated: necessity), `chance`; `resampled`, `interchange`, `agreement`,
        `coverage`; unless `short` also `binarised`, `minimality`, `hypothesis_tests`; `stability`
        with `runs`; `controls`; and `verdict`: `faithful` with the reasons in words. An entry
        that cannot be computed has a `reason` instead.

    Raises:
        InputError: the circuit is of another model, the task does not fit it, no pair is held out,
            the pairs of the search cannot be determined, `runs` is below 0 or given with `short`,
            or there is no text for the runs.

    Source: Gao et al. 2025, sec. 2.2, Fig. 32, App. C, App. E; Shi et al. 2024 (arXiv 2410.13032).
    """
    _check_runs(short, runs)
    circuit, model, task = load_inputs(circuit, model, task)
    own = None if own_task is None else load_task(own_task)
    data = text_of(model, data) if runs else data  # fails before the long part
    pairs = pairs_of(circuit.document, model, task, own)
    about = {
        "task": (task or pairs.full_task).name,
        "target_loss": circuit.document.target_loss,
        "n_nodes": circuit.n_nodes,
        "n_edges": circuit.n_edges,
    }
    searches = runs + (0 if short else N_SEARCHED)
    with Progress(f"validate {about['task']}", _CHECKS + searches, shown=progress) as bar:
        report = about | circuit_report(circuit, model, pairs, data, short=short)
        controls = {"random circuits": random_control(circuit, model, pairs)}
        bar.advance(_CHECKS)
        if runs:
            report["stability"] = result_or_reason(
                lambda: _stability(circuit, model, pairs.full_task, data, runs)
            )
        if not short:
            controls |= searched_controls(circuit, model, pairs.full_task, data)
    judged = verdict(report, controls, full_validation=not short)
    return ValidationReport({**report, "controls": controls, "verdict": judged})


def held_out_losses(
    circuit: Circuit | str | Path,
    model: "Model | str | Path",
    task: Task | str | Path | None = None,
) -> dict[str, float | int]:
    """Return the losses (nats) of a circuit on its held-out pairs, as in `validate`."""
    circuit, model, task = load_inputs(circuit, model, task)
    pairs = pairs_of(circuit.document, model, task)
    return losses_on(*circuit.edge_masks(model), tokenize_task(pairs.held_out, model), circuit)


def _check_runs(short: bool, runs: int) -> None:
    if runs < 0:
        raise InputError(f"runs must be 0 or more, got {runs}")
    if short and runs:
        raise InputError(
            f"the short report makes no searches: leave out short or the {number_of(runs, 'run')}"
        )


def _stability(
    circuit: NodeCircuit, model: "Model", task: Task, data: "Tokens | None", runs: int
) -> dict[str, Any]:
    config = circuit.search_config
    return asdict(stability(circuit, model, task, config, text_of(model, data), runs))
