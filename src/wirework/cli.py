"""The `wirework` command: one verb, one function, no logic.

Settings come from flags over a YAML file (`--config`) over defaults. Results go to standard output,
progress to standard error; an input that cannot be used is one line and exit code 2. Nothing heavy
is imported before a verb runs, so that `--help` answers at once.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import App, Parameter
from cyclopts.config import Yaml
from pydantic import ValidationError

from wirework import __version__
from wirework.config import (
    DataConfig,
    PruneConfig,
    TrainConfig,
    first_problem,
    problem,
    read_yaml,
)
from wirework.errors import InputError

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model
    from wirework.tasks import Task

app = App(
    name="wirework",
    help="Train language models whose wiring people can read, and read it.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` says what was saved, and which signal it was
)
app.meta.suppress_keyboard_interrupt = False
convert = App(name="convert", help="Read other people's model formats.", help_format="plaintext")
app.command(convert)

Json = Annotated[bool, Parameter(negative="", help="Print the result as one JSON object.")]
Settings = Parameter(name="*")


@app.command
def train(
    *,
    settings: Annotated[TrainConfig, Settings] = TrainConfig(),
    resume: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Train a transformer (Gao et al. 2025, sec. 2.1, App. A.2).

    Example: `wirework train --config recipes/demo.yaml --name mine --steps 500`

    Args:
        resume: Continue the run of this name from its newest whole checkpoint, bit for bit.
    """
    from wirework.training import train as run_training

    run = run_training(settings, resume=resume)
    show("training", {"run": str(run.path), **run.metrics}, json)


@app.command
def tasks(
    model: Path | None = None,
    /,
    *,
    task: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    json: Json = False,
) -> None:
    """List behaviours; with a MODEL, whether each is valid for it, its answers, loss and accuracy.

    Example: `wirework tasks runs/demo`

    Args:
        model: Model or run folder.
        task: Names or JSONL files; all built-in ones if none is given.
    """
    from wirework.tasks import BUILT_IN, all_reports, check_names

    names = task or tuple(BUILT_IN)
    check_names(names)
    if model is None:
        rows = [{"name": name} for name in names]
    else:
        from wirework.model import load

        rows = all_reports(load(model), names)
    show_rows("tasks", rows, json)


@app.command
def prune(
    model: Path,
    task: str,
    /,
    *,
    out: Path,
    settings: Annotated[PruneConfig, Settings] = PruneConfig(),
    corpus: str | None = None,
    json: Json = False,
) -> None:
    """Find the smallest circuit of MODEL for TASK (Gao et al. 2025, App. A.5).

    Example: `wirework prune runs/demo single_double_quote --out circuits/quote`

    Args:
        model: Model or run folder.
        task: Name of a behaviour, or a JSONL file of pairs.
        out: Folder to write the circuit to.
        corpus: Text to measure the means of the nodes on, as `--data.corpus` of train; needed for a
            model that lies in no run.
    """
    from wirework.circuits import check_place
    from wirework.circuits import prune as find
    from wirework.model import load

    check_place(out)
    loaded = load(model)
    data = None if corpus is None else _tokens(loaded, corpus)
    circuit = find(loaded, _task(task), settings, data=data)
    circuit.save(out)
    sizes = {name: getattr(circuit, name) for name in ("n_nodes", "n_edges", "n_io_edges")}
    losses = circuit.losses.model_dump()
    show("circuit", {"circuit": str(out), **sizes, "losses": losses}, json)


@app.command
def validate(circuit: Path, /, *, model: Path | None = None, json: Json = False) -> None:
    """Check that a circuit is sufficient and necessary (Gao et al. 2025, Fig. 32).

    Losses are in nats; chance is ln 2 = 0.693.

    Example: `wirework validate circuits/quote`

    Args:
        circuit: Circuit folder.
        model: Model or run folder, if it is no longer where the circuit was found.
    """
    from wirework.circuits import Circuit
    from wirework.circuits import validate as check
    from wirework.model import load

    show("validation", check(Circuit.load(circuit), None if model is None else load(model)), json)


