"""Read a circuit folder and check that it is whole and agrees with itself.

The format is the Circuit folder of docs/architecture.md, version 1. Knows the file, not the
drawing.
Shapes: P prompts, T tokens of the longest prompt, N kept nodes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.circuit_format import Document
from wirework.errors import InputError, number_of
from wirework.files import is_file, read_json, verify_dir
from wirework.tensor_files import read_arrays

_FILES = ("circuit.json", "circuit.safetensors")


@dataclass(frozen=True)
class CircuitFile:
    """A circuit folder in memory: the document and what each node did on each prompt."""

    document: Document
    activations: NDArray[np.float32]
    """(P, T, N), in the order of `document.nodes`; 0 beyond a prompt's end."""


def read_circuit(circuit_dir: Path) -> CircuitFile:
    """Read and check a circuit folder.

    Raises:
        InputError: missing, damaged, of another format or a newer version, or at odds with itself.
    """
    path = circuit_dir / "circuit.json"
    if not is_file(path):
        raise InputError(f"no circuit at {circuit_dir}: expected a folder with circuit.json")
    document = Document.of_json(read_json(path), str(path))
    verify_dir(circuit_dir, _FILES)
    tensors = read_arrays(circuit_dir / "circuit.safetensors")
    _check_tensors(circuit_dir / "circuit.safetensors", document, tensors)
    return CircuitFile(document, tensors["examples/activations"])


def _check_tensors(path: Path, document: Document, tensors: dict[str, NDArray[Any]]) -> None:
    """Check the tensors' presence and shapes against the document."""
    lengths = np.array([len(prompt) for prompt in document.examples.prompts], dtype=np.int64)
    n_tokens = int(lengths.max(initial=0))
    for node in document.nodes:
        width = _tensor(path, tensors, f"means/{node.site}", 1).shape[0]
        if node.index >= width:
            raise InputError(
                f"{path}: {node.site} has {number_of(width, 'node')}, the circuit keeps "
                f"{node.index}"
            )
    stored = _tensor(path, tensors, "examples/lengths", 1)
    if not np.array_equal(stored, lengths):
        raise InputError(f"{path}: examples/lengths differ from the prompts in circuit.json")
    shape = _tensor(path, tensors, "examples/activations", 3).shape
    wanted = (len(lengths), n_tokens, len(document.nodes))
    if shape[0] != wanted[0] or shape[1] < wanted[1] or shape[2] != wanted[2]:
        raise InputError(
            f"{path}: examples/activations should be {wanted} (prompts, tokens, nodes), got {shape}"
        )
    if not np.isfinite(tensors["examples/activations"]).all():
        raise InputError(f"{path}: examples/activations holds values that are not finite")


def _tensor(path: Path, tensors: dict[str, NDArray[Any]], name: str, n_dims: int) -> NDArray[Any]:
    if name not in tensors:
        raise InputError(f"{path}: tensor {name} is missing")
    if tensors[name].ndim != n_dims:
        raise InputError(
            f"{path}: {name} should have {n_dims} dimensions, got {tensors[name].ndim}"
        )
    return tensors[name]
