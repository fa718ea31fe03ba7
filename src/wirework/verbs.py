"""What each verb of the `wirework` command does: read its arguments, call the library, print.

No logic lives here, and nothing heavy is imported before a verb runs. `cli.py` holds the menu.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from wirework.config import (
    AcdcConfig,
    DataConfig,
    ExplainConfig,
    FrontierConfig,
    MeasureConfig,
    PruneConfig,
    SaeConfig,
    SelfAblationConfig,
    TrainConfig,
)
from wirework.errors import InputError

if TYPE_CHECKING:
    from wirework.data import Prepared, Tokens
    from wirework.model import Model
    from wirework.tasks import Task

Json = Annotated[bool, Parameter(negative="", help="Print the result as one JSON object.")]
Settings = Parameter(name="*")

_SHOWN = (
    "task", "n_nodes", "n_edges", "model", "circuit", "held_out", "resampled", "without_circuit",
    "verdict",
)  # fmt: skip
"""What of a circuit's row fits a terminal; `results.md` and `--json` have all of it."""


def train(
    *,
    settings: Annotated[TrainConfig, Settings] = TrainConfig(),
    resume: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Train, and print where the run lies and its last measures.

    Args:
        resume: Continue the run of this name from its newest whole checkpoint, bit for bit.
    """
    from wirework.training import train as run_training

    run = run_training(settings, resume=resume)
    show("training", {"run": str(run.path), **run.metrics}, json)


def tasks(
    model: Path | None = None,
    /,
    *,
    task: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    show: str | None = None,
    json: Json = False,
) -> None:
    """Print the behaviours, or how a model does at each, or examples of one.

    Args:
        model: Model or run folder.
        task: Names, JSONL files or functions (`my_tasks.py:make_pair`); if none is given, all
            built-in ones, and with a model the twenty on Python and what else fits it.
        show: Name, JSONL file or function of one behaviour: print a few of its pairs instead.
    """
    if show is not None:
        if model is not None or task:
            raise InputError("--show prints pairs as they are: give no MODEL and no --task")
        _show_pairs(show, json)
        return
    from wirework.tasks import KNOWN, all_reports, check_names

    check_names(task)
    if model is None:
        rows = [{"name": name} for name in task or KNOWN]
    else:
        from wirework.model import load

        rows = all_reports(load(model), task or None)
    show_rows("tasks", rows, json)


def prune(
    model: Path,
    task: str | None = None,
    /,
    *,
    out: Path,
    all: Annotated[bool, Parameter(negative="")] = False,
    whole: Annotated[bool, Parameter(negative="")] = False,
    jobs: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    settings: Annotated[PruneConfig, Settings] = PruneConfig(),
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Find circuits, save them and print their sizes and losses.

    Args:
        model: Model or run folder.
        task: Name of a behaviour, a JSONL file of pairs or a function (`my_tasks.py:make_pair`).
        out: Folder to write the circuit to, with its search in a folder beside it, which the same
            command goes on with after a stop; with --all, the folder of all of them.
        all: Find a circuit for every built-in behaviour that the model can do.
        whole: Validate as `wirework validate` does, with controls, not in the short form.
        jobs: With --all: how many behaviours to work on at once, each in a process of its own.
        corpus: Text to measure the means of the nodes on, as `--data.corpus` of train; needed for a
            model that lies in no run.
    """
    if all == (task is not None):
        raise InputError("prune takes either a TASK or --all")
    if jobs > 1 and not all:
        raise InputError("--jobs is for --all: the search for one circuit runs in one process")
    from wirework.circuits import check_place, prune_all
    from wirework.circuits import prune as find
    from wirework.circuits import validate as check
    from wirework.model import load
    from wirework.tasks import tasks_for

    if task is not None:
        check_place(out)
    loaded = load(model)
    data = None if corpus is None else _tokens(loaded, corpus)
    if task is None:
        tasks = [_task(name) for name in tasks_for(loaded)]
        with _going_on(out):
            rows = prune_all(loaded, tasks, out, settings, data=data, whole=whole, jobs=jobs)
        _show_all(rows, json)
        return
    search = out.with_name(f"{out.name}.search")
    pairs = _task(task)
    with _going_on(search):
        circuit = find(loaded, pairs, settings, data=data, search=search)
        circuit.save(out)
        report = check(circuit, loaded, pairs, data=data, short=not whole)
    sizes = {name: getattr(circuit, name) for name in ("n_nodes", "n_edges", "n_io_edges")}
    losses = circuit.losses.model_dump()
    values = {"circuit": str(out), "reached": circuit.reached, **sizes, "losses": losses}
    if not circuit.reached:
        goal = f"the target of {settings.target_loss:g} nats"
        print(f"warning: nothing reaches {goal}: this is the closest", file=sys.stderr)
    if json:
        show("circuit", {**values, "validation": report}, json)
    else:
        show("circuit", values, json)
        _print_report(report)


def acdc(
    model: Path,
    task: str,
    /,
    *,
    settings: Annotated[AcdcConfig, Settings] = AcdcConfig(),
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Find path edges for each tau and print how many stay and what they come to.

    Args:
        model: Model or run folder.
        task: Name of a behaviour, a JSONL file of pairs or a function (`my_tasks.py:make_pair`).
        out: Folder to write the circuit to; with several --tau, of a folder `tau-X` for each.
    """
    from wirework.circuits import acdc_sweep, check_place, sweep_row
    from wirework.model import load

    places = [] if out is None else [out]
    if out is not None and len(settings.tau) > 1:
        places = [out / f"tau-{tau:g}" for tau in settings.tau]
    for place in places:
        check_place(place)
    circuits = acdc_sweep(load(model), _task(task), settings)
    for circuit, place in zip(circuits, places, strict=False):
        circuit.save(place)
    show_rows("acdc", [sweep_row(circuit) for circuit in circuits], json)


def validate(
    circuit: Path,
    /,
    *,
    model: Path | None = None,
    task: str | None = None,
    corpus: str | None = None,
    short: Annotated[bool, Parameter(negative="")] = False,
    runs: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Print the report on a circuit.

    Args:
        circuit: Circuit folder.
        model: Model or run folder, if it is no longer where the circuit was found.
        task: Other pairs to check it on: name, JSONL file or function; its own if left out.
        corpus: Training text, as `--data.corpus` of train, for a model that lies in no run.
        short: Only what takes seconds: no binarisation, minimality, hypothesis tests or searches.
        runs: Repeat the search so many times and say how often each edge comes back; not with
            --short.
        out: Also save the circuit there, each node and edge with the share of --runs that found
            it, which its page then shows; the circuit's own folder adds them to it.
    """
    from wirework.circuits import Circuit, check_place
    from wirework.circuits import validate as check
    from wirework.model import load

    if out is not None:
        if not runs:
            raise InputError("--out saves how often each edge comes back: give --runs too")
        check_place(out)
    found = Circuit.load(circuit)
    where = model or found.document.model.path
    if where is None:
        raise InputError("the circuit does not say where its model lies: give --model")
    loaded = load(where)
    data = None if corpus is None else _tokens(loaded, corpus)
    pairs = None if task is None else _task(task)
    report = check(found, loaded, pairs, data=data, short=short, runs=runs)
    if out is not None:
        found.with_shares(report["stability"]).save(out)
    if json:
        show("validation", report, json)
    else:
        _print_report(report)


def attack(
    circuit: Path,
    /,
    *,
    out: Path,
    model: Path | None = None,
    pairs: int = 64,
    json: Json = False,
) -> None:
    """Write what was found, `attack.json`, and its curves, `attack.png`; print the worst of it.

    Args:
        circuit: Circuit folder.
        out: Folder for both files.
        model: Model or run folder, if it is no longer where the circuit was found.
        pairs: Most pairs to try attacks on, of those that the circuit's search never saw.
    """
    from wirework.circuits import Circuit, find_distractors
    from wirework.files import check_place, write_json
    from wirework.model import load
    from wirework.view import write_curves

    result, curves = out / "attack.json", out / "attack.png"
    check_place(result)
    given = None if model is None else load(model)
    found = find_distractors(Circuit.load(circuit), given, pairs=pairs)
    write_json(result, found.to_json())
    write_curves(found.to_json(), curves)
    show("attack", {**found.summary(), "result": str(result), "curves": str(curves)}, json)


def sae(
    model: Path,
    /,
    *,
    out: Path,
    settings: Annotated[SaeConfig, Settings] = SaeConfig(),
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Train a sparse autoencoder, save it and print what it is worth on held-out text.

    Args:
        model: Model or run folder.
        out: Folder to write it to, in sae-lens' format; one that is there is replaced.
        corpus: Text, as `--data.corpus` of train; needed for a model that lies in no run.
    """
    from dataclasses import asdict

    from wirework.measures import check_out, measure_sae, save_sae
    from wirework.model import load

    check_out(out)
    loaded = load(model)
    data = None if corpus is None else _prepared(loaded, corpus)
    trained, quality = measure_sae(loaded, settings, data)
    save_sae(trained, out, quality, settings)
    show("sparse autoencoder", {"sae": str(out), **asdict(quality)}, json)


def explain(
    model: Path,
    /,
    *,
    out: Path | None = None,
    estimate_only: Annotated[bool, Parameter(negative="")] = False,
    settings: Annotated[ExplainConfig, Settings] = ExplainConfig(),
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Explain neurons, write a file for each and print the scores.

    Args:
        model: Model or run folder.
        out: Folder of the results, which the same command goes on with after a stop.
        estimate_only: Print what the language model would be asked, and ask nothing.
        corpus: Text instead of that which the run was trained on, as `--data.corpus` of train;
            needed for a model that lies in no run.
    """
    from wirework.measures import explain_neurons
    from wirework.measures.explain import estimate_cost
    from wirework.model import load

    if (out is None) != estimate_only:
        raise InputError("explain takes either --out or --estimate-only")
    loaded = load(model)
    text = None if corpus is None else _prepared(loaded, corpus)
    if out is None:
        show("estimate", estimate_cost(loaded, settings, text=text), json)
        return
    with _going_on(out):
        found = explain_neurons(loaded, settings, text=text, out=out)
    for one in found.failed:
        print(f"warning: {one['neuron']}: {one['reason']}", file=sys.stderr)
    result = {"result": str(out), **found.summary()}
    if json:
        show("explain", result, json)
    else:
        scores = result.pop("scores")
        show("explain", result, json)
        show_rows("scores", [{"score": name, **values} for name, values in scores.items()], json)


def measure(
    *models: Path,
    settings: Annotated[MeasureConfig, Settings] = MeasureConfig(),
    out: Path | None = None,
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Measure models and print their numbers, a row for each.

    Args:
        models: Model or run folders.
        out: Folder for measures.json, measures.csv and measures.png.
        corpus: Text, as `--data.corpus` of train; needed for a model that lies in no run.
    """
    from wirework.measures import measure as measure_one
    from wirework.measures import reasons
    from wirework.measures.files import check_report_place, write_reports
    from wirework.model import load
    from wirework.view import write_measures_figure

    if not models:
        raise InputError("measure takes at least one MODEL")
    if out is not None:
        check_report_place(out)
    loaded = {str(path): load(path) for path in models}
    reports, measured = {}, False
    for name, model in loaded.items():
        data = None if corpus is None else _prepared(model, corpus)
        reports[name] = measure_one(model, config=settings, data=data)
        missing = reasons(reports[name])
        for instrument, reason in missing.items():
            print(f"warning: {name}: {instrument}: {reason}", file=sys.stderr)
        measured = measured or len(missing) < len(settings.which)
        if out is not None and measured:  # after each, so that a stop loses none
            write_reports(reports, out)
    if not measured:
        raise InputError(f"nothing was measured: {reason}")
    if out is not None:
        write_measures_figure(out)
    if json:
        show("measure", reports, json)
    else:
        rows = [{"model": name, **report["headline"]} for name, report in reports.items()]
        show_rows("measures", rows, json)


def view(
    circuit: Path, /, *, port: int = 0, browser: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Serve a circuit's page until Ctrl-C.

    Args:
        circuit: Circuit folder.
        port: Port to listen on; 0 takes a free one.
        browser: Open the page in the default browser.
    """
    from wirework.view import serve

    serve(circuit, port=port, open_browser=browser)


def export(
    circuit: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    png: Path | None = None,
) -> None:
    """Write the page of a circuit or of explained neurons, a picture if asked; print their paths.

    Args:
        circuit: Circuit folder, or what `explain` wrote.
        out: The page.
        png: Also draw a picture of the circuit, a `.png` file.
    """
    from wirework.files import check_place
    from wirework.view import load_page_data, write_figure, write_neuron_page, write_page

    if (circuit / "neurons").is_dir():
        if png is not None:
            raise InputError(f"--png draws circuits: {circuit} holds explained neurons")
        print(write_neuron_page(circuit, out))
        return
    if png is not None:
        if png.suffix.lower() != ".png":
            raise InputError(f"--png {png}: the picture's name must end in .png")
        check_place(png)
    print(write_page(circuit, out))
    if png is not None:
        print(write_figure(load_page_data(circuit), png))


def self_ablating(source: Path, out: Path, /) -> None:
    """Save a released self-ablating model, gates included, in our format and print its path.

    Args:
        source: Folder with one .pt and config.json or config.yaml, or the .pt itself.
        out: Model folder to write.
    """
    from wirework.interop import load_self_ablating

    _save_converted(load_self_ablating(source), source, out)


def huggingface(source: str, out: Path, /) -> None:
    """Save a GPT-2 or GPT-Neo of Hugging Face in our format and print its path.

    Args:
        source: Folder that save_pretrained wrote, or a name on the hub.
        out: Model folder to write.
    """
    from wirework.interop import load_huggingface

    _save_converted(load_huggingface(source), source, out)


def to_huggingface(model: Path, out: Path, /) -> None:
    """Save a model of GPT-Neo's parts for transformers and print its path.

    Args:
        model: Run or model folder.
        out: Folder to write.
    """
    from wirework.interop import save_huggingface
    from wirework.model import load

    print(save_huggingface(load(model), out))


def openai(source: Path, out: Path, /) -> None:
    """Save a released weight-sparse model in our format and print its path.

    Args:
        source: Folder with both files.
        out: Model folder to write.
    """
    from wirework.interop import load_openai

    _save_converted(load_openai(source), source, out)


def demo(
    *,
    out: Path = Path("runs"),
    recipe: Path | None = None,
    json: Json = False,
) -> None:
    """Run the demo and print its table.

    Args:
        out: Folder for the runs, the circuit, the page and the picture.
        recipe: Settings of the sparse model's training; the shipped recipe if left out.
    """
    from wirework.demo import demo as run_demo

    show("demo", run_demo(out, recipe), json)


def frontier(
    *,
    out: Path,
    settings: Annotated[
        FrontierConfig, Parameter(name="*", consume_multiple=True)
    ] = FrontierConfig(),
    json: Json = False,
) -> None:
    """Run or go on with the study, draw its figures and print a line per model.

    Args:
        out: Folder of the study, which the same command goes on with after a stop.
    """
    from wirework.studies import frontier as run_study

    result = run_study(settings, out)
    if json:
        show("frontier", result, json)
    else:
        show_rows("models", result.pop("cells"), json)
        show("frontier", result, json)


def self_ablation(
    *,
    out: Path,
    jobs: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    settings: Annotated[
        SelfAblationConfig, Parameter(name="*", consume_multiple=True)
    ] = SelfAblationConfig(),
    json: Json = False,
) -> None:
    """Run or go on with the study, draw its figure and print its table and what it found.

    Args:
        out: Folder of the study, which the same command goes on with after a stop.
        jobs: How many models to work on at once, on a CPU, each with its share of the threads.
    """
    from wirework.studies import self_ablation as run_study
    from wirework.studies.ablation_table import MEASURES, shown_cell

    with _going_on(out):
        result = run_study(settings, out, jobs=jobs)
    if json:
        show("self-ablation", result, json)
        return
    rows = [
        {"ablation": row["level"] or "none", "k": row["k"]}
        | {title: shown_cell(row[name]) for name, title in MEASURES.items()}
        for row in result.pop("rows")
    ]
    show_rows("mean ± standard error over seeds (the paper's)", rows, json)
    show_rows("claims", result.pop("claims"), json)
    show("self-ablation", result, json)


def finders(
    model: Path,
    /,
    *,
    out: Path,
    task: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    which: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    target: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = (),
    settings: Annotated[PruneConfig, Settings] = PruneConfig(),
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Run or go on with the study, draw its figure and print a line per finder and target.

    Args:
        model: Model or run folder.
        out: Folder of the study, which the same command goes on with after a stop.
        task: Names, JSONL files or functions; all built-in ones if none is given.
        which: Ways to find a circuit; all if none is given.
        target: Target losses in nats; 0.5, 0.3, 0.15 and 0.05 if none is given.
        corpus: Training text, as `--data.corpus` of train, for a model that lies in no run.
    """
    from wirework.model import load
    from wirework.studies import finders as run_study
    from wirework.studies.finders import FINDERS, TARGETS
    from wirework.tasks import BUILT_IN

    loaded = load(model)
    with _going_on(out):
        result = run_study(
            loaded,
            [_task(name) for name in task or tuple(BUILT_IN)],
            out,
            settings,
            which=which or FINDERS,
            targets=target or TARGETS,
            data=None if corpus is None else _tokens(loaded, corpus),
        )
    if json:
        show("finders", result, json)
    else:
        show_rows("finders", result.pop("rows"), json)
        show("finders", result, json)


@contextmanager
def _going_on(kept: Path) -> Iterator[None]:
    """Say where what was done is kept if a signal ends the block."""
    from wirework.training.signals import stopping

    said = f"stopped; the same command goes on from what was saved in {kept}"
    with stopping() as stop, stop.at_once(said):
        yield


def doctor(*, json: Json = False) -> None:
    """Print what this machine has and what of it wirework will use."""
    from wirework.doctor import examine

    show("doctor", examine(), json)


def show(title: str, values: dict[str, Any], as_json: bool) -> None:
    """Print a result on standard output: a two-column table, or one line of JSON."""
    if as_json:
        print(json.dumps(values, allow_nan=False))
    else:
        _print_table(title, ["", ""], [[name, _cell(value)] for name, value in values.items()])


def show_rows(title: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows of equal columns on standard output: a table, or one line of JSON."""
    if as_json:
        print(json.dumps({title: rows}, allow_nan=False))
    else:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        _print_table(title, columns, [[_cell(row.get(c)) for c in columns] for row in rows])


def _show_pairs(name: str, as_json: bool) -> None:
    from wirework.tasks import examples, readable

    task = _task(name)
    print(json.dumps(examples(task)) if as_json else readable(task))


def _show_all(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the circuits of many tasks, then a line for each task that was passed over."""
    if as_json:
        show_rows("circuits", rows, as_json)
        return
    found = [{name: row[name] for name in _SHOWN} for row in rows if not row.get("reason")]
    if found:
        show_rows("circuits", found, as_json)
    for row in rows:
        if row.get("reason"):
            print(f"{row['task']}: {row['reason']}")


def _print_report(report: dict[str, Any]) -> None:
    """Print a validation: a line for each number, then the verdict in words."""
    from wirework.circuits.verdict import WORDS

    names = ("task", "target_loss", "n_nodes", "n_edges")
    rows = [[name, _cell(report[name])] for name in names]
    for part, values in report.items():
        if part not in (*names, "controls", "verdict"):
            rows += [[f"{part}: {name}", _cell(value)] for name, value in _plain(values)]
    for name, control in report["controls"].items():
        rows.append([f"control: {name}", _cell(_gist(control))])
    _print_table("validation", ["", ""], rows)
    print(f"verdict: {WORDS[report['verdict']['faithful']]}")
    for reason in report["verdict"]["reasons"]:
        print(f"- {reason}")


def _gist(control: dict[str, Any]) -> dict[str, Any]:
    """Return the few numbers of a control that a reader compares; `--json` has all of it."""
    if "verdict" not in control:
        return control
    loss = {"held_out loss": control["held_out"]["circuit"]}
    return {name: control[name] for name in ("task", "reached", "n_nodes", "n_edges")} | loss


def _plain(values: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Return the numbers and words of a nested report by dotted names; long lists are left out."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _plain(value, f"{before}{name}.")
        elif not isinstance(value, list | tuple):
            found.append((f"{before}{name}", value))
    return found


def _print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a token may look like markup
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return "  ".join(_cell(inner) for inner in value)
    return str(value)


def _task(name: str) -> "Task":
    from wirework.tasks import load_task

    return load_task(name)


def _save_converted(model: "Model", source: str | Path, out: Path) -> None:
    print(model.save(out))
    if model.tokenizer is None:
        print(f"warning: {source} has no tokeniser: the model takes no text", file=sys.stderr)


def _tokens(model: "Model", corpus: str) -> "Tokens":
    return _prepared(model, corpus).train


def _prepared(model: "Model", corpus: str) -> "Prepared":
    from wirework.data import prepare
    from wirework.tasks import tokenizer_of

    tokenizer_of(model)
    tokenizer = Path(str(model.path)) / "tokenizer.json"
    return prepare(DataConfig.of({"corpus": corpus, "tokenizer": tokenizer}))
