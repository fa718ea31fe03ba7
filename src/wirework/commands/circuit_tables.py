"""A circuit, many of them and what validation says of one, in a terminal."""

from typing import Any

from wirework.commands.printing import cell, print_table, show_rows

_SHOWN = (
    "task", "n_nodes", "n_edges", "model", "circuit", "held_out", "resampled", "without_circuit",
    "verdict",
)  # fmt: skip
"""What of a circuit's row fits a terminal; `results.md` and `--json` have all of it."""


def show_circuits(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the circuits of many tasks, then a line for each task that was passed over."""
    if as_json:
        show_rows("circuits", rows, as_json)
        return
    found = [{name: row[name] for name in _SHOWN} for row in rows if not row.get("reason")]
    if found:
        show_rows("circuits", found, as_json)
    for row in rows:
        if row.get("reason"):
            print(f"{row['task']}: {row['reason']}")


def print_report(report: dict[str, Any]) -> None:
    """Print a validation: a line for each number, then the verdict in words."""
    from wirework.circuits.pipeline.task_table import CONTROL_NAMES
    from wirework.circuits.validation.validation_report import WORDS

    names = ("task", "target_loss", "n_nodes", "n_edges")
    rows = [[name, cell(report[name])] for name in names]
    for part, values in report.items():
        if part not in (*names, "controls", "verdict"):
            rows += [[f"{part}: {name}", cell(value)] for name, value in _plain(values)]
    for name, control in report["controls"].items():
        rows.append([f"control: {CONTROL_NAMES.get(name, name)}", cell(_gist(control))])
    print_table("validation", ["", ""], rows)
    print(f"verdict: {WORDS[report['verdict']['faithful']]}")
    for reason in report["verdict"]["reasons"]:
        print(f"- {reason}")


def _gist(control: dict[str, Any]) -> dict[str, Any]:
    """Return the few numbers of a control that a reader compares; `--json` has all of it."""
    if "verdict" not in control:
        return control
    loss = {"held_out loss": control["held_out"]["circuit"]}
    return {name: control[name] for name in ("task", "reached", "n_nodes", "n_edges")} | loss


def _plain(values: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Return the numbers and words of a nested report by dotted names; long lists are left out."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _plain(value, f"{before}{name}.")
        elif not isinstance(value, list | tuple):
            found.append((f"{before}{name}", value))
    return found
