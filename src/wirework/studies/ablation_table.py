"""Table of the self-ablation study: means over seeds, standard errors, the published figures.

Source of the figures: Ferrao et al. 2025, the table of ablations (8 layers, TinyStories, one seed).
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import mean
from typing import Any, NamedTuple

from wirework.summaries import Report
from wirework.view.figures.figure_measures import TITLES

MEASURES = {
    name: TITLES[name]
    for name in (
        "path_edges", "task_accuracy", "sae_l0", "ce_score", "explanation_score", "perplexity",
        "mean_abs_weight", "mean_abs_weight_embedded", "gate_live_fraction", "dead_units",
    )
}  # fmt: skip
"""Columns of the table: those of the paper, the whole model's accuracy on the task whose edges are
counted, the explanation score, for which the paper has no figure, and the use of the gates."""

# The published mean weights cover all parameters, embeddings included, although the text says
# otherwise: the baseline's 0.44 is the mean over 14,535,249 of them (docs/measures.md).
_PAPER_COLUMNS = ("path_edges", "sae_l0", "ce_score", "perplexity", "mean_abs_weight_embedded")
_PAPER: dict[tuple[str | None, int | None], tuple[float, ...]] = {
    (None, None): (79, 7.22, 0.63, 5.73, 0.44),
    ("global", 8): (70, 5.22, 0.65, 6.97, 0.74),
    ("local", 8): (36, 5.00, 0.72, 6.47, 0.67),
    ("global", 4): (41, 4.90, 0.67, 6.73, 0.72),
    ("local", 4): (30, 4.01, 0.65, 6.58, 0.76),
    ("global", 2): (30, 4.57, 0.71, 6.66, 0.73),
    ("local", 2): (54, 4.90, 0.70, 6.55, 0.71),
    ("global", 1): (38, 5.48, 0.66, 6.49, 0.62),
    ("local", 1): (36, 5.33, 0.69, 6.58, 0.70),
}


class Claim(NamedTuple):
    """A claim of the paper about gated models, compared with the plain model."""

    measure: str
    sign: int
    """1: the measure grows with gates; -1: it shrinks."""
    text: str


CLAIMS = (
    Claim("path_edges", -1, "fewer ACDC edges, by up to 62%"),
    Claim("sae_l0", -1, "fewer SAE features on, by up to 44%"),
    Claim("explanation_score", 1, "neurons easier to explain"),
    Claim("perplexity", 1, "at the price of perplexity, up to about 20%"),
    Claim("mean_abs_weight_embedded", 1, "with larger weights, embeddings among them: no sparser"),
)


@dataclass(frozen=True, repr=False)
class SeedMean(Report):
    """Mean of a measure over seeds."""

    mean: float | None
    """None if no seed has a number."""
    standard_error: float | None
    """None for fewer than two seeds."""
    n: int
    """Seeds that have a number."""
    paper: float | None
    """The published figure; None if there is none."""

    def __str__(self) -> str:
        """Return the text of a cell: mean, standard error and, in brackets, the paper's figure."""
        if self.mean is None:
            return "-"
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2g}"
        return f"{self.mean:.4g}{error}{'' if self.paper is None else f' ({self.paper:g})'}"


@dataclass(frozen=True, repr=False)
class AblationRow(Report):
    """The models of one level and k, or the plain ones."""

    level: str | None
    """None: the plain models."""
    k: int | None
    measures: Mapping[str, SeedMean]
    """By the names of `MEASURES`; in JSON they stand beside `level` and `k`."""

    def to_dict(self) -> dict[str, Any]:
        """Return `level`, `k` and the measures as one level of JSON."""
        about = super().to_dict()
        return {"level": about["level"], "k": about["k"], **about["measures"]}


@dataclass(frozen=True, repr=False)
class ClaimVerdict(Report):
    """Verdict on a claim of the paper."""

    claim: str
    verdict: str
    """`held`, `held in part`, `did not show`, `did not hold`, `cannot tell: ...` (see `claims`) or
    `not measured`."""


@dataclass(frozen=True, repr=False)
class MeasuredVerdict(ClaimVerdict):
    """Verdict on a claim, with the numbers behind it."""

    settings: int
    """Settings that were compared with the plain model; a setting is one level and k."""
    in_direction: int
    """Settings with the claimed sign."""
    beyond_two_standard_errors: int
    """Settings whose difference has the claimed sign and is larger than two standard errors."""
    largest_change: float | None
    """In the claimed direction, as a share of the plain model's value; None if that is 0."""


