"""Attributes that `Circuit` had when it was one type, and that only one of the two types has now.

They keep working for one release, with one line of warning each: a part that a circuit cannot have
is empty.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wirework.circuit_format import ACTIVATIONS
from wirework.console import warn_once
from wirework.renamed_names import new_name

if TYPE_CHECKING:
    from wirework.circuits.circuit import Circuit

_RENAMED = {"wiring": "edge_masks"}
_EMPTY: Mapping[str, Any] = {
    **dict.fromkeys(("nodes", "edges", "io_edges", "path_edges"), ()),
    **dict.fromkeys(("n_nodes", "n_edges", "n_io_edges", "n_path_edges"), 0),
    "means": {},
}


def old_attribute(circuit: "Circuit", name: str) -> Any:
    """Return an attribute that the type of a circuit does not have.

    Raises:
        AttributeError: no circuit ever had it, or it has no value for this type.
    """
    kind = type(circuit).__name__
    if name in _EMPTY:
        warn_once(f"a {kind} has no {name}: the next version refuses it")
        return _EMPTY[name]
    if name == "activations":
        return circuit.tensors()[ACTIVATIONS]
    renamed = {old: new for old, new in _RENAMED.items() if hasattr(type(circuit), new)}
    return getattr(circuit, new_name(kind, name, renamed))
