"""Load inputs that the caller gave as paths: a circuit, its model, a task."""

from pathlib import Path
from typing import TYPE_CHECKING

from wirework.circuits.circuit import Circuit
from wirework.circuits.node_circuit import NodeCircuit
from wirework.errors import InputError
from wirework.tasks import Task, load_task

if TYPE_CHECKING:
    from wirework.model import Model


def load_inputs(
    circuit: Circuit | str | Path,
    model: "Model | str | Path | None",
    task: Task | str | Path | None,
) -> tuple[NodeCircuit, "Model", Task | None]:
    """Load each input that is a path; without a model, load the one that the circuit was found in.

    Raises:
        InputError: one of them cannot be loaded, or the circuit is a `PathCircuit`.
    """
    from wirework.model import load

    circuit = NodeCircuit.load(circuit)
    task = None if task is None else load_task(task)
    return circuit, model_of(circuit) if model is None else load(model), task


def model_of(circuit: Circuit | str | Path) -> "Model":
    """Load the model of a circuit from the path saved in the circuit.

    Raises:
        InputError: the circuit has no path of its model, or there is no model.
    """
    from wirework.model import load

    path = Circuit.load(circuit).document.model.path
    if path is None:
        raise InputError("the circuit does not say where its model lies: give the model (--model)")
    if not Path(path).is_dir():
        raise InputError(f"no model at {path}, where the circuit was found: give it (--model)")
    return load(path)