@app.command
def view(
    circuit: Path, /, *, port: int = 0, browser: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Serve a circuit's page on this machine (127.0.0.1 only) until Ctrl-C.

    Example: `wirework view circuits/quote --port 8000`

    Args:
        circuit: Circuit folder.
        port: Port to listen on; 0 takes a free one.
        browser: Open the page in the default browser.
    """
    from wirework.view import serve

    serve(circuit, port=port, open_browser=browser)


@app.command
def export(
    circuit: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=("--out", "-o"))],
    png: Path | None = None,
) -> None:
    """Write a circuit as one self-contained HTML page that opens from disk without a network.

    Example: `wirework export circuits/quote -o quote.html`

    Args:
        circuit: Circuit folder.
        out: The page.
        png: Also draw a picture, a `.png` file.
    """
    from wirework.files import check_place
    from wirework.view import load_page_data, write_figure, write_page

    if png is not None:
        if png.suffix.lower() != ".png":
            raise InputError(f"--png {png}: the picture's name must end in .png")
        check_place(png)
    print(write_page(circuit, out))
    if png is not None:
        print(write_figure(load_page_data(circuit), png))


@convert.command
def openai(source: Path, out: Path, /) -> None:
    """Convert a released weight-sparse model (`beeg_config.json`, `final_model.pt`) to our format.

    Example: `wirework convert openai csp_yolo1 models/yolo1`

    Args:
        source: Folder with both files.
        out: Model folder to write.
    """
    from wirework.interop import load_openai

    model = load_openai(source)
    print(model.save(out))
    if model.tokenizer is None:
        print(f"warning: {source} has no tokeniser: the model takes no text", file=sys.stderr)


@app.command
def demo(
    *,
    out: Path = Path("runs"),
    recipe: Path | None = None,
    json: Json = False,
) -> None:
    """Go from the Python source on this machine to a circuit and its page, in under 10 minutes.

    Run it again after a kill: it goes on where it stopped.

    Example: `wirework demo --out runs --json`

    Args:
        out: Folder for the runs, the circuit, the page and the picture.
        recipe: Settings of the sparse model's training; the shipped recipe if left out.
    """
    from wirework.demo import demo as run_demo

    show("demo", run_demo(out, recipe), json)


@app.command
def doctor(*, json: Json = False) -> None:
    """Say what this machine has and what of it wirework will use.

    Example: `wirework doctor`
    """
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


def _tokens(model: "Model", corpus: str) -> "Tokens":
    from wirework.data import prepare
    from wirework.tasks import tokenizer_of

    tokenizer_of(model)
    tokenizer = Path(str(model.path)) / "tokenizer.json"
    return prepare(DataConfig.of({"corpus": corpus, "tokenizer": tokenizer})).train


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Path | None = None,
) -> None:
    """Run a verb.

    Args:
        config: YAML file of settings; flags win over it.
    """
    if config is not None:
        _check_settings_file(config, tokens[0] if tokens else "")
        app.config = (Yaml(config, must_exist=True, use_commands_as_keys=False),)
    app(tokens, exit_on_error=False, print_error=False)


def _check_settings_file(config: Path, verb: str) -> None:
    """Refuse a file that is no YAML, or that names a setting which the verb does not have."""
    owners: dict[str, type[TrainConfig] | type[PruneConfig]]
    owners = {"train": TrainConfig, "prune": PruneConfig}
    values = read_yaml(config)
    if verb not in owners:
        return
    owner = owners[verb]
    options = {"resume", "json", "out", "corpus"} - set(owner.model_fields)
    settings = {name: value for name, value in values.items() if name not in options}
    try:
        owner.model_validate(settings)
    except ValidationError as error:
        unknown = [one for one in error.errors() if one["type"] == "extra_forbidden"]
        if unknown:  # flags may mend the rest
            raise InputError(f"{config}: {problem(owner, unknown[0])}") from None


def main() -> None:
    """Run the command line; exit 2 with one line where what was given cannot be used."""
    # After each parallel pass torch's threads spin for milliseconds, on cores that the threads of
    # the next AbsTopK need. Their library reads this when torch is loaded (benchmarks/README.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    try:
        app.meta(exit_on_error=False, print_error=False)
    except (InputError, cyclopts.CycloptsError) as error:
        _fail(_one_line(error))
    except OSError as error:
        _fail(f"{error.filename or 'system'}: {error.strerror or error}")
    except KeyboardInterrupt as stop:  # training's own says which signal and what was saved
        if message := str(stop):
            print(f"wirework: {message}", file=sys.stderr)
        sys.exit(getattr(stop, "exit_code", 130))


def _one_line(error: Exception) -> str:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        owner = TrainConfig if cause.title.endswith("TrainConfig") else PruneConfig
        return first_problem(owner, cause)
    return " ".join(str(error).split())


def _fail(message: str) -> None:
    print(f"wirework: {message}", file=sys.stderr)
    sys.exit(2)
