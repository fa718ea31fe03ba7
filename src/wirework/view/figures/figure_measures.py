"""Figures of measures: several models side by side, and the self-ablation study.

They are drawn from the JSON files of `measure` and of the study, without torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wirework.view.checked_file import read_checked
from wirework.view.figures import figure_pen as pen
from wirework.view.figures.figure_canvas import panels, write_png
from wirework.view.figures.study_file import MeasuresFile, SelfAblationResults

_HUES = {"local": "#1f6fb4", "global": "#c2571a", "both": "#2a9d6f"}
TITLES = {
    "path_edges": "ACDC edges",
    "sae_l0": "SAE L0",
    "explanation_score": "explanation score",
    "perplexity": "perplexity",
    "ce_score": "SAE CE score",
    "mean_abs_weight_embedded": "mean abs. weight, with embeddings",
    "task_accuracy": "task accuracy",
    "mean_abs_weight": "mean abs. weight",
    "weight_l0": "nonzero weights",
    "gate_live_fraction": "gate live fraction",
    "dead_units": "units never on",
    "log_kurtosis": "log mean kurtosis",
}
"""Title of each number of a report."""
_STUDIED = (
    "path_edges", "sae_l0", "explanation_score", "perplexity", "ce_score",
    "mean_abs_weight_embedded",
)  # fmt: skip
"""Measures in the study's figure."""
_CAPTION = (
    "Means over seeds; bars and the band are standard errors. "
    "Published figures are brought to our plain model's level by theirs."
)
_LONGEST = 24  # characters of a model's name beside its bar

JsonRow = Mapping[str, Any]


def write_self_ablation_figure(folder: str | Path) -> Path:
    """Draw `results.json` of a study's folder as `self_ablation.png` beside it.

    Raises:
        InputError: the file is missing or damaged, or the folder cannot be written to.
    """
    folder = Path(folder)
    results = read_checked(folder / "results.json", SelfAblationResults).model_dump()
    return write_png(draw_self_ablation(results["rows"]), folder / "self_ablation.png")


def write_measures_figure(folder: str | Path) -> Path:
    """Draw `measures.json` of a folder as `measures.png` beside it.

    Raises:
        InputError: the file is missing or damaged, or the folder cannot be written to.
    """
    folder = Path(folder)
    reports = read_checked(folder / "measures.json", MeasuresFile).model_dump()["reports"]
    return write_png(draw_measures(reports), folder / "measures.png")


def draw_self_ablation(rows: Sequence[JsonRow]) -> Figure:
    """Draw each measure against k, a line for each level; the plain model is a band.

    Error bars and the band's width are standard errors. Dashed lines are the published figures,
    multiplied by the ratio of our plain model to the published one.
    """
    names = [
        name for name in _STUDIED if any(row[name]["mean"] is not None for row in rows)
    ] or _STUDIED[:1]
    figure, each = panels(len(names))
    plain = next((row for row in rows if row["level"] is None), None)
    levels = list(dict.fromkeys(row["level"] for row in rows if row["level"] is not None))
    for axes, name in zip(each, names, strict=True):
        scale = _draw_plain(axes, plain, name)
        for level in levels:
            level_rows = sorted(
                (row for row in rows if row["level"] == level), key=lambda row: row["k"]
            )
            _draw_level(axes, level, level_rows, name, scale)
        _dress(axes, TITLES[name])
        axes.set_xscale("log", base=2)
        ks = sorted({row["k"] for row in rows if row["k"] is not None})
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set_xlabel("winners per token and layer (k)", fontsize=8, color=pen.SOFT)
    fullest = max(each, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    lines, labels = fullest.get_legend_handles_labels()  # of the first, if all of it was measured
    figure.legend(
        lines, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8,
        title=_CAPTION, title_fontsize=8,
    )  # fmt: skip
    return figure


def draw_measures(reports: Mapping[str, JsonRow]) -> Figure:
    """Draw a panel for each number that a model has, with a bar for each model."""
    numbers = dict.fromkeys(name for report in reports.values() for name in report["headline"])
    shown = [
        name
        for name in numbers
        if any(report["headline"].get(name) is not None for report in reports.values())
    ]
    figure, each = panels(max(len(shown), 1), size=(3.8, 0.8 + 0.3 * len(reports)))
    for axes, name in zip(each, shown, strict=False):
        values = [report["headline"].get(name) for report in reports.values()]
        places = range(len(values))
        axes.barh(places, [value or 0 for value in values], color=_HUES["local"], height=0.6)
        for place, value in zip(places, values, strict=True):
            pen.write(axes, value or 0, place, f" {_number(value)}", 11)
        place_in = axes.get_subplotspec()
        named = place_in is not None and place_in.is_first_col()
        axes.set_yticks(places, [_named(model) if named else "" for model in reports], fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.25)
        if not any(values):
            axes.set_xlim(0, 1)
        axes.locator_params(axis="x", nbins=4)
        _dress(axes, TITLES.get(name, name.replace("_", " ")))
    return figure


def _number(value: float | None) -> str:
    """Return a number as text: a whole one in full, others to four digits; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _named(model: str) -> str:
    """Return a model's name, cut to its end if it is long."""
    short = model if len(model) <= _LONGEST else f"…{model[1 - _LONGEST :]}"
    return pen.legible(short, pen.SANS)


def _draw_plain(axes: Axes, plain: JsonRow | None, name: str) -> float | None:
    """Draw the plain model's band; return the factor for the published figures."""
    if plain is None or plain[name]["mean"] is None:
        return None
    value, error, paper = (plain[name][part] for part in ("mean", "standard_error", "paper"))
    axes.axhline(value, color=pen.SOFT, linewidth=1, label="plain")
    if error is not None:
        axes.axhspan(value - error, value + error, color=pen.SOFT, alpha=0.15, linewidth=0)
    return value / paper if paper else None


def _draw_level(
    axes: Axes, level: str, rows: Sequence[JsonRow], name: str, scale: float | None
) -> None:
    measured = [row for row in rows if row[name]["mean"] is not None]
    hue = _HUES[level]
    axes.errorbar(
        [row["k"] for row in measured],
        [row[name]["mean"] for row in measured],
        [row[name]["standard_error"] or 0 for row in measured],
        color=hue, marker="o", markersize=4, linewidth=1.2, capsize=2, label=level,
    )  # fmt: skip
    published = [row for row in rows if row[name]["paper"] is not None]
    if scale is not None and published:
        axes.plot(
            [row["k"] for row in published],
            [scale * row[name]["paper"] for row in published],
            color=hue, linestyle="--", linewidth=0.8, marker="_", label=f"{level}, published",
        )  # fmt: skip


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=pen.INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
