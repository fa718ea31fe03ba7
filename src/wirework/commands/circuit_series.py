"""`prune --exhaust`: find the circuits of a series and print them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework.commands.arguments import resumable, task_of, tokens_of
from wirework.commands.circuit_tables import loss_unit
from wirework.commands.printing import (
    changed_flags,
    print_next,
    print_verdict,
    print_wrote,
    show,
    show_rows,
)
from wirework.config import PruneConfig
from wirework.errors import number_of

if TYPE_CHECKING:
    from wirework.circuits import CircuitSeries


def prune_series(
    model: Path,
    task: str,
    out: Path,
    settings: PruneConfig,
    corpus: str | None,
    max_circuits: int | None,
    json: bool,
) -> None:
    """Find circuits with disjoint nodes, save them and print their sizes and losses.

    Args:
        model: model or run folder.
        task: name, JSONL file or function of a behaviour.
        out: folder for the circuits.
        settings: settings of each search.
        corpus: training text for the means.
        max_circuits: number of circuits after which the series ends; None for the default.
        json: print one JSON object.
    """
    from wirework.circuits import exhaust_circuits
    from wirework.circuits.pipeline.exhaust import MAX_CIRCUITS, check_series_place
    from wirework.model import load

    most = max_circuits or MAX_CIRCUITS
    check_series_place(out, most)
    loaded = load(model)
    data = None if corpus is None else tokens_of(loaded, corpus)
    pairs = task_of(task)
    with resumable(out):
        series = exhaust_circuits(loaded, pairs, out, settings, max_circuits=most, data=data)
    if json:
        show("circuits", {"folder": str(out), **series.to_dict()}, json)
        return
    show_series(series)
    print_wrote(out)
    if series.end == "max_circuits":
        # The same settings: circuits of other ones are not reused.
        flags = changed_flags(settings.model_dump(), PruneConfig().model_dump())
        flags += [] if corpus is None else ["--corpus", corpus]
        flags += ["--max-circuits", str(2 * most)]
        print_next("prune", model, task, "--exhaust", *flags, "--out", out)
    elif series.circuits:
        print_next("validate", out / series.circuits[0].folder)
    else:
        more = ("--trials", str(2 * settings.trials))
        print_next("prune", model, task, "--exhaust", *more, "--out", out)


def show_series(series: "CircuitSeries") -> None:
    """Print how many circuits with disjoint nodes there are, and their table."""
    unit = loss_unit(series.loss_reduction)
    several = f"{number_of(series.n_circuits, 'circuit')} without a common node reach"
    found = {0: "no circuit reaches", 1: "1 circuit reaches"}.get(series.n_circuits, several)
    print_verdict(
        f"{found} the target of {series.target_loss:g} {unit}; {series.reason()} "
        f"(chance {series.chance:.3f}; lower is better)"
    )
    shown = [*series.circuits, *([series.closest] if series.closest else [])]
    rows = [_row(one.to_dict()) for one in shown]
    show_rows(f"circuits in the order of the search (task losses in {unit})", rows, as_json=False)


def _row(values: dict[str, Any]) -> dict[str, Any]:
    names = {"folder": "circuit", "model": "model without those before", "circuit": "task loss"}
    return {names.get(name, name.removeprefix("circuit_")): one for name, one in values.items()}
