"""Load what a user gave as a path: a circuit, its model, a task."""

from pathlib import Path
from typing import TYPE_CHECKING

from wirework.circuits.circuit import Circuit
from wirework.errors import InputError
from wirework.tasks import Task, load_task

if TYPE_CHECKING:
    from wirework.model import Model


def given(
    circuit: Circuit | str | Path,
    model: "Model | str | Path | None",
    task: Task | str | Path | None,
) -> tuple[Circuit, "Model", Task | None]:
    """Load what is a path; without a model, load the one that the circuit was found in."""
    from wirework.model import load

    circuit = Circuit.load(circuit)
    task = None if task is None else load_task(task)
    return circuit, model_of(circuit) if model is None else load(model), task


def model_of(circuit: Circuit | str | Path) -> "Model":
    """Load the model of a circuit, or of that at a path, from where the circuit was found.

    Raises:
        InputError: the circuit does not say where that is, or there is no model.
    """
    from wirework.model import load

    path = Circuit.load(circuit).document.model.path
    if path is None:
        raise InputError("the circuit does not say where its model lies: give the model (--model)")
    if not Path(path).is_dir():
        raise InputError(f"no model at {path}, where the circuit was found: give it (--model)")
    return load(path)
