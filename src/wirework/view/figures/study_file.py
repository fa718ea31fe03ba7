"""Schema of the JSON files that the figures of studies and measures are drawn from.

Each class has only the fields that are drawn; docs/measures.md and the studies' READMEs explain
them.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from wirework.circuit_format import Index, Part
from wirework.view.visible_text import plain

_LARGEST = 1e15  # of a count or a loss; drawing fails beyond it
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Size = Annotated[float, Field(ge=0, le=_LARGEST)]
Positive = Annotated[float, Field(gt=0, le=_LARGEST)]
Name = Annotated[str, Field(min_length=1, max_length=400), AfterValidator(plain)]
_Rows = Field(max_length=10_000)


def _kept_edges_only(values: Any) -> Any:
    """Read `edges` of an earlier version, the mean number of kept edges, as `kept_edges`."""
    if not isinstance(values, dict) or "kept_edges" in values or "edges" not in values:
        return values
    return {**values, "edges": None, "kept_edges": values["edges"]}


class FrontierModel(Part):
    """A model of the frontier."""

    kind: Literal["sparse", "dense"]
    width: Annotated[int, Field(gt=0, le=_LARGEST)]
    l0_count: Annotated[int, Field(gt=0, le=_LARGEST)] | None = None
    act_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    val_loss: Size
    log_kurtosis: Number | None = None
    kurtosis: Number | None = None
    n_nonzero: Size
    n_circuits: Index
    edges: Size | None
    kept_edges: Size | None = None
    paper_edges: Size | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_version(cls, values: Any) -> Any:
        return _kept_edges_only(values)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "sparse" and (self.l0_count is None or self.act_fraction is None):
            raise ValueError("a sparse model has l0_count and act_fraction")
        return self


class MatchedPair(Part):
    """A sparse and a dense model of equal loss."""

    sparse: Name
    dense: Name
    sparse_loss: Size
    dense_loss: Size


class ComparedSizes(Part):
    """Circuit sizes of both models over the tasks for which both have a circuit."""

    tasks: Annotated[tuple[str, ...], _Rows]
    sparse_edges: Size | None
    dense_edges: Size | None
    ratio: Size | None


class TargetSizes(ComparedSizes):
    """Circuit sizes of both models at a target loss, by each number of edges."""

    target_loss: Positive
    kept: ComparedSizes | None = None
    paper: ComparedSizes | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_version(cls, values: Any) -> Any:
        """Read the numbers of an earlier version, which counted kept edges, as such."""
        if not isinstance(values, dict) or "kept" in values:
            return values
        numbers = ("sparse_edges", "dense_edges", "ratio")
        return {**values, **dict.fromkeys(numbers), "kept": values}


class FrontierResults(Part):
    """`results.json` of the frontier."""

    cells: Annotated[tuple[FrontierModel, ...], _Rows]
    bigram_loss: Size | None = None
    target_loss: Positive
    pair: MatchedPair | None
    verdict: Annotated[str, Field(max_length=2000), AfterValidator(plain)] = ""
    targets: Annotated[tuple[TargetSizes, ...], _Rows] = ()


class JointHistogram(Part):
    """Joint histogram of the losses of held-out tokens under two models."""

    first: Name
    second: Name
    kind: str
    correlation: Number | None
    n_tokens: Index
    top: Positive
    counts: Annotated[
        tuple[Annotated[tuple[Size, ...], Field(max_length=1000)], ...],
        Field(min_length=1, max_length=1000),
    ]

    @model_validator(mode="after")
    def _square(self) -> Self:
        if any(len(row) != len(self.counts) for row in self.counts):
            raise ValueError(f"counts must be a square of {len(self.counts)} rows")
        return self


class TokenLosses(Part):
    """`token_losses.json`."""

    joints: Annotated[tuple[JointHistogram, ...], Field(max_length=16)]


class FinderRowPart(Part):
    """Circuit sizes of a finder at a target loss."""

    finder: Name
    target_loss: Positive
    n_tasks: Index
    edges: Size | None
    kept_edges: Size | None = None
    paper_edges: Size | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_version(cls, values: Any) -> Any:
        return _kept_edges_only(values)


class FinderCurvePart(Part):
    """Faithfulness curve of a finder's ranking on one task."""

    finder: Name
    target_loss: Positive | None
    task: Name
    n_nodes: Annotated[tuple[Annotated[int, Field(gt=0, le=_LARGEST)], ...], Field(max_length=1000)]
    faithfulness: Annotated[tuple[Number, ...], Field(max_length=1000)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.n_nodes) != len(self.faithfulness):
            raise ValueError("a curve has a faithfulness for each number of nodes")
        return self


class FinderResults(Part):
    """`finders.json`; results of earlier versions have no curves."""

    rows: Annotated[tuple[FinderRowPart, ...], _Rows]
    curves: Annotated[tuple[FinderCurvePart, ...], _Rows] = ()


class BinarisedModel(Part):
    """A model and the mean task losses of its binarised circuits."""

    model: Name
    n_weights: Positive
    n_nonzero: Positive
    n_circuits: Index
    circuit: Size
    loss: Size
    n_shared: Index
    shared_loss: Size | None
    loss_reduction: Literal["mean", "sum"] = "mean"


class BinariseResults(Part):
    """`results.json` of binarise."""

    models: Annotated[tuple[BinarisedModel, ...], _Rows]


class MeasuredMean(Part):
    """A mean over seeds, and the published figure."""

    mean: Number | None
    standard_error: Size | None
    paper: Number | None


class SelfAblationRow(Part):
    """The models of one level and k, or the plain models."""

    level: Literal["local", "global", "both"] | None
    k: Annotated[int, Field(gt=0, le=_LARGEST)] | None
    path_edges: MeasuredMean
    sae_l0: MeasuredMean
    explanation_score: MeasuredMean
    perplexity: MeasuredMean
    ce_score: MeasuredMean
    mean_abs_weight_embedded: MeasuredMean

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.level is None) != (self.k is None):
            raise ValueError("level and k come together")
        return self


class SelfAblationResults(Part):
    """`results.json` of self-ablation."""

    rows: Annotated[tuple[SelfAblationRow, ...], _Rows]


class AblationsRow(Part):
    """The models of one training choice."""

    choice: Name
    val_loss: Size | None
    val_loss_low: Size | None
    val_loss_high: Size | None
    n_circuits: Index
    edges: Size | None
    edges_low: Size | None
    edges_high: Size | None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name in ("val_loss", "edges"):
            parts = [getattr(self, f"{name}{end}") for end in ("", "_low", "_high")]
            if None in parts and parts != [None] * 3:
                raise ValueError(f"{name} comes with its range over seeds")
        return self


class AblationsResults(Part):
    """`results.json` of the ablations."""

    rows: Annotated[tuple[AblationsRow, ...], Field(min_length=1, max_length=200)]
    target_loss: Positive


class ModelHeadline(Part):
    """The headline numbers of a model."""

    headline: Annotated[dict[Name, Number | None], Field(max_length=100)]


class MeasuresFile(Part):
    """`measures.json`: reports by the names of their models."""

    reports: Annotated[dict[Name, ModelHeadline], Field(min_length=1, max_length=1000)]

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> dict[str, Any]:
        return {"reports": values}
