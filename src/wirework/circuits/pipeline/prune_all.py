"""Prune the circuits of many tasks of one model; results are saved one by one and resumable.

In the output folder, task NAME has its circuit in `NAME` and its search in `NAME.search`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from wirework.circuits.circuit import Circuit, check_circuit_place
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.node_circuit import NodeCircuit, paper_entries
from wirework.circuits.pipeline.task_table import judged, markdown, with_kept_edges
from wirework.circuits.pruning.feasibility import check_chance
from wirework.circuits.pruning.prune import PruningRun, ignore_progress
from wirework.circuits.validation.validate import validate
from wirework.circuits.validation.validation_report import MISSED, WORDS
from wirework.config import PruneConfig
from wirework.console import Progress, say
from wirework.errors import InputError, number_of
from wirework.files import is_file, read_record, write_record, write_text
from wirework.parallel import parallel_map
from wirework.renamed_names import old_arguments
from wirework.tasks import Task, evaluate, load_task, tokenizer_of
from wirework.tasks.task_loss import reduced
from wirework.tasks.task_split import fingerprint, split_fingerprint

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_Row = dict[str, Any]

SIZES = ("n_nodes", "n_edges", "n_kept_edges", "n_io_edges")
"""Sizes in a row; None without a circuit."""

_PAIRS_TO_GUESS = 32
_NO_SEARCH = 0.02
"""Work of a task without a search, in searches."""


@old_arguments(whole="full_validation")
def prune_all(
    model: "Model | str | Path",
    tasks: Sequence[Task | str | Path],
    out: str | Path,
    config: PruneConfig | None = None,
    *,
    data: "Tokens | None" = None,
    full_validation: bool = False,
    jobs: int = 1,
    progress: bool = True,
) -> list[_Row]:
    """Find, save and validate the smallest circuit of each task.

    An existing circuit of the same model, task, text and settings is reused. Tasks that the model
    cannot do, or that do not fit it, are skipped.

    Args:
        model: a model with a tokeniser; a path is loaded.
        tasks: tasks with different names, or what `ww.task` takes.
        out: folder for the circuits and their searches.
        config: settings; None for the defaults.
        data: as in `prune`.
        full_validation: also run the searched controls, which take longer than the search.
        jobs: number of tasks in parallel on a CPU, each in its own process with a copy of the model
            and a share of the threads. A script with more than one job needs
            `if __name__ == "__main__":`. Another number of threads may round to another circuit.
        progress: show one progress bar over all tasks and each result on standard error.

    Returns:
        A row per task: `task`, `reached` (false only with `config.allow_unreached`), the sizes
        `n_nodes`, `n_edges`, `n_kept_edges` and `n_io_edges`, with `config.embedding_edges` also
        `n_embedding_edges` and `n_token_groups`, those and the losses at plain
        bisection (`paper_nodes`, `paper_edges`, `paper_loss`, ...; null if the circuit has no
        `paper_size`), the circuit's losses (nats), and from the report of `validate`, which is
        written to `NAME.report.json`, the losses on held-out and rephrased pairs and under
        resampling, the controls in words, the levels of the verdict (`sufficient`, `specific`,
        `robust` and `minimal`: met, failed or open) and the verdict. A skipped task has a `reason`
        instead. All rows so far are saved in `results.json` and, as a table, in `results.md`.

    Raises:
        InputError: two tasks share a name, `out` cannot be written to, `jobs` is below 1, there is
            no text to measure means or take values from, the target is above chance, or a search is
            damaged or in use.
    """
    from wirework.model import load

    config, out = config or PruneConfig(), Path(out)
    check_chance(config)
    model, loaded = load(model), [load_task(task) for task in tasks]
    tokenizer_of(model)
    names = [task.name for task in loaded]
    check_distinct(names)
    for name in names:
        check_circuit_place(out / name)
    rows: list[_Row] = []
    work = expected_work(model, loaded, config)

    def count(_done: float, _total: float) -> str:
        return f"{len(rows)}/{len(loaded)}"

    with Progress("tasks", sum(work), shown=progress, count=count) as bar:
        baseline = AblationBaseline.of(model, data, config)
        prune_task = partial(_prune_task, model, out, config, baseline, data, full_validation)
        finished_rows = (
            _in_turn(prune_task, loaded, work, bar)
            if jobs == 1
            else parallel_map(prune_task, loaded, jobs)
        )
        for row in finished_rows:
            rows.append(row)
            _write(out, model, config, rows, last=len(rows) == len(loaded))
            bar.update(sum(work[: len(rows)]))
            if progress:
                say(_line(row))
    return rows


def expected_work(model: "Model", tasks: Sequence[Task], config: PruneConfig) -> list[float]:
    """Return the expected work per task, for the time left: 1 for a search, little without one.

    The model is measured on a few pairs of each task; a task that it does not perform gets no
    search and takes next to no time.
    """
    work = []
    for task in tasks:
        report = evaluate(model, task.take(task.pairs[:_PAIRS_TO_GUESS]))
        loss = None if report.loss is None else reduced(report.loss, config.loss_reduction)
        misses = loss is None or loss > config.target_loss
        work.append(_NO_SEARCH if misses and not config.allow_unreached else 1.0)
    return work


def check_distinct(names: Sequence[str]) -> None:
    """Check that tasks have different names.

    Raises:
        InputError: two tasks share a name.
    """
    if len(set(names)) < len(names):
        raise InputError(f"tasks must have different names, got {', '.join(names)}")


def _in_turn(
    prune_task: Callable[[Task, Callable[[float], None]], _Row],
    tasks: Sequence[Task],
    work: Sequence[float],
    bar: Progress,
) -> Iterator[_Row]:
    """Yield the row of each task in turn, with progress within each task.

    The bar is first told of progress when a search takes its first steps: the preparation before
    it says nothing about the rate.
    """
    for number, (task, amount) in enumerate(zip(tasks, work, strict=True)):
        before = sum(work[:number])

        def on_progress(share: float, before: float = before, amount: float = amount) -> None:
            bar.update(before + amount * share)

        bar.note = task.name
        row = prune_task(task, on_progress)
        if bar.done <= before:  # no search: the circuit existed or the task was skipped
            bar.skip(amount)
        yield row


def _summary(circuit: NodeCircuit, model: "Model") -> dict[str, Any]:
    """Return a circuit's task, sizes and losses (nats) as one flat row."""
    losses = circuit.losses.model_dump(exclude={"chance"})
    sizes = circuit.sizes() | {"n_edges": circuit.count_edges(model)}
    about = {"task": circuit.document.task.name, "reached": circuit.reached}
    about["loss_reduction"] = circuit.loss_reduction
    if circuit.document.model.trained_on_tasks:
        about["trained_on_tasks"] = True
    return {**about, **sizes, **paper_entries(circuit.paper_size), **losses}


