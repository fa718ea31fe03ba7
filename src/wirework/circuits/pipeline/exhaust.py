"""Redundancy of a task: a series of circuits with disjoint nodes, until none reaches the target.

After each circuit its nodes are excluded from the search: they are ablated like nodes outside a
circuit, in every mask. In the output folder, circuit N is in `N` and its search in `N.search`; a
last circuit that misses the target is in `closest`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wirework.circuits.circuit import check_circuit_place
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.pipeline.prune_all import finished_circuit
from wirework.circuits.pruning.feasibility import check_chance
from wirework.circuits.pruning.prune import PruningRun
from wirework.config import LossReduction, PruneConfig
from wirework.console import Progress, say
from wirework.errors import InputError, number_of
from wirework.files import check_file, is_file, read_record, write_record
from wirework.summaries import Report, absent
from wirework.tasks import Task, load_task, tokenizer_of

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

MAX_CIRCUITS = 8
"""Number of circuits after which the series ends, unless another is given."""

_RESULTS = "results.json"
_CLOSEST = "closest"

End = Literal["without_circuits", "closest", "no_nodes", "max_circuits"]
"""Why a series ended: the model without all circuits misses the target; the last search misses it;
the last circuit has no nodes to exclude, or no node is left; the maximum is reached."""


@dataclass(frozen=True, repr=False, kw_only=True)
class SeriesCircuit(Report):
    """One circuit of a series: its size and losses (nats)."""

    folder: str
    """Name of its folder."""
    n_nodes: int
    n_edges: int
    """Nonzero weights between its nodes."""
    n_kept_edges: int
    n_embedding_edges: int | None = absent()
    """Embedding edges that it keeps; absent if none were pruned."""
    n_token_groups: int | None = absent()
    """Token groups that these read; absent if none were pruned."""
    model: float
    """Loss of the model without the nodes of all circuits before it, on judging pairs."""
    circuit: float
    """Its own loss on judging pairs."""
    circuit_held_out: float | None
    """The same on held-out pairs."""


@dataclass(frozen=True, repr=False)
class CircuitSeries(Report):
    """Circuits of one task that have no node in common, in the order in which they were found."""

    task: str
    target_loss: float
    loss_reduction: LossReduction
    chance: float
    n_circuits: int
    """Number of circuits that reach the target."""
    n_nodes: int
    """Number of nodes of all of them."""
    without_circuits: float
    """Loss of the model without the nodes of all of them, in nats, on judging pairs."""
    end: End | None
    """Why there are no more; None while a series is not finished."""
    circuits: tuple[SeriesCircuit, ...]
    closest: SeriesCircuit | None = None
    """The last circuit if it misses the target; None if there is none."""

    def reason(self) -> str:
        """Return in words why the series ended."""
        if not self.circuits and self.closest is not None:
            return f"the closest one has {self.closest.circuit:.3f}"
        nodes = "its nodes" if self.n_circuits == 1 else "the nodes of all of them"
        left = f"without {nodes} the model's task loss is {self.without_circuits:.3f}"
        if self.closest is not None:
            return f"{left}; the closest circuit of the other nodes has {self.closest.circuit:.3f}"
        if self.end == "without_circuits":
            return f"{left}, which misses the target"
        if self.end == "max_circuits":
            return f"{left}; the search ended at max_circuits (--max-circuits)"
        if self.circuits[-1].n_nodes == 0:
            return "the last circuit has no node: what is never ablated is enough for the task"
        return f"{left}; no node is left"


def exhaust_circuits(
    model: "Model | str | Path",
    task: Task | str | Path,
    out: str | Path,
    config: PruneConfig | None = None,
    *,
    max_circuits: int = MAX_CIRCUITS,
    data: "Tokens | None" = None,
    progress: bool = True,
) -> CircuitSeries:
    """Find circuits of a task with pairwise disjoint nodes until none reaches the target.

    The first circuit is that of `prune`. Each further one is found in the model without the nodes
    of those before it. The same call resumes a series; finished circuits are reused.

    Args:
        model: a model with a tokeniser; a path is loaded.
        task: a task, or what `ww.task` takes.
        out: folder for the circuits, their searches and `results.json`.
        config: settings of each search; None for the defaults.
        max_circuits: number of circuits after which the series ends.
        data: as in `prune`.
        progress: show a progress bar and each circuit on standard error.

    Returns:
        The circuits' sizes and losses and why the series ended, as in `results.json`. With
        `config.allow_unreached` a search is made even if the model without the circuits misses the
        target.

    Raises:
        InputError: as in `prune`; `max_circuits` is below 1, or `out` cannot be written to.
    """
    from wirework.model import load

    if max_circuits < 1:
        raise InputError(f"max_circuits must be 1 or more, got {max_circuits}")
    config, out = config or PruneConfig(), Path(out)
    check_chance(config)
    model, task = load(model), load_task(task)
    tokenizer_of(model)
    check_series_place(out, max_circuits)
    series = _Series(model, task, config, AblationBaseline.of(model, data, config), out, progress)
    for found in series.found(max_circuits):
        about = {"model": model.fingerprint, "settings": config.recorded()}
        write_record(out / _RESULTS, about | {"max_circuits": max_circuits} | found.to_dict())
    _name_other_circuits(out, found)
    return found


def check_series_place(out: Path, max_circuits: int) -> None:
    """Check, before the searches, that the circuits of a series can be saved below a folder.

    Raises:
        InputError: it has other content, or cannot be written.
    """
    results = out / _RESULTS
    check_file(results)
    if is_file(out / "circuit.json"):
        raise InputError(f"{out} is a circuit: give another folder for a series of circuits")
    if is_file(results) and "without_circuits" not in read_record(results, unsigned=True):
        raise InputError(f"{results} is of other circuits: give another folder for a series")
    for name in (*map(str, range(1, max_circuits + 1)), _CLOSEST):
        check_circuit_place(out / name)


@dataclass(frozen=True)
class _Series:
    """The searches of one series."""

    model: "Model"
    task: Task
    config: PruneConfig
    baseline: AblationBaseline
    out: Path
    progress: bool

    def found(self, max_circuits: int) -> Iterator[CircuitSeries]:
        """Yield the series after each circuit; the last one is finished."""
        circuits: list[SeriesCircuit] = []
        pruning_run = PruningRun.of(self.model, self.task, self.config, self.baseline)
        model_loss, end, closest = pruning_run.model_loss(), None, None
        while end is None:
            circuit = self._circuit(pruning_run, len(circuits) + 1)
            size = self._size(circuit, len(circuits) + 1, model_loss)
            if circuit.reached:
                circuits.append(size)
                pruning_run = pruning_run.excluding(circuit.channels)
                model_loss = pruning_run.model_loss()
                end = self._end(pruning_run, circuit, model_loss, len(circuits) == max_circuits)
            else:
                closest, end = size, "closest"
            yield CircuitSeries(
                task=self.task.name,
                target_loss=self.config.target_loss,
                loss_reduction=circuit.loss_reduction,
                chance=circuit.losses.chance,
                n_circuits=len(circuits),
                n_nodes=sum(one.n_nodes for one in circuits),
                without_circuits=model_loss,
                end=end,
                circuits=tuple(circuits),
                closest=closest,
            )

    def _end(
        self, pruning_run: PruningRun, circuit: NodeCircuit, model_loss: float, is_last: bool
    ) -> End | None:
        """Return why no search follows a circuit that reaches the target, or None."""
        if not circuit.nodes or pruning_run.ablation.size == 0:
            return "no_nodes"
        if not (model_loss <= self.config.target_loss or self.config.allow_unreached):
            return "without_circuits"
        return "max_circuits" if is_last else None

    def _circuit(self, pruning_run: PruningRun, number: int) -> NodeCircuit:
        """Return the saved circuit of a search, or make the search and save its circuit."""
        for name in (str(number), _CLOSEST):
            saved = finished_circuit(
                self.out / name,
                self.model,
                self.task,
                self.config,
                self.baseline,
                pruning_run.excluded,
            )
            if saved is not None and saved.reached == (name != _CLOSEST):
                return saved
        search = self.out / f"{number}.search"
        with Progress(f"circuit {number} of {self.task.name}", shown=self.progress) as bar:
            circuit = replace(pruning_run, search=search).run(bar.update)
        circuit.save(self.out / (str(number) if circuit.reached else _CLOSEST))
        if self.progress:
            say(_line(circuit, number))
        return circuit

    def _size(self, circuit: NodeCircuit, number: int, model_loss: float) -> SeriesCircuit:
        embedding = circuit.embedding_sizes()
        return SeriesCircuit(
            folder=str(number) if circuit.reached else _CLOSEST,
            n_nodes=circuit.n_nodes,
            n_edges=circuit.count_edges(self.model),
            n_kept_edges=circuit.n_kept_edges,
            n_embedding_edges=embedding.get("n_embedding_edges"),
            n_token_groups=embedding.get("n_token_groups"),
            model=model_loss,
            circuit=circuit.losses.circuit,
            circuit_held_out=circuit.losses.circuit_held_out,
        )


def _line(circuit: NodeCircuit, number: int) -> str:
    sizes = f"{number_of(circuit.n_nodes, 'node')}, {number_of(circuit.n_kept_edges, 'kept edge')}"
    missed = "" if circuit.reached else ": misses the target"
    return f"circuit {number}: {sizes}, task loss {circuit.losses.circuit:.3f}{missed}"


def _name_other_circuits(out: Path, series: CircuitSeries) -> None:
    """Say which circuit in the folder is of an earlier series, with other settings."""
    further = [str(series.n_circuits + 1), *([] if series.closest else [_CLOSEST])]
    for name in further:
        if is_file(out / name / "circuit.json"):
            say(f"{out / name} is not part of these circuits: it is of an earlier call")
