"""The one reader of circuit folders, for the library and for the page. No torch.

A folder has circuit.json, circuit.safetensors and checksums.json (docs/architecture.md, Circuit
folder).
Shapes: P example prompts, T tokens of the longest prompt, n kept nodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.circuit_format.document import Document
from wirework.circuit_format.parts import ModelPart
from wirework.config import NODE_KINDS
from wirework.errors import InputError, number_of
from wirework.files import is_file, read_json, verify_dir
from wirework.tensor_files import read_arrays

CIRCUIT_FILES = ("circuit.json", "circuit.safetensors")
"""Files of a circuit folder that checksums.json covers."""

ACTIVATIONS = "examples/activations"
LENGTHS = "examples/lengths"
MEANS = "means/"
"""Names of tensors in circuit.safetensors; a site follows `MEANS`."""
EMBED = "embed"
"""Site of the embedding; its means are there if embedding edges were pruned."""

Array = NDArray[Any]


@dataclass(frozen=True)
class CircuitFolder:
    """Content of a circuit folder, checked."""

    document: Document
    """Content of circuit.json."""
    means: Mapping[str, Array]
    """Site to (width,): ablation means; empty for a head-level circuit."""
    activations: NDArray[np.floating[Any]]
    """(P, T, n): activation of each node, in the order of `document.nodes`; 0 after a prompt."""


def read_circuit(folder: Path) -> CircuitFolder:
    """Read and check a circuit folder.

    Raises:
        InputError: the folder is missing, damaged, of another format or of a newer version, or its
            files contradict each other.
    """
    path = folder / "circuit.json"
    if not is_file(path):
        raise InputError(f"no circuit at {folder}: expected a folder with circuit.json")
    document = Document.of_json(read_json(path), str(path))
    verify_dir(folder, CIRCUIT_FILES)
    path = folder / "circuit.safetensors"
    arrays = read_arrays(path)
    _check_lengths(arrays, document, path)
    activations = _checked_activations(arrays, document, path)
    return CircuitFolder(document, _checked_means(arrays, document, path), activations)


def _checked_means(arrays: Mapping[str, Array], document: Document, path: Path) -> dict[str, Array]:
    names = (name for name in arrays if name.startswith(MEANS))
    means = {name.removeprefix(MEANS): arrays[name] for name in names}
    if document.level == "node":
        _check_nodes(means, document, path)
        _check_sites(means, document, path)
    for site, mean in means.items():
        _check_finite(mean, f"{MEANS}{site}", path)
    return means


def _check_nodes(means: Mapping[str, Array], document: Document, path: Path) -> None:
    """Check that each kept node is within the width of its site."""
    for node in document.nodes:
        mean = means.get(node.site)
        if mean is not None and mean.ndim == 1 and node.index >= len(mean):
            raise InputError(
                f"{path}: {MEANS}{node.site} has {number_of(len(mean), 'node')}, the circuit keeps "
                f"node {node.index}"
            )


def _check_sites(means: Mapping[str, Array], document: Document, path: Path) -> None:
    """Check that there is a mean of the right width for each site of the model, and no other."""
    model = document.model
    kinds = (*NODE_KINDS, "attn.y")
    expected = {f"{layer}.{kind}": kind for layer in range(model.n_layer) for kind in kinds}
    if document.embedding_edges is not None:
        expected[EMBED] = EMBED
    if foreign := means.keys() - expected.keys():
        raise InputError(f"{path}: {MEANS}{min(foreign)} is of no site of the model")
    # circuit.json lacks the width of concatenated positions; all act_in sites have the same width.
    act_in = next((len(m) for s, m in means.items() if s.endswith("act_in") and m.ndim), 0)
    for site, kind in expected.items():
        width = max(act_in, model.d_model) if kind.endswith("act_in") else _width(kind, model)
        shape = means[site].shape if site in means else None
        if shape != (width,):
            raise InputError(f"{path}: expected {MEANS}{site} {(width,)}, got {shape}")


def _width(kind: str, model: ModelPart) -> int:
    if kind in ("attn.q", "attn.k", "attn.v", "attn.y"):
        return model.n_head * model.d_head
    return model.d_mlp if kind == "mlp.post_act" else model.d_model


def _check_lengths(arrays: Mapping[str, Array], document: Document, path: Path) -> None:
    stored = _array(arrays, LENGTHS, 1, path)
    if stored.tolist() != [len(prompt) for prompt in document.examples.prompts]:
        raise InputError(f"{path}: {LENGTHS} differ from the prompts in circuit.json")


def _checked_activations(arrays: Mapping[str, Array], document: Document, path: Path) -> Array:
    activations = _array(arrays, ACTIVATIONS, 3, path)
    _check_finite(activations, ACTIVATIONS, path)
    lengths = [len(prompt) for prompt in document.examples.prompts]
    expected = (len(lengths), max(lengths, default=0), len(document.nodes))
    if activations.shape != expected:
        raise InputError(
            f"{path}: {ACTIVATIONS} should be {expected} (prompts, tokens, nodes), "
            f"got {activations.shape}"
        )
    return activations


def _array(arrays: Mapping[str, Array], name: str, n_dims: int, path: Path) -> Array:
    if name not in arrays:
        raise InputError(f"{path}: tensor {name} is missing")
    if arrays[name].ndim != n_dims:
        raise InputError(f"{path}: {name} should have {n_dims} dimensions, got {arrays[name].ndim}")
    return arrays[name]


def _check_finite(array: Array, name: str, path: Path) -> None:
    if not (np.issubdtype(array.dtype, np.floating) and bool(np.isfinite(array).all())):
        raise InputError(f"{path}: {name} holds values that are not finite, or no floats")
