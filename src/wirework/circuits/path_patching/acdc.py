"""ACDC: find the path edges of a behaviour, for one threshold tau or several."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wirework.circuit_format import PathEdge
from wirework.circuits.circuit import Circuit
from wirework.circuits.path_patching.build import Setting, assemble_paths
from wirework.circuits.path_patching.search import search
from wirework.circuits.path_patching.state import Edge, PatchedState
from wirework.config import AcdcConfig, PathAblation, PathMetric
from wirework.console import Progress, counted
from wirework.errors import InputError, quoted
from wirework.files import JSON_BYTES, read_whole
from wirework.tasks import Task, load_task

if TYPE_CHECKING:
    from wirework.model import Model

Order = Iterable[PathEdge | tuple[str, str]]


def acdc(
    model: "Model | str | Path",
    task: Task | str | Path,
    tau: float = 0.01,
    order: Order | None = None,
    *,
    metric: PathMetric = "kl",
    ablation: PathAblation = "corrupted",
    symmetric: bool = False,
    pairs: int = 16,
    keep_unreachable: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Find the path edges between heads and MLPs that a task needs.

    Edges are tested one by one, in order; an edge is removed if the metric then increases by less
    than tau. Kept edges without effect on the result are dropped. Deterministic: the same model,
    task and order give the same circuit.

    Args:
        model: a model with a tokeniser; a path is loaded.
        task: a task, or what `ww.task` takes. The prompts of a pair must have equal length; other
            pairs of generated tasks are dropped.
        tau: minimum increase of the metric for which an edge is kept.
        order: all path edges as (source, target) names in test order; None for the default, from
            the last to the first (docs/acdc.md). The result depends on it.
        metric, ablation, symmetric, pairs, keep_unreachable, seed: as in `AcdcConfig`.
        progress: show a progress bar on standard error.

    Returns:
        A head-level circuit: `path_edges`, each with its `effect`.

    Raises:
        InputError: tau or a setting out of range, the task does not fit the model, its residual
            stream is not a sum, or `order` does not contain each edge once.

    Source: Conmy et al. 2023 (arXiv 2304.14997).
    """
    config = AcdcConfig.of({
        "tau": (tau,), "metric": metric, "ablation": ablation, "symmetric": symmetric,
        "pairs": pairs, "keep_unreachable": keep_unreachable, "seed": seed,
    })  # fmt: skip
    return acdc_sweep(model, task, config, order, progress=progress)[0]


def acdc_sweep(
    model: "Model | str | Path",
    task: Task | str | Path,
    config: AcdcConfig | None = None,
    order: Order | None = None,
    *,
    progress: bool = True,
) -> list[Circuit]:
    """Run `acdc` for every tau of the settings, on the same prompts.

    Args:
        model, task, progress: as in `acdc`.
        config: settings; None for the defaults.
        order: as in `acdc`; overrides the file named in the settings.

    Returns:
        One circuit per tau, in the order of `config.tau`.
    """
    from wirework.model import load

    config, task = config or AcdcConfig(), load_task(task)
    if order is None and config.order is not None:
        order = read_order(config.order)
    with Progress(f"acdc {task.name}", None, shown=progress, count=counted) as bar:
        setting = Setting.of(load(model), task, config)
        graph = setting.patched.graph
        edges = graph.edges if order is None else graph.ordered(order)
        bar.total = len(edges) * len(config.tau)
        return _sweep(setting, edges, bar.update)


def sweep_row(circuit: Circuit | str | Path) -> dict[str, float | int | None]:
    """Return the table row of a head-level circuit: its size and the metrics of its patched run."""
    circuit = Circuit.load(circuit)
    part = circuit.document.patching
    assert part is not None
    return {
        "tau": part.tau,
        "n_pairs": circuit.document.task.n_pairs,
        "n_path_edges": circuit.n_path_edges,
        "of": part.n_all,
        "n_unreachable": part.n_unreachable,
        "kl": part.kl,
        "logit_difference": part.logit_difference,
        "accuracy": part.accuracy,
        "task_loss": circuit.task_loss,
        "model_logit_difference": part.model_logit_difference,
        "model_accuracy": part.model_accuracy,
    }


def _sweep(
    setting: Setting, edges: Sequence[Edge], on_progress: Callable[[int], None]
) -> list[Circuit]:
    graph, config = setting.patched.graph, setting.config
    growth: dict[Edge, float] = {}
    circuits = []
    for number, tau in enumerate(config.tau):
        result = search(
            PatchedState(setting.patched, config.metric),
            edges,
            tau,
            guess=growth,
            on_progress=partial(_report, on_progress, number * len(edges)),
        )
        growth = result.growth
        kept = [
            graph.named(edge).model_copy(update={"effect": growth[edge]}) for edge in result.kept
        ]
        settings = {**config.recorded(), "tau": tau}
        circuits.append(assemble_paths(setting, kept, finder="acdc", settings=settings, tau=tau))
    return circuits


def _report(on_progress: Callable[[int], None], before: int, decided: int) -> None:
    on_progress(before + decided)


def read_order(path: str | Path) -> list[tuple[str, str]]:
    """Read an order of edges from a file, one `SOURCE -> TARGET` per line.

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
