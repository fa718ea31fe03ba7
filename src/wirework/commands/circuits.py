"""Verbs that find circuits, check them and attack models with them."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from wirework import files
from wirework.commands.arguments import Json, Settings, not_resumable, resumable, task_of, tokens_of
from wirework.commands.attack_text import print_attack
from wirework.commands.circuit_series import prune_series
from wirework.commands.circuit_tables import (
    loss_unit,
    on_them_alone,
    print_report,
    print_strongest,
    show_circuits,
)
from wirework.commands.printing import (
    changed_flags,
    print_next,
    print_verdict,
    print_wrote,
    show,
    show_rows,
)
from wirework.config import AcdcConfig, PruneConfig
from wirework.errors import InputError, number_of

if TYPE_CHECKING:
    from wirework.circuits import PathCircuit

_REPORT = "report.json"


def prune(
    model: Path,
    task: str | None = None,
    /,
    *,
    out: Path,
    all: Annotated[bool, Parameter(negative="")] = False,
    full_validation: Annotated[bool, Parameter(negative="")] = False,
    jobs: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    exhaust: Annotated[bool, Parameter(negative="")] = False,
    max_circuits: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    settings: Annotated[PruneConfig, Settings] = PruneConfig(),
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Find circuits, save them and print their sizes and losses.

    Args:
        model: Model or run folder.
        task: Name of a behaviour, a JSONL file of pairs or a function (`my_tasks.py:make_pair`).
        out: Folder for the circuit or circuits; the same command resumes a stopped search.
        all: Find a circuit for every built-in behaviour that the model can do.
        full_validation: Validate as `wirework validate` does, with controls.
        jobs: With --all: behaviours at once.
        exhaust: Find circuits that share no node, one by one.
        max_circuits: With --exhaust: most circuits; 8 unless given.
        corpus: Training text for the means of the nodes, as `--data.corpus` of train, for a model
            outside a run folder.
    """
    if all == (task is not None):
        raise InputError("prune takes either a TASK or --all")
    if jobs > 1 and not all:
        raise InputError("--jobs is for --all: the search for one circuit runs in one process")
    if exhaust and full_validation:
        raise InputError("--exhaust validates no circuit: leave out --full-validation")
    if max_circuits is not None and not exhaust:
        raise InputError("--max-circuits is for --exhaust: prune finds one circuit")
    if exhaust:
        if task is None:
            raise InputError("--exhaust takes one TASK: leave out --all")
        prune_series(model, task, out, settings, corpus, max_circuits, json)
        return
    from wirework.circuits import check_circuit_place, prune_all
    from wirework.circuits import prune as find
    from wirework.circuits import validate as check
    from wirework.model import load
    from wirework.tasks import tasks_for

    search = out.with_name(f"{out.name}.search")
    if task is None:
        files.check_place(out)
    else:
        check_circuit_place(out)
        files.check_place(search)
    loaded = load(model)
    data = None if corpus is None else tokens_of(loaded, corpus)
    if task is None:
        tasks = [task_of(name) for name in tasks_for(loaded)]
        with resumable(out):
            rows = prune_all(
                loaded, tasks, out, settings, data=data, full_validation=full_validation, jobs=jobs
            )
        show_circuits(rows, json)
        if not json:
            reached = [row for row in rows if not row.get("reason")]
            best = min(reached, key=lambda row: row["n_edges"], default=None)
            print_wrote(out)
            print_next(*(("tasks", model) if best is None else ("validate", out / best["task"])))
        return
    pairs = task_of(task)
    with resumable(search):
        circuit = find(loaded, pairs, settings, data=data, search=search)
        circuit.save(out)
        report = check(circuit, loaded, pairs, data=data, short=not full_validation).to_dict()
    sizes = circuit.sizes()
    losses = circuit.losses.model_dump()
    paper = None if circuit.paper_size is None else asdict(circuit.paper_size)
    values: dict[str, Any] = {"reached": circuit.reached, **sizes}
    values["loss_reduction"] = circuit.loss_reduction
    values |= {"losses": losses, "paper_size": paper}
    unit = loss_unit(circuit.loss_reduction)
    if not circuit.reached:
        goal = f"the target of {settings.target_loss:g} nats"
        print(f"warning: nothing reaches {goal}: this is the closest", file=sys.stderr)
    if json:
        show("circuit", {"circuit": str(out), **values, "validation": report}, json)
        return
    does = "reaches" if circuit.reached else "misses"
    print_verdict(
        f"a circuit of {number_of(circuit.n_nodes, 'node')} and "
        f"{number_of(circuit.count_edges(loaded), 'edge')} ({circuit.n_kept_edges} kept) {does} "
        f"the target: task loss "
        f"{circuit.losses.circuit:.3g} {unit} (target {settings.target_loss:g}, chance "
        f"{circuit.losses.chance:.3f}; lower is better)"
    )
    show(f"circuit (task losses in {unit})", values, json)
    print_report(report, title="validation")
    print_wrote(out)
    if circuit.reached:
        print_next("export", out, "-o", f"{out}.html")
    else:
        more = 2 * settings.trials
        print_next("prune", model, task, "--out", out, "--trials", str(more))


