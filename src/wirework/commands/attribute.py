"""`attribute`: rank the path edges of a behaviour by gradients."""

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from wirework.commands.arguments import Json, not_resumable, task_of
from wirework.commands.circuit_tables import on_them_alone, print_edges
from wirework.commands.printing import (
    changed_flags,
    print_next,
    print_verdict,
    print_wrote,
    show,
)
from wirework.config import PathAblation, PathCorruption, PathMetric
from wirework.console import Progress
from wirework.errors import number_of

if TYPE_CHECKING:
    from wirework.circuits import PathCircuit

_Positive = Annotated[int, Parameter(validator=validators.Number(gte=1))]


def attribute(
    model: Path,
    task: str,
    /,
    *,
    edges: _Positive = 20,
    steps: _Positive = 8,
    metric: PathMetric = "logit_difference",
    ablation: PathAblation = "corrupted",
    corruption: PathCorruption | None = None,
    symmetric: Annotated[bool, Parameter(negative="")] = False,
    pairs: _Positive = 16,
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Score all path edges, print the strongest and save the circuit of the strongest.

    Args:
        model: Model or run folder.
        task: Name of a behaviour, a JSONL file of pairs or a function (`my_tasks.py:make_pair`).
        edges: Number of edges to take, largest magnitude first; those without effect are then left
            out.
        steps: Number of points between corrupted and clean prompts at which gradients are taken; 1
            is plain edge attribution and not possible with kl.
        metric: What the score of an edge estimates the rise of; kl and task_loss are in nats.
        ablation: Value of a removed edge: its source's on the corrupted prompt, zero, or its mean.
        corruption: Corrupted prompt: the pair's other one, or the clean one with three other names
            (ioi only, and its default).
        symmetric: Use each prompt of a pair as the clean one in turn.
        pairs: Number of pairs of the task.
        seed: Seed of the choice of pairs.
        out: Folder of the circuit, which is replaced.
    """
    from wirework.circuits import check_circuit_place, edge_attribution, sweep_row
    from wirework.model import load
    from wirework.tasks import accuracy_warning, task_accuracy

    if out is not None:
        check_circuit_place(out)
    settings: dict[str, Any] = {
        "steps": steps, "metric": metric, "ablation": ablation, "corruption": corruption,
        "symmetric": symmetric, "pairs": pairs, "seed": seed,
    }  # fmt: skip
    loaded, behaviour = load(model), task_of(task)
    with not_resumable(), Progress(f"edge attribution {behaviour.name}", None):
        scores = edge_attribution(loaded, behaviour, **settings)
        circuit = scores.circuit(edges)
        if out is not None:
            circuit.save(out)
    accuracy = task_accuracy(loaded, behaviour).accuracy
    if (said := accuracy_warning(behaviour.name, accuracy)) is not None:
        print(f"warning: {said}", file=sys.stderr)
    row = sweep_row(circuit)
    del row["tau"]  # ACDC's
    values = {**row, "completeness": circuit.patching.completeness}
    ranked = scores.top(circuit.patching.n_all)
    if json:
        rows = [edge.model_dump(include={"source", "target", "effect"}) for edge in ranked]
        circuit_folder = None if out is None else str(out)
        show("attribute", {"circuit": circuit_folder, **values, "edges": rows}, json)
        return
    print_verdict(_verdict(circuit, min(edges, len(ranked))))
    show("edge attribution (losses and KL in nats)", values, json)
    print_edges(ranked, f"strongest path edges: estimated rise of {metric} without the edge")
    if out is None:
        place = Path("circuits") / f"{behaviour.name}-edges"
        parameters = inspect.signature(attribute).parameters
        defaults = {name: parameter.default for name, parameter in parameters.items()}
        flags = changed_flags({"edges": edges, **settings}, defaults)
        print_next("attribute", model, task, *flags, "--out", place)
    else:
        print_wrote(out)
        print_next("export", out, "-o", f"{out}.html")


def _verdict(circuit: "PathCircuit", n_taken: int) -> str:
    """Return a sentence on how the model does with the strongest edges alone.

    Args:
        circuit: the circuit of the strongest edges that have an effect.
        n_taken: number of edges before those without effect were left out.
    """
    part = circuit.patching
    edges = f"the strongest {number_of(n_taken, 'path edge')} of {part.n_all}, by gradient"
    if left_out := n_taken - circuit.n_path_edges:
        have = "has no effect and is" if left_out == 1 else "have no effect and are"
        edges = (
            f"{circuit.n_path_edges} of the {number_of(n_taken, 'strongest path edge')} "
            f"({left_out} {have} left out), of {part.n_all} in all"
        )
    return f"{edges}: {on_them_alone(part)}"
