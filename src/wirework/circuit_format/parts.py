"""The parts of circuit.json as types: model, task, losses, nodes, edges, examples, provenance."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, FailFast, Field, model_validator

from wirework.circuit_format.fields import (
    Index,
    Large,
    Loss,
    Part,
    Seed,
    Share,
    Size,
    Text,
    json_settings,
)
from wirework.config import PathAblation, PathCorruption, PathMetric
from wirework.errors import quoted

MOST_PAIRS = 100_000
"""Maximum number of pairs of a task that a circuit is found for."""


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
    trained_on_tasks: bool | None = None
    """Whether its training text was drawn from the generators of the tasks; None: not recorded."""


class TaskPart(Part):
    """The task of a circuit: `load_task` reloads all its pairs from `path`, `seed` and `n_all`.

    `fingerprint` tells whether the reloaded pairs are the same.
    """

    name: Text
    answers: tuple[str, ...]
    n_pairs: Index
    """Number of judging pairs."""
    path: Text | None = None
    seed: Seed = 0
    n_all: Annotated[int, Field(ge=0, le=MOST_PAIRS)] = 0
    fingerprint: Text = ""
    n_held_out: Index = 0
    """Number of pairs that no search, clean-up or calibration has seen; 0 if the file has none."""
    used_fingerprint: Text | None = None
    """SHA-256 of the training and judging pairs, to notice a split that has changed since; None in
    files of earlier versions."""


LossPairs = Literal["judged", "held out"]
"""Pairs that a loss is measured on: those that judged the circuit, or the held-out ones."""


class Losses(Part):
    """Task losses in nats; `Document.loss_pairs` says on which pairs.

    Unless said otherwise, removed nodes are ablated with the means of a second sample of text,
    which the search has not seen.
    """

    model: float
    circuit: float
    circuit_calibrated: float
    """With the scale and shift that were fitted on the judging pairs."""
    without_circuit: float
    chance: float
    circuit_searched: float | None = None
    """With the means that the search used. None if there is no second sample."""
    circuit_held_out: float | None = None
    """On the pairs of `circuit_calibrated`, without scale and shift, to compare with it."""
    circuit_error: float | None = None
    """Standard error of `circuit` over pairs; None for a single pair."""
    circuit_means_error: float | None = None
    """Standard error of `circuit` over samples of the means; None if there is only one."""


@dataclass(frozen=True)
class PaperSize:
    """Size of a circuit as the paper measures it: bisection of one ranking, and nothing else.

    The ranking is that of the trial whose bisection keeps the fewest edges (or of the score): no
    clean-up, no merging, no edge pruning, no other ranking. Removed nodes are set to the means that
    the search used. Losses are in nats, as `Losses`.

    Source: Gao et al. 2025, sec. 2.2, App. A.5.
    """

    n_nodes: Index
    """Number of kept nodes."""
    n_edges: Index
    """Number of nonzero weights between them."""
    task_loss: Loss
    """On the judging pairs: at or below the target."""
    task_loss_calibrated: Loss
    """The same after the fit of scale and shift, by 16 LBFGS steps, on these pairs."""
    held_out_loss: Loss
    """On the held-out pairs."""
    held_out_loss_calibrated: Loss
    """The same with the scale and shift that were fitted on the judging pairs."""


class CalibrationPart(Part):
    """Scale and shift of the answers' logit difference."""

    scale: float
    shift: float


class Node(Part):
    """One channel at one site, its mean for ablation, and the finder's score."""

    site: str
    index: Index
    mean: float
    score: float | None = None
    share: Share | None = None


class Edge(Part):
    """A nonzero weight between two kept nodes, given by their positions among the nodes."""

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


class TokenGroup(Part):
    """Some tokens that mean the same for a task."""

    name: Text
    """Meaning in words."""
    tokens: tuple[str, ...]
    """Texts of the tokens that occur in the prompts of the search."""
    token_ids: tuple[Index, ...]
    unseen_ids: tuple[Index, ...] = ()
    """Tokens of the same class that occur in no prompt of the search."""


class EmbeddingEdge(Part):
    """A token group whose embedding entries at a residual channel the circuit keeps."""

    group: Index
    """Position among the groups."""
    channel: Index
    n_entries: Annotated[int, Field(ge=1)]
    """Nonzero embedding entries of the group's tokens that occur in the prompts of the search."""


