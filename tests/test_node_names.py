"""Names of nodes and heads: the same in files and wherever a person reads them."""

import torch

from wirework.circuits.adversarial.heads import HeadReading
from wirework.circuits.path_patching.graph import Graph
from wirework.circuits.scoring.scores import Scores
from wirework.measures.explain.record import Neuron
from wirework.node_names import head_name, node_name


def test_a_node_is_site_and_channel():
    assert node_name("0.attn.v", 30) == "0.attn.v.30"
    assert Neuron("3.mlp.post_act", 17).name == node_name("3.mlp.post_act", 17)
    assert "1.attn.q.2 0.5" in repr(Scores("random", "t", {"1.attn.q": torch.tensor([0, 0, 0.5])}))


def test_a_head_is_named_as_in_the_head_level_graph():
    assert head_name(1, 2) == "1.attn.2"
    graph = Graph(2, 3)
    assert graph.sources[graph.head(1, 2)] == head_name(1, 2)
    assert graph.destinations[graph.head_input(1, 0, 2)] == f"{head_name(1, 2)}.q"
    reading = HeadReading(1, 2, (9, 90), (3, 30), (0, 0), (0.5, 0.1))
    assert reading.name == head_name(1, 2)
