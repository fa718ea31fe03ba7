"""Task loss after binarisation against model size (Gao et al. 2025, Fig. 34).

Each circuit is binarised as `validate` does it. The study's folder holds `manifest.json` (the
circuits), `circuits/` (a record for each), `results.json` and `binarise.png`. A stopped call is
resumed; a circuit whose record exists is not binarised again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wirework.circuits import NodeCircuit, model_of
from wirework.circuits.held_out import pairs_of
from wirework.circuits.validation.context import ValidationContext
from wirework.circuits.validation.validate import binarised_losses
from wirework.console import Progress, counted, warn
from wirework.errors import InputError
from wirework.files import (
    check_place,
    is_file,
    names_in,
    path_text,
    read_record,
    sha256,
    write_record,
)
from wirework.leftovers import clear_held
from wirework.locks import locked
from wirework.model import Model
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.summaries import Report
from wirework.view import write_binarise_figure

_MANIFEST = "manifest.json"
_KIND = "binarise"
_NEEDED = {"task": str, "fingerprint": str}
"""Required keys of a circuit's record and their types."""


@dataclass(frozen=True, repr=False)
class BinariseRow(Report):
    """A model and the mean task losses of its circuits, in nats on held-out pairs."""

    model: str
    """Path of the model."""
    n_weights: int
    """Total parameters: entries of all matrices and biases."""
    n_nonzero: int
    """L0: nonzero entries of all matrices and biases."""
    n_circuits: int
    """Circuits that were binarised."""
    circuit: float
    """Mean loss before binarisation."""
    start: float
    """Mean loss after binarisation, before training."""
    loss: float
    """Mean loss after binarisation and training."""
    n_shared: int
    """Tasks for which every model of the study has a circuit."""
    shared_loss: float | None
    """Mean of `loss` over these tasks, which compares models; None if there is no such task."""
    loss_reduction: str = "mean"
    """Whether the losses are means or sums over the two prompts of a pair."""


@dataclass(frozen=True, repr=False)
class BinariseResult(Report):
    """Table of the study and paths of its files."""

    models: tuple[BinariseRow, ...]
    """One per model, by total parameters, then L0."""
    failed: tuple[str, ...]
    """Circuits that could not be binarised, with the reason."""
    results: str
    figure: str


def binarise(
    circuits: Iterable[str | Path], out: str | Path, *, progress: bool = True
) -> BinariseResult:
    """Binarise circuits of several models and compare the task losses with the models' sizes.

    Args:
        circuits: circuit folders, or folders with circuits at any depth, as `prune --all` and
            `study frontier` write them. Each model is loaded from the path saved in its circuit.
        out: the study's folder.
        progress: show progress on standard error.

    Raises:
        InputError: there is no circuit, no circuit can be binarised, two of them are of one task
            in one model, their losses are of two kinds, or the folder cannot be written to, is in
            use or holds other files.

    Source: Gao et al. 2025, App. C, Fig. 34.
    """
    out, folders = Path(out), circuit_folders(circuits)
    check_one_circuit_each(folders)
    _check_out(out)
    with (
        locked(out / "lock", f"study {out}"),
        Progress("study", len(folders), shown=progress, count=counted) as bar,
    ):
        clear_held([out, out / "circuits"])
        names = [path_text(folder) for folder in folders]
        write_record(out / _MANIFEST, {"study": _KIND, "circuits": names})
        records, failed = [], []
        for folder in folders:
            try:
                records.append(_record_of(folder, out))
            except InputError as error:
                failed.append(f"{folder}: {error}")
                warn(f"{failed[-1]}; the study goes on")
            bar.advance()
        if not records:
            raise InputError(f"no circuit can be binarised; {failed[0]}")
        rows = rows_of(records)
        results = {
            "study": _KIND,
            "models": [row.to_dict() for row in rows],
            "circuits": records,
            "failed": failed,
        }
        write_record(out / "results.json", results)
        figure = write_binarise_figure(out)
    return BinariseResult(tuple(rows), tuple(failed), str(out / "results.json"), str(figure))


