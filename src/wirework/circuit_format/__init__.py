"""The format of circuit folders: circuit.json as types, and the one reader of both files. No torch.

`circuits` writes it; `circuits` and the page read it (docs/architecture.md, Circuit folder).
"""

from wirework.circuit_format.document import FORMAT, MOST, VERSION, Document, Level
from wirework.circuit_format.fields import Index, Part, Text, checked
from wirework.circuit_format.folder import (
    ACTIVATIONS,
    CIRCUIT_FILES,
    EMBED,
    LENGTHS,
    MEANS,
    CircuitFolder,
    read_circuit,
)
from wirework.circuit_format.names import Component, split_component, split_site
from wirework.circuit_format.parts import (
    MOST_PAIRS,
    AttackPart,
    CalibrationPart,
    Edge,
    EmbeddingEdge,
    EmbeddingPart,
    Examples,
    IoEdge,
    Losses,
    LossPairs,
    MeanSource,
    ModelPart,
    Node,
    PaperSize,
    PatchingPart,
    PathEdge,
    Provenance,
    TaskPart,
    TokenGroup,
)

__all__ = [
    "ACTIVATIONS",
    "CIRCUIT_FILES",
    "EMBED",
    "FORMAT",
    "LENGTHS",
    "MEANS",
    "MOST",
    "MOST_PAIRS",
    "VERSION",
    "AttackPart",
    "CalibrationPart",
    "CircuitFolder",
    "Component",
    "Document",
    "Edge",
    "EmbeddingEdge",
    "EmbeddingPart",
    "Examples",
    "Index",
    "IoEdge",
    "Level",
    "LossPairs",
    "Losses",
    "MeanSource",
    "ModelPart",
    "Node",
    "PaperSize",
    "Part",
    "PatchingPart",
    "PathEdge",
    "Provenance",
    "TaskPart",
    "Text",
    "TokenGroup",
    "checked",
    "read_circuit",
    "split_component",
    "split_site",
]
