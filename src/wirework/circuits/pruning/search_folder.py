"""The folder of a search: what is searched, and the best masks so far.

optuna's study of the trials is in the same folder (hyperparameter_search.py).
Shapes: G gates.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors.torch import save
from torch import Tensor

from wirework.circuits.pruning.hyperparameter_search import n_finished
from wirework.config import PruneConfig
from wirework.errors import DamagedError, InputError, number_of
from wirework.files import (
    check_place,
    is_file,
    tensors_checksum,
    write_bytes,
    write_json,
)
from wirework.leftovers import clear_held, clear_leftovers
from wirework.locks import locked
from wirework.tasks import Task
from wirework.tasks.task_split import Parts, fingerprint, used_fingerprint
from wirework.tensor_files import read_header, read_tensors

if TYPE_CHECKING:
    from wirework.model import Model

_BEST = "best.safetensors"
_ABOUT = "search.json"
_NAME = re.compile(r"[0-9a-f]{12}")
"""Names of search folders."""


class Candidate(NamedTuple):
    """Scores that rank the gates (a trial's tau) and the size of the circuit that they give."""

    edges: int
    nodes: int
    tau: Tensor
    """(G,), higher is more important."""
    finder: str = "learned"
    """Origin of the scores, as `PruneConfig.finder`."""


def open_search(
    parent: Path,
    model: "Model",
    task: Task,
    parts: Parts,
    config: PruneConfig,
    origin: str,
    excluded: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Path:
    """Return the folder of a search below `parent`; it is created if missing.

    Its name is a hash of model, task, settings, ablation baseline and excluded nodes, so that a
    folder belongs to one search; for pairs with templates, on which the split depends, also of the
    split. The number of trials, finalists and extra rankings is not part of the hash, nor are
    embedding edges, which are pruned after the trials.

    Args:
        parent: folder with the searches for this circuit.
        model: the model.
        task: the task with all pairs.
        parts: its split.
        config: settings of the search.
        origin: the `origin` of the `AblationBaseline`.
        excluded: site to channels of the nodes that the search excludes.

    Raises:
        InputError: it cannot be written to.
    """
    about = _description(model, task, parts, config, origin, excluded)
    folder = parent / _name_of(about)
    check_place(folder)
    _remove_empty(parent)
    write_json(folder / _ABOUT, about)
    return folder


@contextmanager
def lock_folder(folder: Path | None) -> Iterator[None]:
    """Lock the folder of a search against other processes inside a `with` block.

    Args:
        folder: the folder; None for a search in memory, which needs no lock.

    Raises:
        InputError: another process uses the folder.
    """
    if folder is None:
        yield
        return
    with locked(folder / "lock", f"the search in {folder}"):
        clear_held([folder])
        yield


def trained_candidates(
    parent: Path, model: "Model", task: Task, parts: Parts, config: PruneConfig, origin: str
) -> list[Candidate]:
    """Return the best masks that a search has saved, smallest first; nothing is written.

    Args: as `open_search`.

    Returns:
        An empty list without such a search.

    Raises:
        InputError: the file is damaged.
    """
    about = _description(model, task, parts, config, origin, {})
    return read_candidates(parent / _name_of(about))


def _description(
    model: "Model",
    task: Task,
    parts: Parts,
    config: PruneConfig,
    origin: str,
    excluded: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Return what a search depends on, as JSON values."""
    settings = config.recorded(exclude={"trials", "finalists", "also", "embedding_edges"})
    about = {"model": model.fingerprint, "task": fingerprint(task), "means": origin, **settings}
    if any(pair.template is not None for pair in task.pairs):
        about["split"] = used_fingerprint(parts)
    if excluded:
        about["excluded"] = {site: list(channels) for site, channels in excluded.items()}
    return about


def _name_of(about: Mapping[str, Any]) -> str:
    """Return the name of the folder of a search."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def _remove_empty(parent: Path) -> None:
    """Remove empty folders of searches that were killed at their start."""
    for path in parent.glob("*"):
        if _NAME.fullmatch(path.name):
            clear_leftovers(path / _ABOUT)
            with suppress(OSError):  # it is not empty
                path.rmdir()


def write_candidates(folder: Path, best: list[Candidate]) -> None:
    """Save the best masks so far, atomically."""
    named = {f"{number}": candidate for number, candidate in enumerate(best)}
    tensors = {name: candidate.tau.cpu().contiguous() for name, candidate in named.items()}
    sizes = {name: f"{candidate.edges} {candidate.nodes}" for name, candidate in named.items()}
    sums = {"sha256": tensors_checksum(tensors, sizes)}
    write_bytes(folder / _BEST, save(tensors, {**sizes, **sums}))


def read_candidates(folder: Path) -> list[Candidate]:
    """Read the candidates that `write_candidates` saved; an empty list without a file.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / _BEST
    if not is_file(path):
        return []
    sizes = read_header(path, f"delete {folder}").metadata
    expected = sizes.pop("sha256", None)
    taus = read_tensors(path, f"delete {folder}")
    if expected != tensors_checksum(taus, sizes):
        raise DamagedError(f"{path} is damaged: it does not match its checksum: delete {folder}")
    return [_candidate(sizes[name], taus[name]) for name in sorted(sizes, key=int)]


def kept_best(folder: Path, finalists: int) -> list[Candidate]:
    """Read the best masks of a search to resume, and check that none is missing.

    Args:
        folder: folder of the search.
        finalists: number of trials that are needed.

    Raises:
        InputError: the file is damaged, or has fewer masks than needed and trained.
    """
    best, n_trials = read_candidates(folder), n_finished(folder)
    if len(best) < min(finalists, n_trials):
        kept = f"{len(best)} of its {number_of(n_trials, 'trial')}"
        raise InputError(
            f"the search in {folder} kept the masks of {kept}, and finalists={finalists} asks for "
            f"more: {f'ask for {len(best)} or ' if best else ''}delete {folder} to search anew"
        )
    return best


def merged(best: Iterable[Candidate], more: Iterable[Candidate]) -> list[Candidate]:
    """Merge two lists of candidates, smallest first, without duplicates.

    Duplicates occur when a round was interrupted after its masks were saved and is trained again.
    """
    unique: list[Candidate] = []
    for candidate in sorted([*best, *more], key=lambda found: (found.edges, found.nodes)):
        tau = candidate.tau
        if not any(tau.equal(other.tau.to(tau.device)) for other in unique):
            unique.append(candidate)
    return unique


def _candidate(size: str, tau: Tensor) -> Candidate:
    edges, nodes = map(int, size.split())
    return Candidate(edges, nodes, tau)