def circuit_folders(places: Iterable[str | Path]) -> list[Path]:
    """Return the circuit folders among places and below them, each once, in order.

    Raises:
        InputError: a place does not exist or has no circuit.
    """
    folders: dict[Path, None] = {}
    for place in map(Path, places):
        held = [place] if is_file(place / "circuit.json") else []
        held = held or sorted(path.parent for path in place.rglob("circuit.json"))
        if not held:
            raise InputError(f"no circuit at {place} or below it: no circuit.json")
        folders.update(dict.fromkeys(held))
    if not folders:
        raise InputError("no circuit was given: give circuit folders or folders with circuits")
    return list(folders)


def check_one_circuit_each(folders: Iterable[Path]) -> None:
    """Check that no two circuits are of one task in one model: their mean would mix targets.

    Raises:
        InputError: two are.
    """
    seen: dict[tuple[str, str], Path] = {}
    for folder in folders:
        try:
            document = NodeCircuit.load(folder).document
        except InputError:
            continue  # reported later, when this circuit is binarised
        other = seen.setdefault((document.model.fingerprint, document.task.name), folder)
        if other != folder:
            raise InputError(
                f"{other} and {folder} are circuits of one task in one model: give one of them, "
                "such as those of one target loss"
            )


def rows_of(records: Sequence[dict[str, Any]]) -> list[BinariseRow]:
    """Return a row for each model of the records of circuits.

    Raises:
        InputError: some losses are means over the two prompts of a pair, others are sums.
    """
    if len({record.get("loss_reduction", "mean") for record in records}) > 1:
        raise InputError(
            "task losses are means over the two prompts of a pair in some circuits and sums in "
            "others: give circuits of one kind (loss_reduction)"
        )
    by_model: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_model.setdefault(record["fingerprint"], []).append(record)
    shared = set.intersection(
        *({record["task"] for record in group} for group in by_model.values())
    )
    rows = [_row(group, shared) for group in by_model.values()]
    return sorted(rows, key=lambda row: (row.n_weights, row.n_nonzero, row.model))


def _row(records: Sequence[dict[str, Any]], shared: set[str]) -> BinariseRow:
    """Return the row of the records of one model."""
    of_shared = [record["loss"] for record in records if record["task"] in shared]
    first = records[0]
    return BinariseRow(
        model=first["model"],
        n_weights=first["n_weights"],
        n_nonzero=first["n_nonzero"],
        n_circuits=len(records),
        circuit=_mean([record["circuit"] for record in records]),
        start=_mean([record["start"] for record in records]),
        loss=_mean([record["loss"] for record in records]),
        n_shared=len(shared),
        shared_loss=_mean(of_shared) if of_shared else None,
        loss_reduction=first.get("loss_reduction", "mean"),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _record_of(folder: Path, out: Path) -> dict[str, Any]:
    """Return the record of one circuit, read from the study's folder or made now."""
    digest = sha256(folder / "circuit.json")
    path = out / "circuits" / f"{digest[:16]}.json"
    if is_file(path):
        return read_record(path, _NEEDED)
    circuit = NodeCircuit.load(folder)
    model = model_of(circuit)
    record = {"folder": path_text(folder) or "circuit", **_binarised(circuit, model)}
    write_record(path, record)
    return record


@unchanged_weights()
def _binarised(circuit: NodeCircuit, model: Model) -> dict[str, Any]:
    """Return the model's size and the losses of a circuit before and after binarisation."""
    pairs = pairs_of(circuit.document, model, None)
    losses = binarised_losses(ValidationContext.of(circuit, model, pairs, None))
    n_weights, n_nonzero = model.transformer.weight_counts()
    return {
        "task": pairs.full_task.name,
        "model": path_text(model.path) or "model",
        "fingerprint": model.fingerprint,
        "n_weights": n_weights,
        "n_nonzero": n_nonzero,
        "n_nodes": circuit.n_nodes,
        "n_edges": circuit.n_edges,
        "loss_reduction": circuit.loss_reduction,
        **asdict(losses),
    }


def _check_out(out: Path) -> None:
    check_place(out / _MANIFEST)
    names_there = names_in(out) - {"lock"}
    earlier = read_record(out / _MANIFEST, unsigned=True) if _MANIFEST in names_there else {}
    if names_there and earlier.get("study") != _KIND:
        raise InputError(f"{out} holds files but is no study of binarisation: choose another --out")
