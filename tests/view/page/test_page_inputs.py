"""Which embedded tokens are drawn one by one, and what becomes of the rest."""

import json
from pathlib import Path

from circuit_maker import make_circuit

from wirework.circuit_format import Document
from wirework.view.page.page_inputs import inputs_of

WEIGHTS = {0: [9.0, 5, 3, 1], 1: [-0.4, 0, 0.2, 0], 2: [0, 0, 0, 7]}  # by reader, then token
PAIRS = [["c", "x", "d"], ["c", "x", "b"], ["x", "d"], ["x", "b"]]
"""b and d decide, d by more; c stands in two prompts, a in none."""


def crowded(tmp_path: Path, prompts: list[list[str]]) -> Document:
    """A circuit of which three nodes read the tokens a, b, c and d."""
    made = make_circuit(tmp_path / "c", n_prompts=len(prompts))
    document = json.loads((made / "circuit.json").read_text())
    document["io_edges"] = [
        {"token": "abcd"[token], "token_id": 10 + token, "target": reader, "weight": weight}
        for reader, weights in WEIGHTS.items()
        for token, weight in enumerate(weights)
        if weight
    ]
    document["examples"]["prompts"] = prompts
    return Document.of_json(document | {"n_io_edges": len(document["io_edges"])}, "made up")


def drawn(document: Document, most: int) -> str:
    return "".join(text for text, _ in inputs_of(document, most).tokens)


def test_tokens_that_decide_come_first_and_those_of_no_prompt_last(tmp_path: Path) -> None:
    document = crowded(tmp_path, PAIRS)
    assert [drawn(document, most) for most in (1, 2, 3, 4, 9)] == ["d", "bd", "bcd", "abcd", "abcd"]


def test_tokens_of_no_prompt_are_not_drawn_where_there_is_no_room_for_all(tmp_path: Path) -> None:
    only_c = crowded(tmp_path, [["c", "x"], ["c", "x"]])
    assert [drawn(only_c, most) for most in (1, 2, 3, 4)] == ["c", "c", "c", "abcd"]


def test_deciding_tokens_are_those_in_which_the_prompts_of_a_pair_differ(tmp_path: Path) -> None:
    assert inputs_of(crowded(tmp_path, PAIRS)).deciding == {11, 13}
    moved = crowded(tmp_path / "moved", [["c", "x"], ["x", "c"]])
    assert inputs_of(moved).deciding == {12}  # of equal length: place by place
    longer = crowded(tmp_path / "longer", [["c", "x", "d"], ["x", "c"]])
    assert inputs_of(longer).deciding == {13}
    lone = crowded(tmp_path / "lone", [["c", "x"]])
    assert inputs_of(lone).deciding == frozenset()


def test_without_prompts_the_strongest_are_drawn(tmp_path: Path) -> None:
    assert [drawn(crowded(tmp_path, []), most) for most in (1, 2, 3)] == ["a", "ad", "abd"]


def test_nothing_is_left_out_and_what_is_folded_is_sorted(tmp_path: Path) -> None:
    document = crowded(tmp_path, PAIRS)
    for most in range(1, 5):
        found = inputs_of(document, most)
        shown = [(edge.token, edge.target) for edge in found.edges]
        rest = [(edge.token, node) for node, some in found.folded.items() for edge in some]
        assert sorted(shown + rest) == sorted((e.token, e.target) for e in document.io_edges)
        assert not {token for token, _ in rest} & {token for token, _ in shown}
    folded = inputs_of(document, 1).folded
    assert {node: [edge.weight for edge in some] for node, some in folded.items()} == {
        0: [9, 5, 3], 1: [-0.4, 0.2],
    }  # fmt: skip
