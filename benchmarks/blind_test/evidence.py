"""What `validate` measures on one circuit, without any control: the numbers that are calibrated."""

from typing import Any

from benchmarks.blind_test.specimens import Specimen
from wirework.circuits.held_out import pairs_of
from wirework.circuits.validation.context import ValidationContext
from wirework.circuits.validation.validate import check_circuit
from wirework.circuits.validation.validation_report import Controls
from wirework.circuits.validation.verdict import verdict

Record = dict[str, Any]


def evidence(specimen: Specimen, text: Any) -> Record:
    """Check a circuit and judge it without controls, which could only make it fail more often.

    Returns:
        Sizes, losses in nats, `met` of each level and, by criterion, `met`, `value` and `bar`.
    """
    circuit, model, task = specimen
    pairs = pairs_of(circuit.document, model, task)
    results = check_circuit(ValidationContext.of(circuit, model, pairs, text), short=True)
    target = circuit.document.target_loss
    judged = verdict(results, Controls(), target_loss=target, n_nodes=circuit.n_nodes)
    assert judged.levels is not None
    levels = judged.levels.to_dict()
    return {
        "n_nodes": circuit.n_nodes,
        "n_kept_edges": circuit.n_kept_edges,
        "n_held_out": results.held_out.n_pairs,
        "target_loss": target,
        "chance": results.held_out.chance,
        "searched_loss": circuit.task_loss,
        "circuit_error": results.held_out.circuit_error,
        "other": results.interchange.other,
        "levels": {name: level["met"] for name, level in levels.items()},
        "criteria": {
            criterion.pop("name"): {key: criterion.get(key) for key in ("met", "value", "bar")}
            for level in levels.values()
            for criterion in level["criteria"]
        },
    }
