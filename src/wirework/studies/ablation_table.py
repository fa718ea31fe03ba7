"""Table of the self-ablation study: means over seeds, standard errors, the published figures.

Source of the figures: Ferrao et al. 2025, the table of ablations (8 layers, TinyStories, one seed).
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from wirework.view.figures.figure_measures import TITLES

Row = dict[str, Any]

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


def rows_of(cells: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return a row for each level and k, the plain model first.

    Args:
        cells: `level`, `k` and `report` of each model.

    Returns:
        `level`, `k`, and for each of `MEASURES` its `mean` (None if no seed has a number),
        `standard_error` (None for a single seed), `n` (seeds with a number) and `paper` (None if
        no figure is published).
    """
    groups: dict[tuple[str | None, int | None], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["level"], cell["k"]), []).append(cell["report"]["headline"])
    return [
        {"level": level, "k": k}
        | {
            name: _summary([headline[name] for headline in headlines], level, k, name)
            for name in MEASURES
        }
        for (level, k), headlines in groups.items()
    ]


def claims(rows: Sequence[Row]) -> list[Row]:
    """Return a verdict on each of the paper's claims.

    A setting is one level and k. A difference counts as clear if it is larger than two of its
    standard errors.

    Returns:
        For each claim:
        `claim`: its text.
        `verdict`: `held` (the claimed sign in every setting, clear in most), `did not hold` (the
        claimed sign in less than half of the settings), `did not show` (clear in none), `held in
        part` (all else), `cannot tell` with the reason, or `not measured`.
        `settings`, `in_direction`, `beyond_two_standard_errors`: numbers of settings: all, those
        with the claimed sign, those that are clear.
        `largest_change`: in the claimed direction, as a share of the plain model's value.
    """
    plain = next((row for row in rows if row["level"] is None), None)
    gated = [row for row in rows if row["level"] is not None]
    if plain is None:
        return []
    return [_judge_claim(claim, plain, gated) for claim in CLAIMS]


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, the published figures in brackets."""
    lines = [["ablation", "k", "seeds", *MEASURES.values()], ["---"] * (3 + len(MEASURES))]
    for row in rows:
        k = "-" if row["k"] is None else str(row["k"])
        counts = {row[name]["n"] for name in MEASURES} - {0} or {0}
        seeds = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
        cells = (shown_cell(row[name]) for name in MEASURES)
        lines.append([row["level"] or "none", k, seeds, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def csv_table(rows: Sequence[Row]) -> str:
    """Return the table as CSV, with four columns for each measure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "standard_error", "n", "paper")
    writer.writerow(["level", "k", *(f"{name}_{part}" for name in MEASURES for part in parts)])
    for row in rows:
        values = [row[name][part] for name in MEASURES for part in parts]
        writer.writerow([row["level"] or "none", row["k"], *values])
    return text.getvalue()


def shown_cell(summary: Row) -> str:
    """Return the text of a cell: mean, standard error and, in brackets, the published figure."""
    if summary["mean"] is None:
        return "-"
    error, paper = summary["standard_error"], summary["paper"]
    spread = "" if error is None else f" ± {error:.2g}"
    return f"{summary['mean']:.4g}{spread}{'' if paper is None else f' ({paper:g})'}"


def _summary(values: Sequence[float | None], level: str | None, k: int | None, name: str) -> Row:
    from scipy.stats import sem  # here: scipy.stats takes half a second to import

    measured = [value for value in values if value is not None]
    published = dict(zip(_PAPER_COLUMNS, _PAPER.get((level, k), ()), strict=False))
    return {
        "mean": mean(measured) if measured else None,
        "standard_error": float(sem(measured)) if len(measured) > 1 else None,
        "n": len(measured),
        "paper": published.get(name),
    }


def _judge_claim(claim: Claim, plain: Row, gated: Sequence[Row]) -> Row:
    base = plain[claim.measure]
    gated_summaries = [
        row[claim.measure] for row in gated if row[claim.measure]["mean"] is not None
    ]
    if base["mean"] is None or not gated_summaries:
        return {"claim": claim.text, "verdict": "not measured"}
    gains = [claim.sign * (other["mean"] - base["mean"]) for other in gated_summaries]
    in_direction = [gain for gain in gains if gain > 0]
    beyond = sum(
        gain > 2 * spread
        for gain, other in zip(gains, gated_summaries, strict=True)
        if (spread := _difference_error(base, other)) is not None
    )
    if all(_difference_error(base, other) is None for other in gated_summaries):
        verdict = "cannot tell: too few seeds"
    elif not base["mean"]:
        verdict = "cannot tell: the plain model has none"
    elif len(in_direction) == len(gains) and 2 * beyond > len(gains):
        verdict = "held"
    elif 2 * len(in_direction) < len(gains):
        verdict = "did not hold"
    elif beyond:
        verdict = "held in part"
    else:
        verdict = "did not show"
    largest = max(gains) / abs(base["mean"]) if base["mean"] else None
    return {
        "claim": claim.text,
        "verdict": verdict,
        "settings": len(gains),
        "in_direction": len(in_direction),
        "beyond_two_standard_errors": beyond,
        "largest_change": largest,
    }


def _difference_error(summary: Row, other: Row) -> float | None:
    """Return the standard error of a difference of means; None if either has a single seed."""
    errors = summary["standard_error"], other["standard_error"]
    if errors[0] is None or errors[1] is None:
        return None
    return math.hypot(errors[0], errors[1])
