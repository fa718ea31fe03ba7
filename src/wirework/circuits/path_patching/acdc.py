"""ACDC: find the path edges of a behaviour, for one threshold tau or several."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework.circuit_format import PathEdge
from wirework.circuits.circuit import Circuit
from wirework.circuits.path_patching.path_assembly import assemble_paths
from wirework.circuits.path_patching.path_circuit import PathCircuit
from wirework.circuits.path_patching.search import search
from wirework.circuits.path_patching.setting import Setting
from wirework.circuits.path_patching.state import EdgeNumbers, PatchedState
from wirework.config import AcdcConfig, PathOrder
from wirework.console import Progress, counted
from wirework.errors import InputError, quoted
from wirework.files import JSON_BYTES, read_whole
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.tasks import Task, load_task

if TYPE_CHECKING:
    from wirework.model import Model

Order = PathOrder | Iterable[PathEdge | tuple[str, str]]
"""Order in which ACDC tests path edges: its name, or all path edges of the model."""


@unchanged_weights()
def acdc(
    model: "Model | str | Path",
    task: Task | str | Path,
    config: AcdcConfig | float | None = None,
    order: Order | None = None,
    *,
    progress: bool = True,
    **overrides: Any,
) -> PathCircuit:
    """Find the path edges between heads and MLPs that a task needs.

    Edges are tested one by one, in order. An edge is removed if the metric then increases by less
    than tau. Kept edges without effect are dropped at the end. The search is deterministic: the
    same model, task and order give the same circuit.

    Args:
        model: a model with a tokeniser; a path is loaded.
        task: a task, or what `ww.task` takes. The two prompts of a pair must have the same number
            of tokens. Other pairs are left out of a generated task and are an error in a task file.
        config: settings; None for the defaults. A number is taken as `tau`, the smallest increase
            of the metric for which an edge is kept.
        order: `conmy` or `auto_circuit` (docs/acdc.md), or all path edges, as (source, target)
            names, in the order in which to test them. None for the order of the settings, by
            default `conmy`. The circuit depends on the order.
        progress: show a progress bar on standard error.
        **overrides: settings of `AcdcConfig` by name, with `tau` a single number; they win over
            `config`.

    Returns:
        A `PathCircuit`: `path_edges`, each with its `effect`.

    Raises:
        InputError: a setting is unknown or out of range, the settings have several values of tau,
            the task does not fit the model or lacks the corruption, the model's residual stream is
            not a sum, or the order does not contain each edge of the model once.

    Source: Conmy et al. 2023 (arXiv 2304.14997).
    """
    if isinstance(config, int | float):
        config, overrides = None, {"tau": config, **overrides}
    if isinstance(overrides.get("tau"), int | float):
        overrides["tau"] = (overrides["tau"],)
    settings = AcdcConfig.overridden(config, overrides)
    if len(settings.tau) > 1:
        raise InputError(f"acdc takes one tau, got {settings.tau}: `acdc_sweep` takes several")
    return acdc_sweep(model, task, settings, order, progress=progress)[0]


@unchanged_weights()
def acdc_sweep(
    model: "Model | str | Path",
    task: Task | str | Path,
    config: AcdcConfig | None = None,
    order: Order | None = None,
    *,
    progress: bool = True,
    **overrides: Any,
) -> list[PathCircuit]:
    """Run `acdc` for every tau of the settings, on the same prompts.

    Args:
        model: a model with a tokeniser; a path is loaded.
        task: as in `acdc`.
        config: settings; None for the defaults.
        order: as in `acdc`; wins over the order of the settings.
        progress: show a progress bar on standard error.
        **overrides: settings of `AcdcConfig` by name; they win over `config`.

    Returns:
        One circuit per tau, in the order of `config.tau`.

    Raises:
        InputError: as for `acdc`, except that several values of tau are allowed.
    """
    from wirework.model import load

    if isinstance(order, str):
        overrides, order = {**overrides, "order": order}, None
    config, task = AcdcConfig.overridden(config, overrides), load_task(task)
    if order is None and isinstance(config.order, Path):
        order = read_order(config.order)
    with Progress(f"acdc {task.name}", None, shown=progress, count=counted) as bar:
        setting = Setting.of(load(model), task, config)
        config = setting.config
        graph = setting.patched.graph
        if order is not None:
            edges = graph.ordered(order)
        elif config.order == "auto_circuit":
            edges = graph.auto_circuit_edges(config.seed)
        else:
            edges = graph.edges
        bar.total = len(edges) * len(config.tau)
        return _sweep(setting, edges, bar.update)


def sweep_row(circuit: Circuit | str | Path) -> dict[str, float | int | None]:
    """Return the table row of a path circuit: its size and the metrics of its patched run.

    Args:
        circuit: a path circuit; a path is loaded.

    Returns:
        Column name to value; a value that the finder does not have is None.

    Raises:
        InputError: the circuit is a `NodeCircuit`.
    """
    circuit = PathCircuit.load(circuit)
    patching = circuit.patching
    return {
        "tau": patching.tau,
        "n_pairs": circuit.document.task.n_pairs,
        "n_path_edges": circuit.n_path_edges,
        "of": patching.n_all,
        "n_unreachable": patching.n_unreachable,
        "kl": patching.kl,
        "logit_difference": patching.logit_difference,
        "accuracy": patching.accuracy,
        "task_loss": circuit.task_loss,
        "model_logit_difference": patching.model_logit_difference,
        "model_accuracy": patching.model_accuracy,
    }


def _sweep(
    setting: Setting, edges: Sequence[EdgeNumbers], on_progress: Callable[[int], None]
) -> list[PathCircuit]:
    """Search once per tau; the increases of one search are the guesses of the next."""
    graph, config = setting.patched.graph, setting.config
    increases: dict[EdgeNumbers, float] = {}
    circuits = []
    for number, tau in enumerate(config.tau):
        result = search(
            PatchedState(setting.patched, config.metric),
            edges,
            tau,
            guess=increases,
            on_progress=partial(_report, on_progress, number * len(edges)),
        )
        increases = result.increases
        kept = [
            graph.named(edge).model_copy(update={"effect": increases[edge]}) for edge in result.kept
        ]
        settings = {**config.recorded(), "tau": tau}
        circuits.append(assemble_paths(setting, kept, finder="acdc", settings=settings, tau=tau))
    return circuits


def _report(on_progress: Callable[[int], None], before: int, decided: int) -> None:
    on_progress(before + decided)


def read_order(path: str | Path) -> list[tuple[str, str]]:
    """Read an order of edges from a file, one `SOURCE -> TARGET` per line.

    Args:
        path: the file; empty lines are skipped.

    Returns:
        (source, target) names, in the order of the lines.

    Raises:
        InputError: the file is missing, or a line has another form.
    """
    order = []
    for number, line in enumerate(read_whole(Path(path), JSON_BYTES).splitlines(), 1):
        source, arrow, target = (part.strip() for part in line.partition("->"))
        if line.strip() and not (source and arrow and target):
            raise InputError(
                f"{path}, line {number}: expected `SOURCE -> TARGET`, got {quoted(line)}"
            )
        if line.strip():
            order.append((source, target))
    return order
