"""`Document`: circuit.json as a whole, typed and checked (docs/architecture.md, Circuit folder)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import FailFast, Field, model_validator

from wirework.circuit_format.fields import Index, Part, checked
from wirework.circuit_format.names import Component, site_order, split_component, split_site
from wirework.circuit_format.parts import (
    CalibrationPart,
    Edge,
    EmbeddingPart,
    Examples,
    IoEdge,
    Losses,
    LossPairs,
    ModelPart,
    Node,
    PaperSize,
    PatchingPart,
    PathEdge,
    Provenance,
    TaskPart,
)
from wirework.config import LossReduction
from wirework.errors import InputError, number_of, quoted
from wirework.node_names import node_name

FORMAT = "wirework-circuit"
VERSION = 1

MOST = {"nodes": 500_000, "edges": 2_000_000, "io_edges": 2_000_000, "path_edges": 500_000}
"""Maximum lengths of lists; the largest models have some hundred thousand nodes."""

Level = Literal["node", "head"]


class Document(Part):
    """Content of circuit.json. Unknown keys are ignored, so that the format can grow."""

    model: ModelPart
    task: TaskPart
    target_loss: float
    loss_reduction: LossReduction | None = None
    """How the target and all losses combine the two prompts of a pair. None in files of earlier
    versions and of head-level circuits, which have means."""
    reached: bool = True
    """Whether the target is met in all ablation modes of the search, with means (and activations)
    of text that the search has not seen, if there is such text."""
    losses: Losses
    loss_pairs: dict[str, LossPairs] = Field(default_factory=dict)
    """Name of a loss to its pairs; empty in files of earlier versions: all are judged."""
    calibration: CalibrationPart
    nodes: Annotated[tuple[Node, ...], FailFast()]
    edges: Annotated[tuple[Edge, ...], FailFast()]
    """The kept edges."""
    n_edges: Index | None = None
    """Number of nonzero weights between kept nodes, of which `edges` are those that the circuit
    keeps. None if not recorded: in files of earlier versions, and of head-level circuits."""
    paper_size: PaperSize | None = None
    """None in files of earlier versions, of head-level circuits, and where bisection alone does not
    reach the target."""
    io_edges: Annotated[tuple[IoEdge, ...], FailFast()]
    embedding_edges: EmbeddingPart | None = None
    """None if no embedding entry was pruned, as in files of earlier versions: the circuit reads the
    whole embedding."""
    examples: Examples
    provenance: Provenance
    share_runs: Annotated[int, Field(ge=1)] | None = None
    """Number of searches that the shares of nodes and edges refer to; None if none was repeated."""
    level: Level = "node"
    """`node`: nodes and edges. `head`: path edges between heads and MLPs (ACDC)."""
    path_edges: Annotated[tuple[PathEdge, ...], FailFast()] = ()
    """In the order in which they were tested."""
    patching: PatchingPart | None = None
    """Only of a head-level circuit; its `target_loss` is its own loss, as its search has none."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for node in self.nodes:
            if split_site(node.site)[0] >= self.model.n_layer:
                raise ValueError(
                    f"{node.site} is beyond the {number_of(self.model.n_layer, 'layer')}"
                )
        places = [(*site_order(node.site), node.index) for node in self.nodes]
        if not _rising(places):
            raise ValueError("nodes must be in execution order, then by index, each once")
        excluded = self.provenance.excluded or {}
        for node in self.nodes:
            if node.index in excluded.get(node.site, ()):
                name = node_name(node.site, node.index)
                raise ValueError(f"{name} is kept, but the search excluded it")
        if not _rising([(edge.source, edge.target) for edge in self.edges]):
            raise ValueError("edges must be sorted by source, then target, each once")
        ends = [end for edge in self.edges for end in (edge.source, edge.target)]
        ends += [e for io in self.io_edges for e in (io.source, io.target) if e is not None]
        n_nodes = len(self.nodes)
        if ends and max(ends) >= n_nodes:
            raise ValueError(
                f"an edge names node {max(ends)}, but there are {number_of(n_nodes, 'node')}"
            )
        if self.n_edges is not None and self.n_edges < len(self.edges):
            raise ValueError(f"n_edges is {self.n_edges}, but {len(self.edges)} edges are listed")
        shares = [node.share for node in self.nodes] + [edge.share for edge in self.edges]
        if shares.count(None) < len(shares) and self.share_runs is None:
            raise ValueError("there are shares of searches, but share_runs is missing")
        self._check_embedding()
        self._check_level()
        n_prompts = len(self.examples.prompts)
        for name in ("answers", "logit_diff"):
            listed = len(getattr(self.examples, name))
            if listed != n_prompts:
                raise ValueError(f"{n_prompts} example prompts, but {listed} {name}")
        return self

    def _check_embedding(self) -> None:
        """Check that token groups and channels are within the model's embedding."""
        if (part := self.embedding_edges) is None:
            return
        if self.level == "head":
            raise ValueError("embedding edges are of circuits of nodes only")
        ids = (t for group in part.groups for t in (*group.token_ids, *group.unseen_ids))
        for name, largest, size in (
            ("token", max(ids, default=-1), self.model.vocab_size),
            ("channel", max(part.channels, default=-1), self.model.d_model),
        ):
            if largest >= size:
                raise ValueError(f"embedding {name} {largest} is beyond the model's {size}")

    def _check_level(self) -> None:
        """Check that the circuit has parts of its own level only."""
        paths = [(edge.source, edge.target) for edge in self.path_edges]
        if len(set(paths)) < len(paths):
            raise ValueError("path edges must be there once each")
        if self.level == "head" and (self.nodes or self.patching is None):
            raise ValueError("a head-level circuit has `patching`, and path edges for nodes")
        if self.level == "node" and (paths or self.patching is not None):
            raise ValueError("path edges are of head-level circuits only")
        for source, target in paths:
            self._check_path(split_component(source), split_component(target), (source, target))

    def _check_path(self, source: Component, target: Component, names: tuple[str, str]) -> None:
        """Check that a path edge leads from a component that writes to one that reads later."""
        writes = source.kind != "final_resid" and source.input is None
        reads = target.kind != "embed" and (target.kind == "head") == (target.input is not None)
        if not (writes and reads and source.depth < target.depth):
            raise ValueError(f"there is no path edge {names[0]} -> {names[1]}")
        for part in (source, target):
            if part.layer >= self.model.n_layer or part.head >= self.model.n_head:
                shape = (
                    f"{number_of(self.model.n_layer, 'layer')} of "
                    f"{number_of(self.model.n_head, 'head')}"
                )
                raise ValueError(f"{names[0]} -> {names[1]} is beyond the {shape}")

    @property
    def n_edges_between_nodes(self) -> int | None:
        """`n_edges`, also of an earlier version's file if it says that no edge was pruned."""
        if self.n_edges is None and self.provenance.settings.get("prune_edges") is False:
            return len(self.edges)
        return self.n_edges

    def _counts(self) -> dict[str, str]:
        """Return the keys of the lengths that the file states too, with the names of the lists.

        Earlier versions wrote the number of kept edges as `n_edges`; a document without the other
        number still does.
        """
        edges = "n_edges" if self.n_edges is None else "n_kept_edges"
        counts = {"n_nodes": "nodes", edges: "edges", "n_io_edges": "io_edges"}
        return counts if self.level == "node" else {**counts, "n_path_edges": "path_edges"}

    def to_json(self) -> dict[str, Any]:
        """Return the content of circuit.json as JSON values.

        What earlier versions did not record is left out where it is None, so that the document of
        an old file gives the same JSON.
        """
        values = self.model_dump(mode="json")
        if self.level == "node":
            del values["level"], values["path_edges"], values["patching"]
        for part, key in (
            (values, "share_runs"),
            (values, "paper_size"),
            (values, "loss_reduction"),
            (values, "embedding_edges"),
            (values["model"], "trained_on_tasks"),
            (values["task"], "used_fingerprint"),
            (values["provenance"], "mean_error_median"),
            (values["provenance"], "mean_error_largest"),
            (values["provenance"], "excluded"),
            (values["provenance"], "attack"),
        ):
            if part[key] is None:
                del part[key]
        for part in (*values["nodes"], *values["edges"]):
            if part["share"] is None:
                del part["share"]
        for edge in values["io_edges"]:
            for key in [key for key, value in edge.items() if value is None]:
                del edge[key]
        n_edges = values.pop("n_edges")
        counts = {key: len(values[name]) for key, name in self._counts().items()}
        if n_edges is not None:
            counts["n_edges"] = n_edges
        return {"format": FORMAT, "version": VERSION, **values, **counts}

    @classmethod
    def of_json(cls, values: Any, where: str) -> "Document":
        """Return the document of JSON values, after checking them.

        Raises:
            InputError: another format, a newer version, or a part that is missing or wrong.
        """
        file_format = values.get("format") if isinstance(values, dict) else None
        if file_format != FORMAT:
            raise InputError(
                f"{where} is not a circuit: expected format {FORMAT!r}, got {quoted(file_format)}"
            )
        version = values.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise InputError(f"{where}: expected version {VERSION}, got {quoted(version)}")
        if version > VERSION:
            raise InputError(
                f"{where} has version {quoted(version)}, this wirework reads up to {VERSION}: "
                "update it"
            )
        for name, most in MOST.items():
            listed = values.get(name)
            if isinstance(listed, list) and len(listed) > most:
                raise InputError(f"{where} lists {len(listed):,} {name}: at most {most:,} are read")
        # Without n_kept_edges, n_edges is the number of kept edges, as earlier versions wrote it.
        has_both = values.get("n_kept_edges") is not None
        document = checked(cls, values if has_both else {**values, "n_edges": None}, where)
        for key, name in document._counts().items():
            listed, said = len(getattr(document, name)), values.get(key)
            if listed != said:
                raise InputError(
                    f"{where}: {key} is {quoted(said)}, but {listed} {name} are listed"
                )
        return document


def _rising(places: Sequence[tuple[int, ...]]) -> bool:
    return all(first < second for first, second in pairwise(places))
