"""`NodeCircuit`: kept nodes and the edges between them, as `prune` finds them.

Shapes: N nodes of all sites, P example prompts, T tokens, n kept nodes, G gates of them and of the
edges between them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor

from wirework.circuit_format import (
    ACTIVATIONS,
    EMBED,
    MEANS,
    CircuitFolder,
    Edge,
    EmbeddingEdge,
    IoEdge,
    Node,
    PaperSize,
    TokenGroup,
)
from wirework.circuits.circuit import Circuit, tokenize_task
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.embedding_edges import EmbeddingEdges, EmbeddingMasks
from wirework.circuits.masking.means import check_means
from wirework.config import PruneConfig
from wirework.errors import InputError, number_of
from wirework.renamed_names import old_attributes
from wirework.summaries import NotMeasured
from wirework.tasks import Task, load_task, tokenizer_of

if TYPE_CHECKING:
    from wirework.model import Model

_Part = TypeVar("_Part", Node, Edge)
_NO_PATH_EDGES: Mapping[str, Callable[[Any], Any]] = {
    "path_edges": lambda _: (),
    "n_path_edges": lambda _: 0,
}
"""Attributes of `PathCircuit` that `Circuit` had when it was one type."""


@runtime_checkable
class SearchShares(Protocol):
    """Shares of repeated searches, as `circuits.validation.stability.Stability` has them."""

    @property
    def runs(self) -> int:
        """Number of searches."""

    @property
    def node_shares(self) -> Sequence[float]:
        """Per node of the circuit: share of searches that find it."""

    @property
    def edge_shares(self) -> Sequence[float]:
        """Per edge of the circuit: share of searches that find it."""


@old_attributes(_NO_PATH_EDGES, wiring="edge_masks")
@dataclass(frozen=True, eq=False, repr=False)
class NodeCircuit(Circuit):
    """Circuit of kept nodes (channels at sites) and the weights between them (Gao et al. 2025)."""

    means: Mapping[str, Tensor]
    """Site to (width,) float32: the means with which nodes outside the circuit are ablated."""
    activations: Tensor
    """(P, T, n) float32: activation of each node in the circuit at each token of the examples."""

    level = "node"
    contents = "nodes and edges, as `prune` finds"
    main_table = "edges"

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The kept nodes, in execution order, then by channel."""
        return self.document.nodes

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The kept edges: nonzero weights between kept nodes, without those that were pruned."""
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
    def n_edges(self) -> int | None:
        """Number of nonzero weights between kept nodes: circuit size of Gao et al. 2025, sec. 2.2.

        None if it is not recorded: a file of an earlier version whose edges were pruned has only
        the kept ones. `count_edges` counts them in the model.
        """
        return self.document.n_edges_between_nodes

    @property
    def n_kept_edges(self) -> int:
        """Number of kept edges; the others between the nodes are set to their source's mean."""
        return len(self.edges)

    @property
    def paper_size(self) -> PaperSize | None:
        """Size and losses at plain bisection of the same masks, to compare with the paper's sizes.

        None if it is not recorded (a file of an earlier version, or a circuit of no ranking), or if
        the bisection does not reach the target.
        """
        return self.document.paper_size

    @property
    def n_io_edges(self) -> int:
        """Number of input and output edges; not part of the size."""
        return len(self.io_edges)

    @property
    def embedding_edges(self) -> tuple[EmbeddingEdge, ...]:
        """Kept edges from token groups to residual channels; empty if none were pruned."""
        part = self.document.embedding_edges
        return () if part is None else part.edges

    @property
    def token_groups(self) -> tuple[TokenGroup, ...]:
        """Token groups that an embedding edge refers to by its `group`."""
        part = self.document.embedding_edges
        return () if part is None else part.groups

    @property
    def excluded(self) -> dict[str, tuple[int, ...]]:
        """Site to channels of the nodes that its search excluded; empty if it excluded none."""
        return self.document.provenance.excluded or {}

    @property
    def n_excluded(self) -> int:
        """Number of nodes that its search excluded."""
        return sum(map(len, self.excluded.values()))

    @property
    def channels(self) -> dict[str, list[int]]:
        """Site to channels of the kept nodes, in execution order."""
        by_site: dict[str, list[int]] = {}
        for node in self.nodes:
            by_site.setdefault(node.site, []).append(node.index)
        return by_site

    @property
    def search_config(self) -> PruneConfig:
        """Settings of the search that found it; settings missing in its file have their default.

        Raises:
            InputError: a setting is not valid.
        """
        settings = dict(self.document.provenance.settings)
        settings.pop("mean_batches", None)  # of earlier versions, whose samples were too small
        return PruneConfig.of(settings, "circuit.json: provenance.settings")

    def sizes(self) -> dict[str, int | None]:
        """Return the number of nodes, edges, kept edges, and input and output edges.

        With embedding edges also those of `embedding_sizes`.
        """
        return {
            "n_nodes": self.n_nodes,
            "n_edges": self.n_edges,
            "n_kept_edges": self.n_kept_edges,
            "n_io_edges": self.n_io_edges,
            **self.embedding_sizes(),
        }

    def embedding_sizes(self) -> dict[str, int]:
        """Return the number of embedding edges and of the token groups that they read.

        It is empty if no embedding entry was pruned.
        """
        if self.document.embedding_edges is None:
            return {}
        read = {edge.group for edge in self.embedding_edges}
        return {"n_embedding_edges": len(self.embedding_edges), "n_token_groups": len(read)}

    def summary(self) -> dict[str, Any]:
        """Return its task, sizes and losses (nats), how it was found, and the paper's size of it.

        `paper_...` are the entries of `paper_size`, absent if it is None, and `n_excluded` is the
        number of nodes that the search excluded, absent if it is 0.
        """
        paper = {} if self.paper_size is None else paper_entries(self.paper_size)
        excluded = {"n_excluded": self.n_excluded} if self.excluded else {}
        return super().summary() | paper | excluded

    def _more_text(self) -> tuple[str, ...]:
        lines = []
        if self.paper_size is not None:
            sizes = f"{number_of(self.paper_size.n_nodes, 'node')}, "
            sizes += number_of(self.paper_size.n_edges, "edge")
            lines.append(f"by bisection alone (the paper's size): {sizes}")
        if self.excluded:
            lines.append(f"its search excluded {number_of(self.n_excluded, 'node')}")
        return tuple(lines)

    def count_edges(self, model: "Model | str | Path") -> int:
        """Return the number of nonzero weights between the kept nodes: `n_edges` of any file.

        Args:
            model: the circuit's model; a path is loaded. Not loaded if the number is recorded.

        Raises:
            InputError: `model` is another model or lacks a node of the circuit.
        """
        if self.n_edges is not None:
            return self.n_edges
        edge_masks = EdgeMasks.of(*self.ablation(model))
        return edge_masks.size - edge_masks.n_nodes

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of circuit.safetensors by name: means and example activations."""
        means = {f"{MEANS}{site}": mean for site, mean in self.means.items()}
        return {**means, ACTIVATIONS: self.activations}

    @classmethod
    def of_folder(cls, folder: CircuitFolder) -> Self:
        """Return the circuit of the content of its folder."""
        means = {site: torch.tensor(mean) for site, mean in folder.means.items()}
        return cls(folder.document, means, torch.tensor(folder.activations))

    def ablation(self, model: "Model | str | Path") -> tuple[Ablation, Tensor]:
        """Return the node masks of the model and the circuit's own mask, (N,).

        Args:
            model: the circuit's model; a path is loaded.

        Raises:
            InputError: `model` is another model or lacks a node of the circuit.
        """
        from wirework.model import load

        model = load(model)
        self.check_model(model)
        check_means(dict(self.means), model.transformer, "circuit")
        ablation = replace(
            Ablation.of(model.transformer, self.means), loss_reduction=self.loss_reduction
        )
        for node in self.nodes:
            if node.index >= (width := ablation.space.widths[node.site]):
                raise InputError(
                    f"the circuit keeps node {node.index} of {node.site}, which has {width}"
                )
        return ablation, ablation.space.gates(self.channels)

    def edge_masks(self, model: "Model | str | Path") -> tuple[EdgeMasks, Tensor]:
        """Return the masks over the circuit's nodes and edges, and the circuit's own gates, (G,).

        Args:
            model: the circuit's model; a path is loaded.

        Raises:
            InputError: `model` is another model, or lacks a node or edge of the circuit.
        """
        edge_masks = self._with_embedding(EdgeMasks.of(*self.ablation(model)))
        model_edges = edge_masks.edges()
        kept = {(edge.source, edge.target) for edge in self.edges}
        if foreign := kept - {(edge.source, edge.target) for edge in model_edges}:
            source, target = min(foreign)
            raise InputError(
                f"the circuit has an edge from node {source} to {target}, the model none"
            )
        edge_gates = [float((edge.source, edge.target) in kept) for edge in model_edges]
        return edge_masks, torch.cat([torch.ones(edge_masks.n_nodes), torch.tensor(edge_gates)])

    def _with_embedding(self, edge_masks: EdgeMasks) -> EdgeMasks:
        """Return masks without the embedding entries that the circuit removes."""
        if (part := self.document.embedding_edges) is None:
            return edge_masks
        if EMBED not in self.means:
            raise InputError(f"the circuit has embedding edges, but no {MEANS}{EMBED}")
        edges, gates = EmbeddingEdges.of_part(part, edge_masks.transformer)
        return EmbeddingMasks(edge_masks, gates, edges).masked(gates[None])

    def evaluate(self, model: "Model | str | Path", task: Task | str | Path) -> float:
        """Return the task loss of the circuit alone on all pairs of a task; lower is better.

        Args:
            model: the circuit's model; a path is loaded.
            task: a task, or what `ww.task` takes.

        Returns:
            The uncalibrated task loss in nats, everything outside the circuit ablated, in the
            circuit's `loss_reduction`.

        Raises:
            InputError: `model` is another model, or the task does not fit it.
        """
        from wirework.model import load

        model, task = load(model), load_task(task)
        edge_masks, gates = self.edge_masks(model)
        fitted = task.fitted(tokenizer_of(model), model.config.n_ctx)
        return float(edge_masks.losses(gates[None], tokenize_task(fitted, model))[0])

    def with_shares(self, stability: SearchShares | NotMeasured | Mapping[str, Any] | None) -> Self:
        """Return the circuit with, for each node and edge, the share of searches that found it.

        Args:
            stability: the entry `stability` of `validate(circuit, runs=N)`, or its JSON: `runs`,
                `node_shares` and `edge_shares`, in the order of the circuit's nodes and edges.

        Raises:
            InputError: it belongs to another circuit, or was not measured.
        """
        runs, nodes, edges = _measured_shares(stability)
        if (len(nodes), len(edges)) != (self.n_nodes, self.n_kept_edges):
            raise InputError(
                f"shares of {number_of(len(nodes), 'node')} and "
                f"{number_of(len(edges), 'edge')}, but the circuit has "
                f"{self.n_nodes} and {self.n_kept_edges}: they are another circuit's"
            )
        changes = {
            "nodes": _with_shares(self.nodes, nodes),
            "edges": _with_shares(self.edges, edges),
            "share_runs": runs,
        }
        return replace(self, document=self.document.model_copy(update=changes))

    def _target_text(self) -> str:
        reached = "reached" if self.reached else "not reached"
        return f" (target {self.document.target_loss:g}, {reached})"


def paper_entries(paper_size: PaperSize | None) -> dict[str, int | float | None]:
    """Return the paper's size as entries of a flat table; each None if there is none."""
    names = {
        "paper_nodes": "n_nodes",
        "paper_edges": "n_edges",
        "paper_loss": "task_loss",
        "paper_loss_calibrated": "task_loss_calibrated",
        "paper_held_out": "held_out_loss",
        "paper_held_out_calibrated": "held_out_loss_calibrated",
    }
    return {key: getattr(paper_size, name, None) for key, name in names.items()}


def _measured_shares(
    stability: SearchShares | NotMeasured | Mapping[str, Any] | None,
) -> tuple[int, Sequence[float], Sequence[float]]:
    """Return the number of searches, and the shares of nodes and of edges."""
    if stability is None:
        raise InputError("no shares to save: the report has none; give runs=N to `validate`")
    if isinstance(stability, NotMeasured):
        raise InputError(f"no shares to save: {stability.reason}")
    if isinstance(stability, SearchShares):
        return stability.runs, stability.node_shares, stability.edge_shares
    if "reason" in stability:
        raise InputError(f"no shares to save: {stability['reason']}")
    return stability["runs"], stability["node_shares"], stability["edge_shares"]


def _with_shares(parts: Sequence[_Part], shares: Sequence[float]) -> tuple[_Part, ...]:
    pairs = zip(parts, shares, strict=True)
    return tuple(part.model_copy(update={"share": share}) for part, share in pairs)
