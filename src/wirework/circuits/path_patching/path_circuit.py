"""`PathCircuit`: kept path edges between heads and MLPs, found by ACDC or edge attribution."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from wirework.circuit_format import ACTIVATIONS, CircuitFolder, PatchingPart, PathEdge
from wirework.circuits.circuit import Circuit
from wirework.circuits.path_patching.setting import Setting, gates_of
from wirework.config import AcdcConfig
from wirework.renamed_names import old_attributes
from wirework.tasks import Task, load_task

if TYPE_CHECKING:
    from wirework.model import Model

_NO_NODES: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("nodes", "edges", "io_edges"), lambda _: ()),
    **dict.fromkeys(("n_nodes", "n_edges", "n_io_edges"), lambda _: 0),
    "means": lambda _: {},
    "activations": lambda circuit: circuit.tensors()[ACTIVATIONS],
}
"""Attributes of `NodeCircuit` that `Circuit` had when it was one type."""


@old_attributes(_NO_NODES)
@dataclass(frozen=True, eq=False, repr=False)
class PathCircuit(Circuit):
    """Circuit of path edges: links of the head-level graph (Conmy et al. 2023)."""

    level = "head"
    contents = "path edges between heads and MLPs, as `acdc` finds"
    main_table = "path_edges"

    @property
    def path_edges(self) -> tuple[PathEdge, ...]:
        """The kept path edges."""
        return self.document.path_edges

    @property
    def n_path_edges(self) -> int:
        """Number of kept path edges; not comparable with `NodeCircuit.n_edges`."""
        return len(self.path_edges)

    @property
    def patching(self) -> PatchingPart:
        """Settings and results of the patched run of the circuit, on the prompts of the search."""
        assert self.document.patching is not None  # `Document` checks it
        return self.document.patching

    def sizes(self) -> dict[str, int | None]:
        """Return the number of path edges."""
        return {"n_path_edges": self.n_path_edges}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of circuit.safetensors by name.

        A path circuit has no nodes, so its example activations have the shape (prompts, T, 0).
        """
        prompts = self.document.examples.prompts
        longest = max((len(prompt) for prompt in prompts), default=0)
        return {ACTIVATIONS: torch.zeros(len(prompts), longest, 0)}

    @classmethod
    def of_folder(cls, folder: CircuitFolder) -> Self:
        """Return the circuit that a folder contains."""
        return cls(folder.document)

    def evaluate(self, model: "Model | str | Path", task: Task | str | Path) -> float:
        """Return the metric of the circuit on all pairs of a task; lower is better.

        Args:
            model: the circuit's model; a path is loaded.
            task: a task, or what `ww.task` takes.

        Returns:
            The metric that the circuit was found with, in its units, with all other path edges
            removed.

        Raises:
            InputError: `model` is another model or lacks an edge of the circuit, or the task does
                not fit it or lacks the circuit's corruption.
        """
        from wirework.model import load

        model, task = load(model), load_task(task)
        self.check_model(model)
        part = self.patching
        config = AcdcConfig(
            metric=part.metric,
            ablation=part.ablation,
            corruption=part.corruption or "other_prompt",  # None: files before the setting existed
            symmetric=part.both,
        )
        with torch.no_grad():
            patched = Setting.of(model, task, config, all_pairs=True).patched
            gates = gates_of(patched.graph, self.path_edges)
            metric = patched.contrast.metric(part.metric, patched.run().logits)
            circuit_run = patched.run(gates.to(patched.contrast.last_positions.device))
            return float(metric(circuit_run.logits))
