"""Patterns of a circuit's nodes, learned from training text and scored on held-out text.

The explainer of neurons says where a value is high. A node of a circuit may also fall below 0, so
each node is explained twice: as it is, and negated.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework.circuit_format import Node
from wirework.circuits.reading.node_pattern import NodePattern
from wirework.circuits.reading.node_reading import NodeReading
from wirework.config import ExplainConfig
from wirework.measures.explain.explain_run import explain_neurons
from wirework.measures.explain.record import Neuron
from wirework.node_names import node_name

if TYPE_CHECKING:
    from wirework.data import Prepared
    from wirework.model import Model


def node_patterns(
    nodes: Iterable[Node | NodeReading],
    model: "Model | str | Path",
    *,
    text: "Prepared | None" = None,
    config: ExplainConfig | None = None,
    progress: bool = True,
) -> tuple[NodePattern, ...]:
    """Return the patterns of a circuit's nodes, in execution order.

    Args:
        nodes: the nodes, `circuit.nodes` or `explanation.nodes`.
        model: the model of the circuit; a path is loaded.
        text: text prepared with the model's tokeniser; None: the text of the model's run.
        config: settings of the explainer; `only` is replaced by the nodes.
        progress: show a bar on standard error.

    Returns:
        For each node one entry, or two where it has values on both sides of 0.

    Raises:
        InputError: there is no text or too little, the model has no such node, or `config` asks for
            a language model, which needs a folder.

    Source: Foote et al. 2023 (patterns); Bills et al. 2023 (the score).
    """
    neurons = [
        Neuron(node.site, node.index, negated) for node in nodes for negated in (False, True)
    ]
    if not neurons:  # without a name the explainer would draw neurons
        return ()
    only = tuple(neuron.name for neuron in neurons)
    settings = (config or ExplainConfig()).model_copy(update={"only": only})
    explanations = explain_neurons(model, settings, text=text, progress=progress)
    return tuple(_pattern(found) for found in explanations.neurons if not found["dead"])


def _pattern(found: dict[str, Any]) -> NodePattern:
    return NodePattern(
        node=node_name(found["site"], found["index"]),
        negated=found.get("negated", False),
        pattern=found["explanation"],
        score=found["scores"]["correlation"]["top_and_random"],
    )
