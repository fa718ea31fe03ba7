"""Proof of a circuit, in one report: what it does, what happens without it, and beside controls.

Each number is one check (`checks/`) or one control (`controls.py`); `verdict.py` says in words what
they come to. The short report takes seconds; the whole one repeats the search that found the
circuit where there is nothing to find.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework.circuits.circuit import Circuit, rows_of
from wirework.circuits.held_out import pairs_of
from wirework.circuits.loading import given
from wirework.circuits.masking.means import text_of
from wirework.circuits.validation.controls import N_SEARCHED, random_control, searched_controls
from wirework.circuits.validation.report import circuit_report, losses_on, or_reason
from wirework.circuits.validation.stability import stability
from wirework.circuits.validation.validation_report import ValidationReport
from wirework.circuits.validation.verdict import verdict
from wirework.console import Progress
from wirework.errors import InputError, number_of
from wirework.tasks import Task, load_task

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_CHECKS = 0.3  # of the time of a search; what all checks of a circuit itself take together


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
    """Check a circuit by more than the loss that it was found by.

    Args:
        circuit: what to check; a path is loaded.
        model: the one it was found in; a path is loaded; None to load it from where it was.
        task: itself, or what `ww.task` takes; None for the one that the circuit was found for. Of
            a task with other pairs, those that have a prompt that trained or judged the circuit are
            left out, the rest is held out. A circuit of a user's function needs it: code that only
            a file names is not run.
        own_task: the task that the circuit was found for, where a function makes it and `task` has
            other pairs.
        data: training text, for resampled values and controls; None for that of the run which the
            model lies in. Where there is none, what needs it is left out and says so.
        short: only what takes seconds: no binarisation, hypothesis tests, minimality or searches.
        runs: how often to repeat the search for the stability of each edge; not with `short`.
        progress: show progress on standard error; None: if what calls this does.

    Returns:
        A dict that has its verdict at hand (`faithful`, `reasons`, `summary()`). Its keys: `task`,
        `target_loss`, `n_nodes`, `n_edges`; `judged` (where the pairs are known),
        `held_out` and `rephrased`, each `n_pairs` and, in nats, `model`, `circuit` (all else
        ablated: sufficiency) with its standard error, `circuit_calibrated`, `without_circuit` (only
        the circuit ablated: necessity), `chance`; `resampled`, `interchange`, `agreement`,
        `coverage`; unless `short` also `binarised`, `minimality`, `hypothesis_tests`; `stability`
        with `runs`; `controls`; and `verdict`: `faithful` with the reasons in words. A part that
        cannot be made has a `reason` instead.

    Raises:
        InputError: the circuit is of another model, the task does not fit it, none of its pairs is
            left, which pairs were used to find the circuit cannot be told, `runs` is below 0,
            `short` is to make runs, or there is no text for them.

    Source: Gao et al. 2025, sec. 2.2, Fig. 32, App. C, App. E; Shi et al. 2024 (arXiv 2410.13032).
    """
    _check_runs(short, runs)
    circuit, model, task = given(circuit, model, task)
    own = None if own_task is None else load_task(own_task)
    data = text_of(model, data) if runs else data  # told before all the rest is done
    pairs = pairs_of(circuit.document, model, task, own)
    about = {
        "task": (task or pairs.whole).name,
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
            report["stability"] = or_reason(
                lambda: _stability(circuit, model, pairs.whole, data, runs)
            )
        if not short:
            controls |= searched_controls(circuit, model, pairs.whole, data)
    judged = verdict(report, controls, full_validation=not short)
    return ValidationReport({**report, "controls": controls, "verdict": judged})


def held_out_losses(
    circuit: Circuit | str | Path,
    model: "Model | str | Path",
    task: Task | str | Path | None = None,
) -> dict[str, float | int]:
    """Return the losses (nats) of a circuit on pairs that it never saw, as `validate` does."""
    circuit, model, task = given(circuit, model, task)
    pairs = pairs_of(circuit.document, model, task)
    return losses_on(*circuit.edge_masks(model), rows_of(pairs.held_out, model), circuit)


def _check_runs(short: bool, runs: int) -> None:
    if runs < 0:
        raise InputError(f"runs must be 0 or more, got {runs}")
    if short and runs:
        raise InputError(
            f"the short report makes no searches: leave out short or the {number_of(runs, 'run')}"
        )


def _stability(
    circuit: Circuit, model: "Model", task: Task, data: "Tokens | None", runs: int
) -> dict[str, Any]:
    config = circuit.search_config
    return asdict(stability(circuit, model, task, config, text_of(model, data), runs))