def rows_of(cells: Sequence[Mapping[str, Any]]) -> list[AblationRow]:
    """Return a row for each level and k, the plain model first.

    Args:
        cells: `level`, `k` and `report` of each model.
    """
    groups: dict[tuple[str | None, int | None], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["level"], cell["k"]), []).append(cell["report"]["headline"])
    return [
        AblationRow(
            level,
            k,
            {name: _seed_mean(headlines, level, k, name) for name in MEASURES},
        )
        for (level, k), headlines in groups.items()
    ]


def claims(rows: Sequence[AblationRow]) -> list[ClaimVerdict]:
    """Return a verdict on each of the paper's claims.

    A difference counts as clear if it is larger than two of its standard errors. The verdict is
    `held` (the claimed sign in every setting, clear in most), `did not hold` (the claimed sign in
    less than half of the settings), `did not show` (clear in none), `held in part` (all else),
    `cannot tell` with the reason, or `not measured`.
    """
    plain = next((row for row in rows if row.level is None), None)
    gated = [row for row in rows if row.level is not None]
    if plain is None:
        return []
    return [_judge_claim(claim, plain, gated) for claim in CLAIMS]


def markdown_table(rows: Sequence[AblationRow]) -> str:
    """Return the table as Markdown, the published figures in brackets."""
    lines = [["ablation", "k", "seeds", *MEASURES.values()], ["---"] * (3 + len(MEASURES))]
    for row in rows:
        k = "-" if row.k is None else str(row.k)
        counts = {measure.n for measure in row.measures.values()} - {0} or {0}
        seeds = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
        lines.append([row.level or "none", k, seeds, *map(str, row.measures.values())])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def csv_table(rows: Sequence[AblationRow]) -> str:
    """Return the table as CSV, with four columns for each measure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = [part.name for part in fields(SeedMean)]
    writer.writerow(["level", "k", *(f"{name}_{part}" for name in MEASURES for part in parts)])
    for row in rows:
        values = [getattr(row.measures[name], part) for name in MEASURES for part in parts]
        writer.writerow([row.level or "none", row.k, *values])
    return text.getvalue()


def _seed_mean(
    headlines: Sequence[Mapping[str, Any]], level: str | None, k: int | None, name: str
) -> SeedMean:
    from scipy.stats import sem  # here: scipy.stats takes half a second to import

    values = [headline[name] for headline in headlines if headline[name] is not None]
    published = dict(zip(_PAPER_COLUMNS, _PAPER.get((level, k), ()), strict=False))
    return SeedMean(
        mean=mean(values) if values else None,
        standard_error=float(sem(values)) if len(values) > 1 else None,
        n=len(values),
        paper=published.get(name),
    )


def _judge_claim(claim: Claim, plain: AblationRow, gated: Sequence[AblationRow]) -> ClaimVerdict:
    base = plain.measures[claim.measure]
    others = [row.measures[claim.measure] for row in gated]
    compared = [(other, other.mean) for other in others if other.mean is not None]
    if base.mean is None or not compared:
        return ClaimVerdict(claim.text, "not measured")
    errors = [_difference_error(base, other) for other, _ in compared]
    gains = [claim.sign * (value - base.mean) for _, value in compared]
    n_in_direction = sum(gain > 0 for gain in gains)
    n_clear = sum(
        error is not None and gain > 2 * error for gain, error in zip(gains, errors, strict=True)
    )
    if all(error is None for error in errors):
        verdict = "cannot tell: too few seeds"
    elif not base.mean:
        verdict = "cannot tell: the plain model has none"
    elif n_in_direction == len(gains) and 2 * n_clear > len(gains):
        verdict = "held"
    elif 2 * n_in_direction < len(gains):
        verdict = "did not hold"
    elif n_clear:
        verdict = "held in part"
    else:
        verdict = "did not show"
    return MeasuredVerdict(
        claim.text,
        verdict,
        settings=len(gains),
        in_direction=n_in_direction,
        beyond_two_standard_errors=n_clear,
        largest_change=max(gains) / abs(base.mean) if base.mean else None,
    )


def _difference_error(first: SeedMean, second: SeedMean) -> float | None:
    """Return the standard error of a difference of means; None if either has a single seed."""
    if first.standard_error is None or second.standard_error is None:
        return None
    return math.hypot(first.standard_error, second.standard_error)
