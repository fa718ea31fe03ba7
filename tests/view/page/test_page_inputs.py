"""Which embedded tokens and entries are drawn at first, and what becomes of the rest."""

import json
from pathlib import Path

from circuit_maker import make_circuit

from wirework.circuit_format import Document
from wirework.view.page.page_inputs import inputs_of

WEIGHTS: dict[int, list[float]] = {0: [9, 5, 3, 1], 1: [-0.4, 0, 0.2, 0], 2: [0, 0, 0, 7]}
"""By reader, then token."""
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


def drawn(document: Document, most: int, per_node: int = 4) -> str:
    return "".join(text for text, _ in inputs_of(document, per_node, most).tokens)


def entries(document: Document, per_node: int, most: int = 9) -> set[str]:
    return {f"{edge.token}{edge.target}" for edge in inputs_of(document, per_node, most).edges}


def test_tokens_that_decide_come_first(tmp_path: Path) -> None:
    document = crowded(tmp_path, PAIRS)
    assert [drawn(document, most) for most in (1, 2, 3, 9)] == ["d", "bd", "bcd", "bcd"]


def test_tokens_of_no_prompt_are_not_drawn(tmp_path: Path) -> None:
    assert drawn(crowded(tmp_path, [["c", "x"], ["c", "x"]]), 9) == "c"


def test_without_any_token_in_the_prompts_the_strongest_are_drawn(tmp_path: Path) -> None:
    for i, prompts in enumerate(([], [["x"], ["x"]])):
        document = crowded(tmp_path / str(i), prompts)
        assert [drawn(document, most) for most in (1, 2, 3)] == ["a", "ad", "abd"]


def test_of_each_node_the_entries_of_largest_effect_are_drawn(tmp_path: Path) -> None:
    document = crowded(tmp_path, PAIRS)  # reader 0 has d and b decide, 1 reads no deciding token
    assert entries(document, 1) == {"b0", "c1", "d2"}
    assert entries(document, 2) == {"b0", "d0", "c1", "d2"}
    assert entries(document, 4) == {"b0", "c0", "d0", "c1", "d2"}


def test_effect_is_weight_times_use(tmp_path: Path) -> None:
    prompts = [["c", "b", "x", "d"]] * 2 + [["d", "d", "d", "d", "d", "d"]] * 2
    document = crowded(tmp_path, prompts)
    # Reader 0: b 5 x 2 = 10, c 3 x 2 = 6, d 1 x 14 = 14.
    assert entries(document, 1) & {"b0", "c0", "d0"} == {"d0"}
    assert entries(document, 2) & {"b0", "c0", "d0"} == {"b0", "d0"}


def test_deciding_tokens_are_those_in_which_the_prompts_of_a_pair_differ(tmp_path: Path) -> None:
    assert inputs_of(crowded(tmp_path, PAIRS)).deciding == {11, 13}
    moved = crowded(tmp_path / "moved", [["c", "x"], ["x", "c"]])
    assert inputs_of(moved).deciding == {12}  # of equal length: place by place
    longer = crowded(tmp_path / "longer", [["c", "x", "d"], ["x", "c"]])
    assert inputs_of(longer).deciding == {13}
    lone = crowded(tmp_path / "lone", [["c", "x"]])
    assert inputs_of(lone).deciding == frozenset()


def test_every_entry_is_drawn_or_folded_strongest_first(tmp_path: Path) -> None:
    document = crowded(tmp_path, PAIRS)
    for most in range(1, 5):
        inputs = inputs_of(document, 2, most)
        drawn = [(edge.token, edge.target) for edge in inputs.edges]
        drawn += [(edge.token, node) for node, some in inputs.folded.items() for edge in some]
        assert sorted(drawn) == sorted((e.token, e.target) for e in document.io_edges)
    folded = inputs_of(document, 4, 1).folded
    assert {node: [edge.weight for edge in some] for node, some in folded.items()} == {
        0: [9, 5, 3], 1: [-0.4, 0.2],
    }  # fmt: skip


def test_further_tokens_are_all_others_by_effect(tmp_path: Path) -> None:
    inputs = inputs_of(crowded(tmp_path, PAIRS), 4, 1)
    assert [text for text, _ in inputs.further] == ["b", "c", "a"]
