"""Which embedded tokens are drawn one by one, and what becomes of the rest."""

import json
from pathlib import Path

import pytest
from circuit_maker import make_circuit

from wirework.circuit_format import Document
from wirework.view.page_inputs import inputs_of

WEIGHTS = {0: [9.0, 5, 3, 1], 1: [-0.4, 0, 0.2, 0], 2: [0, 0, 0, 7]}  # by reader, then token


@pytest.fixture
def crowded(tmp_path: Path) -> Document:
    """A circuit of which three nodes read the tokens a, b, c and d."""
    document = json.loads((make_circuit(tmp_path / "c") / "circuit.json").read_text())
    document["io_edges"] = [
        {"token": "abcd"[token], "token_id": 10 + token, "target": reader, "weight": weight}
        for reader, weights in WEIGHTS.items()
        for token, weight in enumerate(weights)
        if weight
    ]
    return Document.of_json(document | {"n_io_edges": len(document["io_edges"])}, "made up")


def test_each_reader_s_strongest_comes_before_anyone_s_second(crowded: Document) -> None:
    for most, drawn in ((1, "a"), (2, "ad"), (3, "abd"), (4, "abcd"), (9, "abcd")):
        found = inputs_of(crowded, most)
        assert "".join(text for text, _ in found.tokens) == drawn
        shown = [(edge.token, edge.target) for edge in found.edges]
        rest = [(edge.token, node) for node, some in found.folded.items() for edge in some]
        assert sorted(shown + rest) == sorted((e.token, e.target) for e in crowded.io_edges)
        assert {token for token, _ in shown} == set(drawn)
        assert not {token for token, _ in rest} & set(drawn)


def test_what_is_folded_is_sorted_by_strength(crowded: Document) -> None:
    folded = inputs_of(crowded, 1).folded
    assert {node: [edge.weight for edge in some] for node, some in folded.items()} == {
        0: [5, 3, 1], 1: [0.2], 2: [7],
    }  # fmt: skip