def acdc(
    model: Path,
    task: str,
    /,
    *,
    settings: Annotated[AcdcConfig, Parameter(name="*", consume_multiple=True)] = AcdcConfig(),
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Find path edges for each tau.

    Print the number of kept edges and the metrics of their patched run.

    Args:
        model: Model or run folder.
        task: Name of a behaviour, a JSONL file of pairs or a function (`my_tasks.py:make_pair`).
        out: Folder of the circuit, which is replaced; with several taus, of a folder `tau-X` per
            tau.
    """
    from wirework.circuits import acdc_sweep, check_circuit_place, sweep_row
    from wirework.model import load
    from wirework.tasks import accuracy_warning, task_accuracy

    places = [] if out is None else [out]
    if out is not None and len(settings.tau) > 1:
        places = [out / f"tau-{tau:g}" for tau in settings.tau]
    for place in places:
        check_circuit_place(place)
    loaded, pairs = load(model), task_of(task)
    with not_resumable():
        circuits = acdc_sweep(loaded, pairs, settings)
        for circuit, place in zip(circuits, places, strict=False):
            circuit.save(place)
    if (said := accuracy_warning(pairs.name, task_accuracy(loaded, pairs).accuracy)) is not None:
        print(f"warning: {said}", file=sys.stderr)
    rows = [sweep_row(circuit) for circuit in circuits]
    if json:
        show_rows("acdc", rows, json)
        return
    best = min(circuits, key=_by_accuracy_and_size)
    part = best.patching
    print_verdict(
        f"{best.n_path_edges} of {part.n_all} path edges stay at tau {part.tau:g}: "
        f"{on_them_alone(part)}"
    )
    show_rows("acdc (losses and KL in nats; lower is better, as are fewer edges)", rows, json)
    print_strongest(best)
    for place in places:
        print_wrote(place)
    flags = changed_flags(settings.model_dump(exclude={"tau"}), AcdcConfig().model_dump())
    if not best.path_edges:
        tau = f"{min(settings.tau) / 10:g}"
        saved: list[str | Path] = []
        if out is not None:  # a folder of several circuits cannot be replaced by one
            saved = ["--out", out / f"tau-{tau}" if len(places) > 1 else out]
        print_next("acdc", model, task, "--tau", tau, *flags, *saved)
    elif places:
        page = places[circuits.index(best)]
        print_next("export", page, "-o", f"{page}.html")
    else:
        taus = [f"{tau:g}" for tau in settings.tau]
        place = Path("circuits") / f"{pairs.name}-paths"
        print_next("acdc", model, task, "--tau", *taus, *flags, "--out", place)


def _by_accuracy_and_size(circuit: "PathCircuit") -> tuple[bool, int]:
    """Rank circuits that answer as accurately as the model first, then those with fewer edges."""
    part = circuit.patching
    return part.accuracy < part.model_accuracy, circuit.n_path_edges


def validate(
    circuit: Path,
    /,
    *,
    model: Path | None = None,
    task: str | None = None,
    own_task: str | None = None,
    corpus: str | None = None,
    short: Annotated[bool, Parameter(negative="")] = False,
    verdict_only: Annotated[bool, Parameter(negative="")] = False,
    runs: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    out: Path | None = None,
    report: Path | None = None,
    json: Json = False,
) -> None:
    """Print the report on a circuit.

    Args:
        circuit: Circuit folder.
        model: Model or run folder, if it has moved since the circuit was found.
        task: Other pairs to check it on: name, JSONL file or function. Needed if the circuit's own
            task is a function, because code that only a file names is not run.
        own_task: Function of the circuit's own pairs, if --task gives others.
        corpus: Training text, as `--data.corpus` of train, for a model outside a run folder.
        short: Only checks that take seconds: no binarisation, minimality, hypothesis tests or
            searches.
        verdict_only: Only what the verdict needs: the short report, minimality and the searches on
            controls.
        runs: Number of repeated searches; print how often each edge is found again. Not with
            --short.
        out: Folder to save the circuit to, with the share of --runs that found each node and edge;
            it may be the circuit's own. Its page shows the shares.
        report: Folder for `report.json`, the report, and `necessity.png`, the model's task loss
            against the number of ablated nodes of the circuit (not with --short).
    """
    from wirework.circuits import NodeCircuit, check_circuit_place, model_of
    from wirework.circuits import validate as check
    from wirework.model import load

    if report is not None:
        files.check_file(report / _REPORT)
    if out is not None:
        if not runs:
            raise InputError("--out saves how often each edge comes back: give --runs too")
        check_circuit_place(out)
    with not_resumable():
        checked = NodeCircuit.load(circuit)
        loaded = model_of(checked) if model is None else load(model)
        data = None if corpus is None else tokens_of(loaded, corpus)
        pairs = None if task is None else task_of(task)
        circuits_task = None if own_task is None else task_of(own_task)
        result = check(
            checked,
            loaded,
            pairs,
            own_task=circuits_task,
            data=data,
            short=short,
            verdict_only=verdict_only,
            runs=runs,
        )
        if out is not None:
            checked.with_shares(result.stability).save(out)
        written = [] if report is None else _write_report(result.to_dict(), report)
    if json:
        show("validation", result.to_dict(), json)
        return
    print_report(result.to_dict())
    written += [] if out is None else [out]
    if written:
        print_wrote(*written)
    if result.faithful:
        print_next("attack", circuit, "--out", circuit.with_name(f"{circuit.name}-attack"))
    else:
        print_next("export", circuit, "-o", f"{circuit}.html")


def _write_report(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write a validation report and, if it has a curve, its figure; return the paths."""
    from wirework.view import write_necessity_figure

    path = folder / _REPORT
    files.write_json(path, report)
    if "n_ablated" not in report.get("necessity", {}):
        return [path]
    return [path, write_necessity_figure(report, folder / "necessity.png")]


def attack(
    circuit: Path,
    /,
    *,
    out: Path,
    model: Path | None = None,
    task: str | None = None,
    pairs: int = 64,
    json: Json = False,
) -> None:
    """Find attacks, print the worst, write all (`attack.json`) and their curves (`attack.png`).

    Args:
        circuit: Circuit folder.
        out: Folder for both files.
        model: Model or run folder, if it has moved since the circuit was found.
        task: Behaviour of the circuit; needed if it is a function, because code that only a file
            names is not run.
        pairs: Most held-out pairs to choose the worst attack on; up to as many others measure it.
    """
    from wirework.circuits import find_attacks
    from wirework.files import check_file, write_json
    from wirework.model import load
    from wirework.view import write_curves

    result, curves = out / "attack.json", out / "attack.png"
    check_file(result)
    check_file(curves)
    with not_resumable():
        loaded = None if model is None else load(model)
        circuits_task = None if task is None else task_of(task)
        report = find_attacks(circuit, loaded, circuits_task, pairs=pairs)
        write_json(result, report.to_json())
        write_curves(report.to_json(), curves)
    if json:
        show("attack", {**report.summary(), "result": str(result), "curves": str(curves)}, json)
    else:
        print_attack(report)
        print_wrote(result, curves)
        print_next("export", circuit, "-o", f"{circuit}.html")