def _prune_task(
    model: "Model",
    out: Path,
    config: PruneConfig,
    baseline: AblationBaseline,
    data: "Tokens | None",
    full_validation: bool,
    task: Task,
    on_progress: Callable[[float], None] = ignore_progress,
) -> _Row:
    folder = out / task.name
    circuit = finished_circuit(folder, model, task, config, baseline)
    if circuit is None:
        search = out / f"{task.name}.search"
        try:
            pruning_run = PruningRun.of(model, task, config, baseline, search)
        except InputError as error:
            nothing = dict.fromkeys(SIZES)
            return {"task": task.name, **nothing, "reason": str(error)}
        circuit = pruning_run.run(on_progress)
        circuit.save(folder)
    report = _report(circuit, model, task, data, full_validation, out / f"{task.name}.report.json")
    said = WORDS[report["verdict"]["faithful"]] if circuit.reached else MISSED
    return _summary(circuit, model) | judged(report) | {"verdict": said}


def _write(
    out: Path, model: "Model", config: PruneConfig, rows: list[dict[str, Any]], last: bool
) -> None:
    """Save the rows so far, unless the file already has them (and, before the end, more).

    A finished table of an earlier version that only lacks columns is left as it is.
    """
    about = {"model": model.fingerprint, "settings": config.recorded()}
    path = out / "results.json"
    held = read_record(path, unsigned=True) if is_file(path) else {"rows": []}
    if not isinstance(held.get("rows"), list):
        raise InputError(f"{path} is damaged or no table of circuits: delete it")
    further = [] if last else held["rows"][len(rows) :]
    merged = rows + (with_kept_edges(further) if _are_rows(further) else further)
    if held | {"rows": None} != about | {"rows": None} or not _has(held["rows"], merged):
        write_record(path, about | {"rows": rows})
        write_text(out / "results.md", markdown(rows))


