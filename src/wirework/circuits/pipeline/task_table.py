"""Markdown table of the circuits of many tasks. Needs no torch."""

from collections.abc import Iterable, Mapping
from typing import Any

from wirework.errors import number_of

LEVELS = ("sufficient", "specific", "robust", "minimal")
"""The levels of a verdict."""

LEVEL_WORDS = {True: "met", False: "failed", None: "open"}
"""The values of a level's `met` in words."""

_COLUMNS = {
    "task": "task",
    "n_nodes": "nodes",
    "n_edges": "edges",
    "n_kept_edges": "kept edges",
    "n_embedding_edges": "embedding edges",
    "n_token_groups": "token groups",
    "model": "model",
    "circuit": "circuit",
    "held_out": "held out",
    "held_out_templates": "held-out templates",
    "rephrased": "rephrased",
    "resampled": "resampled",
    "adversarial_ablation": "adversary, per prompt",
    "without_circuit": "without",
    "paper_nodes": "paper nodes",
    "paper_edges": "paper edges",
    "paper_loss": "paper loss",
    "paper_loss_calibrated": "paper calibrated",
    "paper_held_out": "paper held out",
    "paper_held_out_calibrated": "paper held out, calibrated",
    "controls": "controls",
    **{name: name for name in LEVELS},
    "verdict": "verdict",
}

_OPTIONAL = {"adversarial_ablation", "n_embedding_edges", "n_token_groups", *LEVELS}
"""Columns of full reports, of circuits with embedding edges and of reports with levels; left out
where no row has them."""

CONTROL_NAMES = {"nonsense task": "random labels"}
"""Controls whose key in a report is not the name that is shown."""


def markdown(table_rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table of the rows that `prune_all` returns; losses in nats, three decimals.

    Last lines say how the losses combine the two prompts of a pair, and that the model was trained
    on the tasks, if the rows have it.
    """
    table_rows = list(table_rows)
    with_circuit = [row for row in table_rows if not row.get("reason")]
    held = {name for row in with_circuit for name in row}
    columns = {
        name: title for name, title in _COLUMNS.items() if name in held or name not in _OPTIONAL
    }
    lines = [_line(columns.values()), _line("---" for _ in columns)]
    lines += [_line(_cell(row.get(name)) for name in columns) for row in with_circuit]
    passed_over = [f"- {row['task']}: {row['reason']}" for row in table_rows if row.get("reason")]
    reductions = dict.fromkeys(filter(None, (row.get("loss_reduction") for row in table_rows)))
    said = [f"Task losses in nats: {name} over the two prompts of a pair." for name in reductions]
    if any(row.get("trained_on_tasks") for row in table_rows):
        said.append("The model was trained on text drawn from the generators of these tasks.")
    parts = [part for part in (lines, passed_over, said) if part]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def with_kept_edges(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return stored rows in today's form: an earlier version's `n_edges` counts kept edges."""
    return [
        dict(row)
        if "n_kept_edges" in row
        else {**row, "n_edges": None, "n_kept_edges": row.get("n_edges")}
        for row in rows
    ]


def judged(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table entries of a validation report: losses in nats, controls in words.

    A short report, or one of an earlier version, has no adversarial ablation and no entry for it.
    The levels of the verdict, in words, are absent from a report of an earlier version.
    """
    adversary = report.get("adversarial_ablation")
    levels = report["verdict"].get("levels", {})
    return {
        "held_out": report["held_out"]["circuit"],
        "held_out_templates": report.get("held_out_templates", {}).get("circuit"),
        "rephrased": report["rephrased"].get("circuit"),
        "resampled": report["resampled"].get("resample"),
        **({} if adversary is None else {"adversarial_ablation": adversary.get("per_prompt")}),
        "controls": _controls(report["controls"]),
        **{name: LEVEL_WORDS[level["met"]] for name, level in levels.items()},
    }


def levels_met(row: Mapping[str, Any]) -> str:
    """Return the names of the levels that the circuit of a row meets, or `none`.

    It is empty if the row has no levels, as one of an earlier version.
    """
    if not any(name in row for name in LEVELS):
        return ""
    return ", ".join(name for name in LEVELS if row.get(name) == LEVEL_WORDS[True]) or "none"


def _controls(controls: Mapping[str, Mapping[str, Any]]) -> str:
    """Return for each control how often, or at what size, it reached the target."""
    named = ((CONTROL_NAMES.get(key, key), control) for key, control in controls.items())
    return "; ".join(f"{name}: {_outcome(control)}" for name, control in named)


def _outcome(control: Mapping[str, Any]) -> str:
    if "reason" in control:
        return "not run"
    if "n_sufficient" in control:
        return f"{control['n_sufficient']} of {control['n']} reach the target"
    nodes = number_of(control["n_nodes"], "node")
    return f"reached with {nodes}" if control["reached"] else "not reached"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
