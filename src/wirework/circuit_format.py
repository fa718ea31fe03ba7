"""The parts of circuit.json, typed and checked (docs/architecture.md, Circuit folder). No torch.

Written by `circuits`, read by it and by the page. Keys that this version does not know are ignored,
so that the format can grow.
"""

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    model_validator,
)

from wirework.config import NODE_KINDS, PathAblation, PathMetric
from wirework.errors import InputError, number_of, quoted

_Kind = TypeVar("_Kind", bound=BaseModel)

FORMAT = "wirework-circuit"
VERSION = 1

MOST = {"nodes": 500_000, "edges": 2_000_000, "io_edges": 2_000_000, "path_edges": 500_000}
"""Longest lists that are read; the largest models have some hundred thousand nodes."""
MOST_PAIRS = 100_000
"""Most pairs of a task that a circuit is found for."""
_QUOTED = 200
_DEPTH = 20
"""Deepest nesting of the settings in a provenance."""

Text = Annotated[str, Field(max_length=100_000)]
"""A name: pydantic looks at the characters of bounded text, and refuses half a character.

Tokens may have one: what shows them writes it as an escape.
"""
Index = Annotated[int, Field(ge=0, lt=2**31)]
Size = Annotated[int, Field(ge=1, lt=2**31)]
Large = Annotated[int, Field(ge=0, lt=2**53)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
"""In what share of repeated searches a part of a circuit was found again."""


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings of any kind if they can be written as JSON again.

    Raises:
        ValueError: a number that is not finite, half a character, or values nested too deeply.
    """
    left: list[tuple[Any, int]] = [(values, 0)]
    while left:
        value, depth = left.pop()
        if depth > _DEPTH:
            raise ValueError(f"values are nested more than {_DEPTH} deep")
        if isinstance(value, dict):
            left += [(one, depth + 1) for pair in value.items() for one in pair]
        elif isinstance(value, list | tuple):
            left += [(one, depth + 1) for one in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
        elif isinstance(value, str) and not value.isascii():
            _check_unicode(value)
    return values


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{quoted(text)} holds half a character") from None


class Part(BaseModel):
    """Base of all parts: frozen, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ModelPart(Part):
    """The model that a circuit was found in; `n_weights` counts matrices and biases (App. A.2)."""

    fingerprint: Text
    path: Text | None
    n_layer: Annotated[int, Field(ge=1, le=10_000)]
    d_model: Size
    n_head: Size
    d_head: Size
    d_mlp: Size
    vocab_size: Size
    n_weights: Large
    n_nonzero: Large


class TaskPart(Part):
    """The behaviour that it carries: `n_pairs` judged it.

    `path`, `seed` and `n_all` are what `load_task` needs to get all its pairs again, and
    `fingerprint` tells whether it did.
    """

    name: Text
    answers: tuple[str, ...]
    n_pairs: Index
    path: Text | None = None
    seed: Seed = 0
    n_all: Annotated[int, Field(ge=0, le=MOST_PAIRS)] = 0
    fingerprint: Text = ""
    n_held_out: Index = 0
    """How many pairs no search, clean-up or calibration has seen; 0 where a file does not say."""


Pairs = Literal["judged", "held out"]
"""Which pairs a loss is of: those that judged the circuit, or those that nothing was fitted to."""


class Losses(Part):
    """Task losses in nats; `Document.loss_pairs` says on which pairs.

    What is removed rests at means over a second sample of text, which the search has not seen,
    unless said.
    """

    model: float
    circuit: float
    circuit_calibrated: float
    """With the scale and shift that were fitted on the pairs that judged the circuit."""
    without_circuit: float
    chance: float
    circuit_searched: float | None = None
    """With the means that the search was fitted to. None where there is no second sample."""
    circuit_held_out: float | None = None
    """What `circuit_calibrated` is to be compared with: the same pairs, no scale and shift."""
    circuit_error: float | None = None
    """Standard error of `circuit` over pairs; None of a single pair."""
    circuit_means_error: float | None = None
    """Standard error of `circuit` over samples of the means; None where only one is known."""


class CalibrationPart(Part):
    """Scale and shift of the answers' logit difference."""

    scale: float
    shift: float


class Node(Part):
    """One channel at one site, the mean it rests at when ablated, and the finder's score."""

    site: str
    index: Index
    mean: float
    score: float | None = None
    share: Share | None = None


class Edge(Part):
    """A nonzero weight between two kept nodes, named by their places among the nodes."""

    source: Index
    target: Index
    weight: float
    share: Share | None = None


class IoEdge(Part):
    """An embedding entry read by `target`, or an unembedding entry written by `source`."""

    token: str | None = None
    answer: str | None = None
    token_id: Index
    source: Index | None = None
    target: Index | None = None
    weight: float

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        reads = self.token is not None and self.target is not None
        writes = self.answer is not None and self.source is not None
        if reads == writes:
            raise ValueError("needs either token and target or source and answer")
        return self


class PathEdge(Part):
    """A link of the head-level graph: what `source` writes, as `target` reads it (ACDC).

    `effect` is by how much the metric grows without it, in the metric's units (lower metrics are
    better, so what helps is above zero): measured when it was tried (ACDC) or estimated to first
    order (edge attribution).
    """

    source: Text
    target: Text
    effect: float | None = None


class PatchingPart(Part):
    """What the path edges of a head-level circuit were judged by, and what they come to.

    Everything but `tau` is of the patched run on the prompts that judged them: all path edges but
    the circuit's own bring what `ablation` says. `n_all` counts the path edges of the whole model.
    """

    metric: PathMetric
    ablation: PathAblation
    both: bool
    tau: float | None
    n_all: Index
    value: float
    kl: float
    logit_difference: float
    accuracy: Share
    model_logit_difference: float
    model_accuracy: Share
    n_unreachable: Index | None = None
    """Edges found that change nothing: no kept edge reaches their source, or nothing that the
    output depends on reads their target. They are not among `path_edges`, unless the settings say
    `keep_unreachable`. None in files of earlier versions, which kept them."""
    n_constant: Index | None = None
    """Edges among `path_edges` whose source no kept edge reaches but which bring a constant other
    than the ablated value, as under mean and zero ablation."""
    completeness: float | None = None
    """Of edge attribution: sum of the scores over the difference that they add up to."""


class Examples(Part):
    """Prompts as tokens; of each, the right and the wrong answer and the circuit's difference."""

    prompts: Annotated[tuple[Annotated[tuple[str, ...], FailFast()], ...], FailFast()]
    answers: Annotated[tuple[tuple[str, str], ...], FailFast()]
    logit_diff: Annotated[tuple[float, ...], FailFast()]


MeanSource = Literal["", "given text", "text of the model's run", "given means", "task prompts"]
"""Where means are from; empty where there are none, or in files of earlier versions."""


class Provenance(Part):
    """How the circuit was found."""

    finder: Text
    settings: Annotated[dict[str, Any], AfterValidator(_plain)]
    seed: Seed
    wirework: Text
    means: Text = ""
    """SHA-256 over the training text that was given for the means of the nodes or, where none was,
    over the means themselves: those that a search was fitted to, or those of the sources of path
    edges. Empty where nothing rests at a mean."""
    mean_tokens: Index | None = None
    """Tokens that each sample of the means is over; None where that is not known."""
    mean_source: MeanSource = ""


Level = Literal["node", "head"]


class Document(Part):
    """circuit.json."""

    model: ModelPart
    task: TaskPart
    target_loss: float
    reached: bool = True
    """Whether the target is met, in all the ways in which the search froze what it removed, with
    means (and values) of text that the search has not seen, where there is such text."""
    losses: Losses
    loss_pairs: dict[str, Pairs] = Field(default_factory=dict)
    """Name of a loss to its pairs; empty in files of earlier versions: all judged."""
    calibration: CalibrationPart
    nodes: Annotated[tuple[Node, ...], FailFast()]
    edges: Annotated[tuple[Edge, ...], FailFast()]
    io_edges: Annotated[tuple[IoEdge, ...], FailFast()]
    examples: Examples
    provenance: Provenance
    share_runs: Annotated[int, Field(ge=1)] | None = None
    """How many searches the shares of nodes and edges are of; None where none was repeated."""
    level: Level = "node"
    """What it is made of: nodes and edges, or path edges between heads and MLPs (ACDC)."""
    path_edges: Annotated[tuple[PathEdge, ...], FailFast()] = ()
    """In the order in which they were tested."""
    patching: PatchingPart | None = None
    """Of a head-level circuit, whose `target_loss` is its own loss: it was asked for none."""

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        for node in self.nodes:
            if split_site(node.site)[0] >= self.model.n_layer:
                raise ValueError(
                    f"{node.site} is beyond the {number_of(self.model.n_layer, 'layer')}"
                )
        places = [(*_order(node.site), node.index) for node in self.nodes]
        if not _rising(places):
            raise ValueError("nodes must be in execution order, then by index, each once")
        if not _rising([(edge.source, edge.target) for edge in self.edges]):
            raise ValueError("edges must be sorted by source, then target, each once")
        ends = [end for edge in self.edges for end in (edge.source, edge.target)]
        ends += [e for io in self.io_edges for e in (io.source, io.target) if e is not None]
        n_nodes = len(self.nodes)
        if ends and max(ends) >= n_nodes:
            raise ValueError(
                f"an edge names node {max(ends)}, but there are {number_of(n_nodes, 'node')}"
            )
        shares = [node.share for node in self.nodes] + [edge.share for edge in self.edges]
        if shares.count(None) < len(shares) and self.share_runs is None:
            raise ValueError("there are shares of searches, but share_runs is missing")
        self._check_level()
        n_prompts = len(self.examples.prompts)
        for name in ("answers", "logit_diff"):
            listed = len(getattr(self.examples, name))
            if listed != n_prompts:
                raise ValueError(f"{n_prompts} example prompts, but {listed} {name}")
        return self

    def _check_level(self) -> None:
        """Check that there are parts of one level only."""
        paths = [(edge.source, edge.target) for edge in self.path_edges]
        if len(set(paths)) < len(paths):
            raise ValueError("path edges must be there once each")
        if self.level == "head" and (self.nodes or self.patching is None):
            raise ValueError("a head-level circuit has `patching`, and path edges for nodes")
        if self.level == "node" and (paths or self.patching is not None):
            raise ValueError("path edges are of head-level circuits only")
        for source, target in paths:
            self._check_path(split_component(source), split_component(target), (source, target))

    def _check_path(self, source: "Component", target: "Component", names: tuple[str, str]) -> None:
        """Check that a path edge leads from what is written to something that reads later."""
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

    def _counted(self) -> tuple[str, ...]:
        """Return the lists whose lengths stand in the file too."""
        counted = ("nodes", "edges", "io_edges")
        return counted if self.level == "node" else (*counted, "path_edges")

    def to_json(self) -> dict[str, Any]:
        """Return what circuit.json holds."""
        values = self.model_dump(mode="json")
        if self.level == "node":
            del values["level"], values["path_edges"], values["patching"]
        if values["share_runs"] is None:
            del values["share_runs"]
        for part in (*values["nodes"], *values["edges"]):
            if part["share"] is None:
                del part["share"]
        for edge in values["io_edges"]:
            for key in [key for key, value in edge.items() if value is None]:
                del edge[key]
        counts = {f"n_{name}": len(values[name]) for name in self._counted()}
        return {"format": FORMAT, "version": VERSION, **values, **counts}

    @classmethod
    def of_json(cls, values: Any, where: str) -> "Document":
        """Check what was read from circuit.json.

        Raises:
            InputError: another format, a newer version, or a part that is missing or wrong.
        """
        found = values.get("format") if isinstance(values, dict) else None
        if found != FORMAT:
            raise InputError(
                f"{where} is not a circuit: expected format {FORMAT!r}, got {quoted(found)}"
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
        document = checked(cls, values, where)
        for name in document._counted():
            listed, said = len(getattr(document, name)), values.get(f"n_{name}")
            if listed != said:
                raise InputError(
                    f"{where}: n_{name} is {quoted(said)}, but {listed} {name} are listed"
                )
        return document


def checked(kind: type[_Kind], values: Any, where: str) -> _Kind:
    """Return what was read from a file as a typed part of ours.

    Args:
        kind: what it should be.
        values: as JSON has them.
        where: the file, for the message.

    Raises:
        InputError: something is missing, wrong or out of bounds: the first of it, in one line.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))[:_QUOTED]
        what = problem["msg"].removeprefix("Value error, ")
        said = ": ".join(part for part in (where, place, what) if part)
        raise InputError(" ".join(said.split())) from None


def split_site(site: str) -> tuple[int, str]:
    """Split `3.mlp.post_act` into layer 3 and kind `mlp.post_act`.

    Raises:
        ValueError: not the name of a site that holds nodes.
    """
    layer, _, kind = site.partition(".")
    if not (layer.isascii() and layer.isdigit() and len(layer) < 10) or kind not in NODE_KINDS:
        raise ValueError(f"{quoted(site)} is not a site that holds nodes")
    return int(layer), kind


class Component(NamedTuple):
    """An end of a path edge: what writes to or reads from the residual stream."""

    kind: Literal["embed", "head", "mlp", "final_resid"]
    layer: int = -1
    """-1, as `head`, where there is none."""
    head: int = -1
    input: str | None = None
    """What of a head reads: q, k or v."""

    @property
    def depth(self) -> float:
        """When it is met in the forward pass: components of one depth never read each other."""
        outer = {"embed": -1.0, "final_resid": float("inf")}
        return outer.get(self.kind, 2.0 * self.layer + (self.kind == "mlp"))


def split_component(name: str) -> Component:
    """Split `3.attn.5.q` into the query input of head 5 of layer 3.

    Raises:
        ValueError: not the name of an end of a path edge.
    """
    if name == "embed":
        return Component("embed")
    if name == "final_resid":
        return Component("final_resid")
    number = "(0|[1-9][0-9]{0,8})"
    found = re.fullmatch(rf"{number}\.(?:mlp|attn\.{number}(?:\.([qkv]))?)", name)
    if found is None:
        raise ValueError(f"{quoted(name)} is no end of a path edge")
    layer, head, read = found.groups()
    if head is None:
        return Component("mlp", int(layer))
    return Component("head", int(layer), int(head), read)


def _order(site: str) -> tuple[int, int]:
    """Return what sites sort by in execution order."""
    layer, kind = split_site(site)
    return layer, NODE_KINDS.index(kind)


def _rising(places: Sequence[tuple[int, ...]]) -> bool:
    return all(one < other for one, other in pairwise(places))
