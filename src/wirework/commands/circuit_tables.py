"""Terminal tables of circuits, path edges and validation reports."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wirework.commands.printing import (
    cell,
    flat,
    print_paragraph,
    print_table,
    print_values,
    print_verdict,
    show_rows,
)
from wirework.node_names import head_name

if TYPE_CHECKING:
    from wirework.circuit_format import PatchingPart, PathEdge
    from wirework.circuits import PathCircuit

_SHOWN = (
    "task", "n_nodes", "n_edges", "n_kept_edges", "paper_edges", "model", "circuit", "held_out",
    "resampled", "without_circuit", "levels_met", "verdict",
)  # fmt: skip
"""Columns of a circuit's row that fit a terminal; `results.md` and `--json` have all of them, with
a column for each level of the verdict in place of `levels_met`."""
_OPEN = ": no check failed, but some were not made"
_HEAD = (
    "task", "target_loss", "loss_reduction", "n_nodes", "n_edges", "n_kept_edges",
    "n_embedding_edges", "n_token_groups",
)  # fmt: skip
"""First entries of a validation report; the last two are of circuits with embedding edges only."""
_STRONGEST = 10
"""Number of path edges that are shown."""


def loss_unit(reduction: str) -> str:
    """Return the unit of task losses, with how they combine the two prompts of a pair."""
    return "nats" if reduction == "mean" else "nats, sum over the two prompts of a pair"


def show_circuits(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print how many circuits were found, their table, and why other tasks have none."""
    if as_json:
        show_rows("circuits", rows, as_json)
        return
    from wirework.circuits.pipeline.task_table import levels_met

    circuits = [row for row in rows if not row.get("reason")]
    faithful = sum(row["verdict"] == "faithful" for row in circuits)
    print_verdict(
        f"{len(circuits)} of {len(rows)} behaviours have a circuit, {faithful} of them faithful"
    )
    if circuits:
        with_levels = [row | {"levels_met": levels_met(row)} for row in circuits]
        shown = [{name: row.get(name) for name in _SHOWN} for row in with_levels]
        reduction = circuits[0].get("loss_reduction", "mean")
        chance = "0.693" if reduction == "mean" else "1.386"
        title = f"circuits (task losses in {loss_unit(reduction)}; chance is {chance})"
        show_rows(title, shown, as_json)
    for row in rows:
        if row.get("reason"):
            print(f"{row['task']}: {row['reason']}")


def print_report(report: Mapping[str, Any], *, title: str = "verdict") -> None:
    """Print a validation report: the verdict, its levels and reasons, then each number.

    Args:
        report: the report as a dict.
        title: word before the verdict.
    """
    from wirework.circuits.pipeline.task_table import CONTROL_NAMES, LEVEL_WORDS
    from wirework.circuits.validation.validation_report import WORDS

    faithful = report["verdict"]["faithful"]
    print_paragraph(f"{title}: {WORDS[faithful]}{_OPEN * (faithful is None)}")
    for name, level in report["verdict"].get("levels", {}).items():
        print(f"{name}: {LEVEL_WORDS[level['met']]}{_evidence(level)}")
    for reason in report["verdict"]["reasons"]:
        print(f"- {reason}")
    if calibration := report["verdict"].get("calibration"):
        print_paragraph(_calibrated(calibration))
    values = [(name, report[name]) for name in _HEAD if name in report]
    for part, numbers in report.items():
        if part not in (*_HEAD, "controls", "verdict"):
            values += [(f"{part}: {name}", value) for name, value in flat(numbers)]
    for name, control in report["controls"].items():
        values.append((f"control: {CONTROL_NAMES.get(name, name)}", cell(_gist(control))))
    print_values(f"validation (task losses in {loss_unit(report['loss_reduction'])})", values)


def _evidence(level: Mapping[str, Any]) -> str:
    """Return which criteria decided a level, by name: failed ones, else those not tested."""
    deciding = [part["name"] for part in level["criteria"] if part["met"] is level["met"]]
    return f" ({', '.join(name.replace('_', ' ') for name in deciding)})"


def _calibrated(calibration: Mapping[str, Any]) -> str:
    """Return the false-positive rate of the verdict's bars, in words."""
    return (
        f"bars: {calibration['n_passed']} of {calibration['n_null']} circuits without a mechanism "
        "are sufficient and specific by a short report; their share is at most "
        f"{calibration['highest_rate']:.1%} (95% confidence)"
    )


def _gist(control: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the main numbers of a control; `--json` has all of them."""
    if "verdict" not in control:
        return control
    loss = {"held_out loss": control["held_out"]["circuit"]}
    names = ("task", "reached", "n_nodes", "n_edges", "n_kept_edges")
    return {name: control.get(name) for name in names} | loss


def on_them_alone(part: "PatchingPart") -> str:
    """Return how the model does with a circuit's path edges alone, as the end of a verdict."""
    return (
        f"accuracy {part.accuracy:.2f} on them alone, {part.model_accuracy:.2f} in the whole model "
        f"(1.00 = always right, 0.50 = chance); KL {max(0.0, part.kl):.3g} nats (0 = the same "
        "predictions)"  # rounding may leave a KL just below 0
    )


def print_strongest(circuit: "PathCircuit") -> None:
    """Print the path edges with the greatest effect, in words."""
    metric = circuit.patching.metric
    print_edges(circuit.path_edges, f"strongest path edges: rise of {metric} without the edge")


def print_edges(edges: Sequence["PathEdge"], title: str) -> None:
    """Print the path edges with the greatest effect by magnitude, in words."""
    strongest = sorted(edges, key=lambda edge: -abs(edge.effect or 0.0))[:_STRONGEST]
    if not strongest:
        return
    rows = [[edge.source, edge.target, cell(edge.effect), _in_words(edge)] for edge in strongest]
    print_table(title, ["source", "target", "effect", "connection"], rows)


def _in_words(edge: "PathEdge") -> str:
    """Return the connection in words, as in `output of head 0.attn.1 to queries of 1.attn.0`."""
    source = "the token embedding" if edge.source == "embed" else f"output of {_end(edge.source)}"
    return f"{source} to {_end(edge.target)}"


def _end(name: str) -> str:
    if name == "final_resid":
        return "the unembedding"
    layer, _, *rest = name.split(".")
    if not rest:
        return f"the MLP of layer {layer}"
    head = f"head {head_name(int(layer), int(rest[0]))}"
    part = {"q": "queries of ", "k": "keys of ", "v": "values of "}[rest[1]] if rest[1:] else ""
    return part + head
