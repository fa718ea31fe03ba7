import pytest
from one_at_a_time import all_edges

from wirework.circuits.path_patching import Graph
from wirework.errors import InputError


def names(graph: Graph) -> list[tuple[str, str]]:
    return [(edge.source, edge.target) for edge in map(graph.named, graph.edges)]


@pytest.mark.parametrize(("n_layer", "n_head", "count"), [(4, 8, 1519), (8, 16, 23981)])
def test_counts(n_layer: int, n_head: int, count: int) -> None:
    graph = Graph(n_layer, n_head)
    assert len(graph.edges) == count
    assert set(names(graph)) == set(all_edges(n_layer, n_head))


def test_default_order_goes_from_the_last_to_the_first() -> None:
    assert names(Graph(1, 2)) == [
        ("0.mlp", "final_resid"), ("0.attn.1", "final_resid"), ("0.attn.0", "final_resid"),
        ("embed", "final_resid"),
        ("0.attn.1", "0.mlp"), ("0.attn.0", "0.mlp"), ("embed", "0.mlp"),
        ("embed", "0.attn.1.q"), ("embed", "0.attn.0.q"), ("embed", "0.attn.1.k"),
        ("embed", "0.attn.0.k"), ("embed", "0.attn.1.v"), ("embed", "0.attn.0.v"),
    ]  # fmt: skip


def test_an_order_is_all_edges_once() -> None:
    graph = Graph(1, 1)
    order = names(graph)
    assert graph.ordered(reversed(order)) == tuple(reversed(graph.edges))
    assert graph.ordered(graph.named(edge) for edge in graph.edges) == graph.edges
    with pytest.raises(InputError, match="all 8 path edges, each once: got 7, 7 of them different"):
        graph.ordered(order[1:])
    with pytest.raises(InputError, match="got 8, 7 of them different"):
        graph.ordered([*order[1:], order[1]])
    with pytest.raises(InputError, match=r"no path edge 0\.mlp -> 0\.attn\.0\.q"):
        graph.ordered([*order[1:], ("0.mlp", "0.attn.0.q")])


def test_auto_circuit_goes_from_the_last_layer_to_the_first() -> None:
    graph = Graph(2, 2)
    order = [graph.named(edge) for edge in graph.auto_circuit_edges(0)]
    assert set(order) == {graph.named(edge) for edge in graph.edges}
    assert len(order) == len(graph.edges)
    layers = [
        edge.target if edge.target.endswith(("resid", "mlp")) else edge.target[: len("0.attn")]
        for edge in order
    ]
    assert list(dict.fromkeys(layers)) == ["final_resid", "1.mlp", "1.attn", "0.mlp", "0.attn"]
    # 7 sources reach the end, 6 and 3 the MLPs; 4 and 1 each of six head inputs.
    in_order = ["final_resid"] * 7 + ["1.mlp"] * 6 + ["1.attn"] * 24 + ["0.mlp"] * 3
    assert layers == in_order + ["0.attn"] * 6


def test_auto_circuit_draws_the_order_within_a_layer() -> None:
    graph = Graph(2, 2)
    assert graph.auto_circuit_edges(3) == graph.auto_circuit_edges(3)
    one, other = graph.auto_circuit_edges(0), graph.auto_circuit_edges(1)
    assert one != other
    assert sorted(one[13:37]) == sorted(other[13:37])
    assert one[13:37] != other[13:37]
