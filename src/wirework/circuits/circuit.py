"""The `Circuit`: kept nodes and edges of a model for a task, with losses and provenance.

It is saved as a folder (docs/architecture.md) and runs on its model.
Shapes: N nodes of all sites, P example prompts, T tokens, n kept nodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from wirework import files
from wirework.circuit_format import Document, Edge, IoEdge, Losses, Node, PathEdge
from wirework.circuits.circuit_tensors import activations_of, means_of
from wirework.circuits.circuit_views import Table, dataframe, picture
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.means import check_means
from wirework.config import PruneConfig
from wirework.errors import InputError, number_of, quoted
from wirework.files import atomic_dir, read_json, save_tensors, verify_dir, write_json
from wirework.summaries import html_table, short, shown_as
from wirework.tasks import Task, TokenizedPairs, load_task, tokenizer_of
from wirework.tensor_files import read_tensors

if TYPE_CHECKING:
    from pandas import DataFrame

    from wirework.model import Model
    from wirework.picture import Picture

_FILES = ("circuit.json", "circuit.safetensors")
_Part = TypeVar("_Part", Node, Edge)


@dataclass(frozen=True, eq=False)
class Circuit:
    """The circuit of one task in one model, as every finder returns it."""

    document: Document
    """Content of circuit.json."""
    means: Mapping[str, Tensor]
    """Site to (width,) float32: the means with which nodes outside the circuit are ablated."""
    activations: Tensor
    """(P, T, n) float32: activation of each node in the circuit at each token of the examples."""

    def summary(self) -> dict[str, Any]:
        """Return its task, size and losses (nats), and how it was found."""
        document = self.document
        size: dict[str, int] = {"n_path_edges": self.n_path_edges}
        if document.level == "node":
            size = {"n_nodes": self.n_nodes, "n_edges": self.n_edges, "n_io_edges": self.n_io_edges}
        return {
            "task": document.task.name,
            **size,
            "task_loss": self.task_loss,
            "target_loss": document.target_loss,
            "reached": self.reached,
            "model_loss": self.losses.model,
            "without_circuit": self.losses.without_circuit,
            "finder": document.provenance.finder,
        }

    def __repr__(self) -> str:
        about = self.summary()
        size = (f"{about[n]} {n[2:].replace('_', ' ')}" for n in about if n.startswith("n_"))
        losses = f"task loss {self.task_loss:.4g} nats"
        if self.document.level == "node":
            met = "reached" if self.reached else "not reached"
            losses += f" (target {self.document.target_loss:g}, {met})"
        losses += f", whole model {self.losses.model:.4g}, found by {short(about['finder'])}"
        return shown_as("Circuit", f"{quoted(about['task'])}: {', '.join(size)}", losses)

    def _repr_html_(self) -> str:
        return html_table("Circuit", self.summary())

    def show(self) -> "Picture":
        """Draw the circuit as `wirework view --png` does.

        Returns:
            A matplotlib figure: a notebook shows it, `savefig` writes it.

        Raises:
            InputError: the circuit is at odds with itself.
        """
        return picture(self.document, self.activations)

    def to_dataframe(self, table: Table | None = None) -> "DataFrame":
        """Return nodes or edges as a pandas table, a row for each, in the circuit's order.

        Args:
            table: `nodes` (site, index, mean, score, share), `edges` (site and index of source and
                target, weight, share), `io_edges` (token or answer, node, weight) or `path_edges`
                (source, target, effect); None for `edges`, of a head-level circuit `path_edges`.

        Raises:
            InputError: another table, or pandas is not installed.
        """
        return dataframe(self.document, table)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The kept nodes, in execution order, then by channel."""
        return self.document.nodes

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The kept edges: nonzero weights between kept nodes."""
        return self.document.edges

    @property
    def io_edges(self) -> tuple[IoEdge, ...]:
        """Embedding and unembedding entries that connect kept nodes to prompt and answer tokens."""
        return self.document.io_edges

    @property
    def n_nodes(self) -> int:
        """Number of kept nodes."""
        return len(self.nodes)

    @property
    def n_edges(self) -> int:
        """Number of kept edges: the circuit size of Gao et al. 2025, sec. 2.2."""
        return len(self.edges)

    @property
    def n_io_edges(self) -> int:
        """Number of input and output edges; not part of the size."""
        return len(self.io_edges)

    @property
    def path_edges(self) -> tuple[PathEdge, ...]:
        """The kept path edges of a head-level circuit (ACDC); empty for a node-level circuit."""
        return self.document.path_edges

    @property
    def n_path_edges(self) -> int:
        """Number of kept path edges; not comparable with `n_edges`."""
        return len(self.path_edges)

    @property
    def losses(self) -> Losses:
        """Task losses in nats: of the circuit, the model, the model without the circuit, ..."""
        return self.document.losses

    @property
    def task_loss(self) -> float:
        """Task loss in nats with everything outside the circuit ablated, uncalibrated."""
        return self.losses.circuit

    @property
    def reached(self) -> bool:
        """Whether the target loss is met, with held-out ablation values too."""
        return self.document.reached

    @property
    def search_config(self) -> PruneConfig:
        """Settings of the search that found it; settings missing in its file have their default.

        Raises:
            InputError: a setting is not valid.
        """
        settings = dict(self.document.provenance.settings)
        settings.pop("mean_batches", None)  # of earlier versions, whose samples were too small
        return PruneConfig.of(settings, "circuit.json: provenance.settings")

    def check_model(self, model: "Model | str | Path") -> None:
        """Check that a model (or the one at a path) is the model of this circuit.

        Raises:
            InputError: it is another model.
        """
        from wirework.model import load

        model = load(model)
        expected = self.document.model.fingerprint
        if model.fingerprint != expected:
            raise InputError(
                f"the circuit belongs to another model: fingerprint {expected[:12]}..., "
                f"this one has {model.fingerprint[:12]}..."
            )

    def ablation(self, model: "Model | str | Path") -> tuple[Ablation, Tensor]:
        """Return the node masks of the model and the circuit's own mask, (N,).

        Args:
            model: the circuit's model; a path is loaded.

        Raises:
            InputError: `model` is another model or lacks a node of the circuit, or this is a
                head-level circuit.
        """
        from wirework.model import load

        model = load(model)
        self.check_model(model)
        if self.document.level == "head":
            raise InputError(
                "this circuit is of path edges between heads and MLPs: it has no nodes to ablate, "
                "as circuits of `prune` have"
            )
        check_means(dict(self.means), model.transformer, "circuit")
        ablation = Ablation.of(model.transformer, self.means)
        kept: dict[str, list[int]] = {}
        for node in self.nodes:
            if node.index >= (width := ablation.space.widths[node.site]):
                raise InputError(
                    f"the circuit keeps node {node.index} of {node.site}, which has {width}"
                )
            kept.setdefault(node.site, []).append(node.index)
        return ablation, ablation.space.gates(kept)

    def edge_masks(self, model: "Model | str | Path") -> tuple[EdgeMasks, Tensor]:
        """Return the masks over the circuit's nodes and edges, and the circuit's own gates, (G,).

        Args:
            model: the circuit's model; a path is loaded.

        Raises:
            InputError: `model` is another model, or lacks a node or edge of the circuit.
        """
        edge_masks = EdgeMasks.of(*self.ablation(model))
        model_edges = edge_masks.edges()
        kept = {(edge.source, edge.target) for edge in self.edges}
        if foreign := kept - {(edge.source, edge.target) for edge in model_edges}:
            source, target = min(foreign)
            raise InputError(
                f"the circuit has an edge from node {source} to {target}, the model none"
            )
        edge_gates = [float((edge.source, edge.target) in kept) for edge in model_edges]
        return edge_masks, torch.cat([torch.ones(edge_masks.n_nodes), torch.tensor(edge_gates)])

    def evaluate(self, model: "Model | str | Path", task: Task | str | Path) -> float:
        """Return the task loss of the circuit alone on all pairs of a task; lower is better.

        Args:
            model: the circuit's model; a path is loaded.
            task: a task, or what `ww.task` takes.

        Returns:
            The uncalibrated task loss in nats, everything outside the circuit ablated. For a
            head-level circuit: the metric of its finder, all other path edges removed.

        Raises:
            InputError: `model` is another model, or the task does not fit it.
        """
        from wirework.model import load

        model, task = load(model), load_task(task)
        if self.document.level == "head":
            from wirework.circuits.path_patching.build import evaluate_paths

            return evaluate_paths(self, model, task)
        edge_masks, gates = self.edge_masks(model)
        fitted = task.fitted(tokenizer_of(model), model.config.n_ctx)
        return float(edge_masks.losses(gates[None], tokenize_task(fitted, model))[0])

    def with_shares(self, stability: Mapping[str, Any]) -> "Circuit":
        """Return the circuit with, for each node and edge, the share of searches that found it.

        Args:
            stability: the entry `stability` of `validate(circuit, runs=N)`: `runs`, `node_shares`
                and `edge_shares`, in the order of the circuit's nodes and edges.

        Raises:
            InputError: it belongs to another circuit, or could not be measured.
        """
        if "reason" in stability:
            raise InputError(f"no shares to save: {stability['reason']}")
        nodes, edges = stability["node_shares"], stability["edge_shares"]
        if (len(nodes), len(edges)) != (self.n_nodes, self.n_edges):
            raise InputError(
                f"shares of {number_of(len(nodes), 'node')} and "
                f"{number_of(len(edges), 'edge')}, but the circuit has "
                f"{self.n_nodes} and {self.n_edges}: they are another circuit's"
            )
        changes = {
            "nodes": _shared(self.nodes, nodes),
            "edges": _shared(self.edges, edges),
            "share_runs": stability["runs"],
        }
        return replace(self, document=self.document.model_copy(update=changes))

    def save(self, folder: str | Path) -> Path:
        """Save the circuit to a folder atomically; a circuit already there is replaced.

        Raises:
            InputError: the folder cannot be written, or contains something else than a circuit.
        """
        folder = Path(folder)
        check_place(folder)
        lengths = [len(prompt) for prompt in self.document.examples.prompts]
        tensors = {f"means/{site}": mean.float().contiguous() for site, mean in self.means.items()}
        tensors["examples/activations"] = self.activations.float().contiguous()
        tensors["examples/lengths"] = torch.tensor(lengths, dtype=torch.int32)
        with atomic_dir(folder) as partial:
            write_json(partial / "circuit.json", self.document.to_json())
            save_tensors(partial / "circuit.safetensors", tensors, {"format": "wirework-circuit"})
        return folder

    @classmethod
    def load(cls, folder: "str | Path | Circuit") -> "Circuit":
        """Load a circuit from a folder; a `Circuit` is returned unchanged.

        Raises:
            InputError: the circuit is missing, damaged, of another format or of a newer version.
        """
        if isinstance(folder, Circuit):
            return folder
        folder = Path(folder)
        if not files.is_file(folder / "circuit.json"):
            raise InputError(f"no circuit at {folder}: expected a folder with circuit.json")
        document = Document.of_json(read_json(folder / "circuit.json"), f"{folder}/circuit.json")
        verify_dir(folder, _FILES)
        path = folder / "circuit.safetensors"
        tensors = read_tensors(path)
        means = means_of(tensors, document, path)
        return cls(document, means, activations_of(tensors, document, path))


def check_place(folder: str | Path) -> None:
    """Check, before a search, that a circuit can be saved to a folder.

    Raises:
        InputError: the folder contains something else or cannot be written.
    """
    files.check_folder(Path(folder), "a circuit", _FILES)


def tokenize_task(task: Task, model: "Model") -> TokenizedPairs:
    """Tokenise all pairs of a task with the model's tokeniser, on the model's device.

    Raises:
        InputError: a pair does not fit the model, or the model has no tokeniser.
    """
    batch = task.encode(tokenizer_of(model), model.config.n_ctx)
    return batch.to(model.transformer.embed.weight.device)


def _shared(parts: Sequence[_Part], shares: Sequence[float]) -> tuple[_Part, ...]:
    pairs = zip(parts, shares, strict=True)
    return tuple(part.model_copy(update={"share": share}) for part, share in pairs)
