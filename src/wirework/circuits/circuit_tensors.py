"""Read the tensors of a circuit folder and check them against circuit.json.

Shapes: P example prompts, T tokens, n kept nodes.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from wirework.circuit_format import Document, ModelPart
from wirework.config import NODE_KINDS
from wirework.errors import InputError

_MEANS = "means/"
_ACTIVATIONS = "examples/activations"


def tensors_of(tensors: Mapping[str, Tensor], document: Document, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a circuit by name: ablation means and activations on the examples.

    Args:
        tensors: content of circuit.safetensors.
        document: content of circuit.json. A head-level circuit has no means.
        path: the file, for messages.

    Raises:
        InputError: a tensor is missing, unknown, of another shape, or has a value that is not
            finite.
    """
    names = (name for name in tensors if name.startswith(_MEANS))
    means = {name.removeprefix(_MEANS): tensors[name] for name in names}
    if document.level == "node":
        _check_sites(means, document.model, path)
    checked = {f"{_MEANS}{site}": mean for site, mean in means.items()}
    checked[_ACTIVATIONS] = _activations(tensors, document, path)
    for name, tensor in checked.items():
        _check_finite(tensor, name, path)
    return checked


def _activations(tensors: Mapping[str, Tensor], document: Document, path: Path) -> Tensor:
    lengths = [len(prompt) for prompt in document.examples.prompts]
    expected = (len(lengths), max(lengths, default=0), len(document.nodes))
    activations = tensors.get(_ACTIVATIONS)
    shape = None if activations is None else tuple(activations.shape)
    if activations is None or shape != expected:
        raise InputError(f"{path}: expected {_ACTIVATIONS} {expected}, got {shape}")
    return activations


def _check_sites(means: Mapping[str, Tensor], model: ModelPart, path: Path) -> None:
    kinds = (*NODE_KINDS, "attn.y")
    expected = {f"{layer}.{kind}": kind for layer in range(model.n_layer) for kind in kinds}
    if foreign := means.keys() - expected.keys():
        raise InputError(f"{path}: {_MEANS}{min(foreign)} is of no site of the model")
    # circuit.json lacks the width of concatenated positions; all act_in sites have the same width.
    read = next((len(m) for s, m in means.items() if s.endswith("act_in") and m.dim()), 0)
    for site, kind in expected.items():
        width = max(read, model.d_model) if kind.endswith("act_in") else _width(kind, model)
        shape = tuple(means[site].shape) if site in means else None
        if shape != (width,):
            raise InputError(f"{path}: expected {_MEANS}{site} {(width,)}, got {shape}")


def _width(kind: str, model: ModelPart) -> int:
    if kind in ("attn.q", "attn.k", "attn.v", "attn.y"):
        return model.n_head * model.d_head
    return model.d_mlp if kind == "mlp.post_act" else model.d_model


def _check_finite(tensor: Tensor, name: str, path: Path) -> None:
    if not (tensor.is_floating_point() and bool(tensor.isfinite().all())):
        raise InputError(f"{path}: {name} holds values that are not finite, or no floats")
