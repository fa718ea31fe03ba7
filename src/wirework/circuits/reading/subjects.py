"""Beginnings of sentences about the nodes of a site that tell the two contexts apart."""

from collections.abc import Sequence

from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.reading.node_reading import NodeReading
from wirework.circuits.reading.words import code, listed
from wirework.node_names import head_name, node_name

_MOST_INPUTS = 6
"""Inputs of a neuron that a sentence lists, by the magnitude of their weight."""

_OF_HEADS = {"attn.q": "query", "attn.k": "key", "attn.v": "value"}


def subject(circuit: NodeCircuit, nodes: Sequence[NodeReading]) -> str:
    """Return the beginning of the sentence about some nodes of one site.

    Args:
        circuit: their circuit.
        nodes: at least one reading; all are of the same site.
    """
    layer, kind = nodes[0].site.split(".", 1)
    part = f"the {'attention' if kind.startswith('attn') else 'MLP'} of layer {layer}"
    names = listed([node.node for node in nodes])
    is_one = len(nodes) == 1
    if kind in _OF_HEADS:
        d_head = circuit.document.model.d_head
        heads = listed(
            [head_name(int(layer), head) for head in sorted({n.index // d_head for n in nodes})]
        )
        what = f"{'a ' if is_one else ''}{_OF_HEADS[kind]}{'' if is_one else 's'} of head {heads}"
        return f"{names}, {what}, {'carries' if is_one else 'carry'} which context it is"
    if kind.endswith("act_in"):
        return f"Through {names}, {part} reads which context it is"
    if kind == "mlp.post_act":
        neurons = listed([f"{node.node} ({_inputs(circuit, node)})" for node in nodes])
        beginning = f"Neuron {neurons} tells" if is_one else f"Neurons {neurons} tell"
        return f"{beginning} the contexts apart"
    writers = listed([f"{node.node}{_answers(circuit, node)}" for node in nodes])
    return f"Through {writers}, {part} writes which context it is"


def _inputs(circuit: NodeCircuit, node: NodeReading) -> str:
    names = _names(circuit)
    weights = {
        names[edge.source]: edge.weight for edge in circuit.edges if names[edge.target] == node.node
    }
    strongest = sorted(weights, key=lambda name: -abs(weights[name]))[:_MOST_INPUTS]
    terms = [f"{weights[name]:+.2f} x {name}" for name in strongest]
    more = [f"{len(weights) - _MOST_INPUTS} more"] if len(weights) > _MOST_INPUTS else []
    return f"from {listed(terms + more)}" if terms else "from no kept node"


def _answers(circuit: NodeCircuit, node: NodeReading) -> str:
    """Return the unembedding weights of a node to the answers in brackets, empty without any."""
    names = _names(circuit)
    weights = [
        f"{edge.weight:+.2f} for {code(edge.answer)}"
        for edge in circuit.io_edges
        if edge.source is not None and edge.answer is not None and names[edge.source] == node.node
    ]
    return f" (unembedding weight {listed(weights)})" if weights else ""


def _names(circuit: NodeCircuit) -> list[str]:
    return [node_name(node.site, node.index) for node in circuit.nodes]