def _has(held: Sequence[_Row], rows: Sequence[_Row]) -> bool:
    """Return whether held rows say the same as these in all columns that they have."""
    if len(held) != len(rows) or not _are_rows(held):
        return False
    recorded = (
        {name: value for name, value in row.items() if value is not None}
        for row in with_kept_edges(held)
    )
    return all(old.items() <= new.items() for old, new in zip(recorded, rows, strict=True))


def _are_rows(values: Sequence[Any]) -> bool:
    return all(isinstance(row, dict) for row in values)


def _report(
    circuit: NodeCircuit,
    model: "Model",
    task: Task,
    data: "Tokens | None",
    full_validation: bool,
    path: Path,
) -> dict[str, Any]:
    """Return the saved validation report of a circuit, or validate it and save the report."""
    if is_file(path):
        report = read_record(path, {"circuit": str, "whole": bool})
        if report["circuit"] == _identity(circuit) and report["whole"] >= full_validation:
            return report
    about = {"circuit": _identity(circuit), "whole": full_validation}
    short = not full_validation
    validated = validate(circuit, model, task, data=data, short=short, progress=None)
    report = about | validated.to_dict()
    write_record(path, report)
    return report


def _identity(circuit: NodeCircuit) -> str:
    """Return SHA-256 over what circuit.json holds, as hex."""
    return hashlib.sha256(json.dumps(circuit.document.to_json()).encode()).hexdigest()


def finished_circuit(
    folder: Path,
    model: "Model",
    task: Task,
    config: PruneConfig,
    baseline: AblationBaseline,
    excluded: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> NodeCircuit | None:
    """Return the circuit in a folder if the same search would find it; None otherwise.

    Args:
        folder: folder of a circuit; it may be missing.
        model: model of the search.
        task: task of the search.
        config: settings of the search.
        baseline: ablation values of the search.
        excluded: site to channels of the nodes that the search excludes.
    """
    if not is_file(folder / "circuit.json"):
        return None
    circuit = Circuit.load(folder)
    about = circuit.document
    same = (
        about.model.fingerprint == model.fingerprint
        and about.task.fingerprint == fingerprint(task)
        and about.provenance.means == baseline.origin
        and (about.provenance.excluded or {}) == excluded
        and _settings(about.provenance.settings) == config
        and about.task.used_fingerprint in (None, _split(model, task, config))
    )
    return circuit if same and isinstance(circuit, NodeCircuit) else None


def _split(model: "Model", task: Task, config: PruneConfig) -> str:
    """Return SHA-256 over the pairs that a search uses, of a task that fits the model."""
    fitted = task.fitted(tokenizer_of(model), model.config.n_ctx)
    return split_fingerprint(fitted, config.eval_pairs, config.seed)


def _settings(settings: dict[str, Any]) -> PruneConfig | None:
    """Return the settings of a circuit's search, missing ones at their default; None if invalid."""
    try:
        return PruneConfig.of(settings)
    except InputError:
        return None


def _line(row: dict[str, Any]) -> str:
    if row.get("reason"):
        return f"{row['task']}: {row['reason']}"
    return (
        f"{row['task']}: {number_of(row['n_nodes'], 'node')}, "
        f"{number_of(row['n_edges'], 'edge')} ({row['n_kept_edges']} kept), task loss "
        f"{row['circuit']:.3f} (model {row['model']:.3f}, without {row['without_circuit']:.3f})"
        f"{'' if row['reached'] else f': {MISSED}'}"
    )