class EmbeddingPart(Part):
    """What a circuit reads from the embedding: edges from token groups to residual channels.

    Without such an edge all tokens of a group have one value at a channel: the mean of the channel
    over text or, if no token of the prompts has an entry there, zero. Channels that are not listed
    keep their entries: no kept node reads them, nor do the logits of the answers in
    the judging pairs.
    """

    groups: Annotated[tuple[TokenGroup, ...], Field(min_length=1), FailFast()]
    channels: tuple[Index, ...]
    """Residual channels that the circuit reads, ascending."""
    edges: Annotated[tuple[EmbeddingEdge, ...], FailFast()]
    """The kept ones, by channel, then group."""
    n_all: Index
    """Number of embedding edges before any was removed."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        listed = [t for group in self.groups for t in (*group.token_ids, *group.unseen_ids)]
        if len(set(listed)) < len(listed):
            raise ValueError("a token is in one group only, once")
        for group in self.groups:
            if len(group.tokens) != len(group.token_ids):
                raise ValueError(f"group {quoted(group.name)} has other tokens than token_ids")
        if list(self.channels) != sorted(set(self.channels)):
            raise ValueError("channels must be ascending, each once")
        places = [(edge.channel, edge.group) for edge in self.edges]
        if places != sorted(set(places)):
            raise ValueError("embedding edges must be sorted by channel, then group, each once")
        if len(places) > self.n_all:
            raise ValueError(f"n_all is {self.n_all}, but {len(places)} edges are listed")
        channels = set(self.channels)
        for edge in self.edges:
            if edge.channel not in channels or edge.group >= len(self.groups):
                raise ValueError(
                    f"there is no embedding edge of group {edge.group}, channel {edge.channel}"
                )
        return self

    def kept_entries(self) -> set[tuple[int, int]]:
        """Return (token, channel) of the kept entries, also those of tokens outside the prompts."""
        return {
            (token, edge.channel)
            for edge in self.edges
            for group in (self.groups[edge.group],)
            for token in (*group.token_ids, *group.unseen_ids)
        }


class PathEdge(Part):
    """A link of the head-level graph: the output of `source`, as `target` reads it (ACDC).

    `effect` is the increase of the metric without the edge, in the metric's units; lower metrics
    are better, so an edge that helps has an effect above zero. ACDC measures it when it tests the
    edge; edge attribution estimates it to first order.
    """

    source: Text
    target: Text
    effect: float | None = None


class PatchingPart(Part):
    """Settings and results of the patched run of a path circuit.

    All but `tau` describe the run on the prompts of the search in which path edges outside the
    circuit contribute their ablated value. `n_all` counts the path edges of the whole model.
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
    """Number of edges found that change nothing: no kept edge reaches their source, or nothing that
    the output depends on reads their target. They are not among `path_edges`, unless the settings
    say `keep_unreachable`. None in files of earlier versions, which kept them."""
    n_constant: Index | None = None
    """Number of edges among `path_edges` whose source no kept edge reaches, but which contribute a
    constant other than the ablated value, as under mean and zero ablation."""
    completeness: float | None = None
    """Of edge attribution: sum of the scores, divided by the difference that they explain."""
    corruption: PathCorruption | None = None
    """Corrupted prompt of each clean one. None in files of earlier versions, which always used the
    other prompt of the pair."""


class Examples(Part):
    """Prompts as tokens, with their right and wrong answers and the circuit's logit difference."""

    prompts: Annotated[tuple[Annotated[tuple[str, ...], FailFast()], ...], FailFast()]
    answers: Annotated[tuple[tuple[str, str], ...], FailFast()]
    logit_diff: Annotated[tuple[float, ...], FailFast()]


MeanSource = Literal["", "given text", "text of the model's run", "given means", "task prompts"]
"""Origin of the means; empty if there are none, or in files of earlier versions."""


class AttackPart(Part):
    """The attacks of a search with adversarial ablation, on the judging pairs."""

    rounds: Index
    """Searches that were made; the last one had as many sets of the adversary's values."""
    steps: Index
    """Steps of the last attack."""
    loss: Loss
    """Highest task loss that the last attack met, in nats."""
    grown_nodes: Index = 0
    """Nodes that were added after the last search, because the attack still broke its circuit."""


class Provenance(Part):
    """How the circuit was found."""

    finder: Text
    settings: Annotated[dict[str, Any], AfterValidator(json_settings)]
    seed: Seed
    wirework: Text
    means: Text = ""
    """SHA-256 of the training text that was given for the means of the nodes or, if none was given,
    of the means themselves: those of the search, or those of the sources of path edges. Empty if
    nothing is ablated with a mean."""
    mean_tokens: Index | None = None
    """Number of tokens in each sample of the means; None if it is not known."""
    mean_error_median: float | None = None
    """Median over channels of the standard error of the means with which the circuit is judged, as
    a share of the channel's standard deviation; None if it is not known."""
    mean_error_largest: float | None = None
    """The largest of these shares."""
    mean_source: MeanSource = ""
    excluded: dict[Text, tuple[Index, ...]] | None = None
    """Site to channels of the nodes that the search excluded: nodes of other circuits of the same
    task. None if it excluded none."""
    attack: AttackPart | None = None
    """What a search with adversarial ablation did; None for other searches and earlier versions."""
