"""The verb that explains a circuit in words."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wirework import files
from wirework.commands.arguments import Json, not_resumable, prepared, task_of
from wirework.commands.printing import (
    print_next,
    print_paragraph,
    print_verdict,
    print_wrote,
    show,
    show_rows,
)
from wirework.errors import number_of

if TYPE_CHECKING:
    from wirework.circuits.reading import CircuitExplanation

_FILES = ("explanation.json", "explanation.md")


def explain_circuit(
    circuit: Path,
    /,
    *,
    out: Path | None = None,
    model: Path | None = None,
    task: str | None = None,
    corpus: str | None = None,
    pairs: int = 64,
    patterns: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Print sentences about a circuit, each with the experiment that backs or refuses it.

    Args:
        circuit: Circuit folder.
        out: Folder of the explanation, `explanation.json` and `explanation.md`, which is replaced.
        model: Model or run folder, if it has moved since the circuit was found.
        task: Behaviour of the circuit; needed if it is a function, because code that only a file
            names is not run.
        corpus: Training text, as `--data.corpus` of train, for a model outside a run folder.
        pairs: Most pairs to read, and most held-out pairs for the experiments.
        patterns: Also learn token patterns that say where in text each node is above and below 0.
    """
    from wirework.circuits import model_of
    from wirework.circuits.reading import explain_circuit as explain
    from wirework.circuits.reading.explanation_text import to_markdown
    from wirework.measures import node_patterns, prepared_text
    from wirework.model import load

    if out is not None:
        files.check_folder(out, "an explanation", _FILES)
    with not_resumable():
        loaded = model_of(circuit) if model is None else load(model)
        text = None if corpus is None else prepared(loaded, corpus)
        if patterns and text is None:
            text = prepared_text(loaded, None)  # so that a missing text is said before the work
        data = None if text is None else text.train
        own_task = None if task is None else task_of(task)
        explanation = explain(circuit, loaded, own_task, data=data, pairs=pairs)
        if patterns:
            found = node_patterns(explanation.nodes, loaded, text=text)
            explanation = replace(explanation, patterns=found)
        if out is not None:
            with files.atomic_dir(out) as partial:
                files.write_json(partial / _FILES[0], explanation.to_dict())
                files.write_text(partial / _FILES[1], to_markdown(explanation))
    if json:
        show("explanation", explanation.to_dict(), json)
        return
    _print(explanation)
    if out is not None:
        print_wrote(*(out / name for name in _FILES))
    print_next("attack", circuit, "--out", circuit.with_name(f"{circuit.name}-attack"))


def _print(explanation: "CircuitExplanation") -> None:
    from wirework.circuits.reading.explanation_text import (
        by_contrast,
        driving_text,
        embedding_row,
        pattern_row,
    )

    print_verdict(
        f"{explanation.n_explained} of {number_of(explanation.n_nodes, 'node')} of the circuit of "
        f"{explanation.task} are in a sentence that an experiment confirms; these nodes alone have "
        f"a task loss of {explanation.loss_explained:.3f} (all: {explanation.loss:.3f}, target "
        f"{explanation.target_loss:g}) on {number_of(explanation.n_pairs, 'held-out pair')}"
    )
    print_paragraph(f"tokens that decide: {explanation.deciding}")
    for number, sentence in enumerate(explanation.sentences, 1):
        print()
        print_paragraph(f"{number}. {'' if sentence.stands else 'REFUSED: '}{sentence.text}")
        print_paragraph(f"{sentence.experiment}.", "   ")
    print()
    rows = [
        {
            "node": node.node,
            "role": node.role,
            "contrast": round(node.contrast, 2),
            explanation.first: round(node.at_place.first, 2),
            explanation.second: round(node.at_place.second, 2),
            "driven by": driving_text(node),
        }
        for node in by_contrast(explanation)
    ]
    show_rows("nodes, the largest contrast between the two contexts first", rows, False)
    if explanation.embedding is not None:
        read = [embedding_row(reading) for reading in explanation.embedding]
        show_rows("what it reads from the embedding (losses in nats)", read, False)
    if explanation.patterns is not None:
        found = [pattern_row(one) for one in explanation.patterns]
        show_rows(
            "where in text its nodes are above and below 0 (score: 1.00 is best)", found, False
        )
