"""circuit.json of any content: a document, or one short line."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from circuit_maker import make_circuit

from wirework.circuit_format import MOST, MOST_PAIRS, Document
from wirework.errors import InputError
from wirework.files import read_json


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_circuit(tmp_path_factory.mktemp("circuit") / "c")
    return json.loads((folder / "circuit.json").read_text())


def changed(values: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Return a copy with another value at a dotted place."""
    values = deepcopy(values)
    *above, last = place.split(".")
    inner: Any = values
    for name in above:
        inner = inner[int(name) if isinstance(inner, list) else name]
    inner[int(last) if isinstance(inner, list) else last] = value
    return values


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


NAN, HALF, LONG = float("nan"), "half \ud800", "x" * 200_000


OUT_OF_BOUNDS: list[tuple[str, Any]] = [
        ("model.d_head", 0), ("model.n_head", 0), ("model.d_model", 0), ("model.n_layer", 0),
        ("model.n_layer", 10**9), ("model.vocab_size", 2**63), ("model.d_model", 10**5000),
        ("model.n_weights", 10**30), ("model.path", HALF), ("model.fingerprint", LONG),
        ("task.name", HALF), ("task.name", LONG), ("task.path", HALF),
        ("task.seed", 10**30), ("task.n_all", MOST_PAIRS + 1), ("task.n_pairs", 2**40),
        ("target_loss", NAN), ("losses.circuit", float("inf")), ("calibration.scale", NAN),
        ("nodes.0.site", "9" * 5000 + ".mlp.post_act"), ("nodes.0.site", "x" * 100_000),
        ("nodes.0.site", HALF), ("nodes.0.index", 2**40), ("nodes.0.mean", NAN),
        ("edges.0.source", 10**5000), ("edges.0.weight", NAN), ("io_edges.0.token_id", -1),
        ("provenance.finder", HALF), ("provenance.seed", 10**30),
        ("provenance.settings", {"a": NAN}), ("provenance.settings", {"a": [{"b": [NAN]}]}),
        ("provenance.settings", {"a": HALF}), ("provenance.settings", {HALF: 1}),
        ("provenance.settings", {"a": nested(50)}), ("n_nodes", 10**5000), ("version", 10**5000),
        ("version", "y" * 100_000), ("format", "y" * 100_000), ("level", "y" * 100_000),
        ("path_edges", [{"source": "9" * 5000 + ".mlp", "target": "final_resid"}]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "value"), OUT_OF_BOUNDS, ids=[place for place, _ in OUT_OF_BOUNDS]
)
def test_values_out_of_bounds_are_one_short_line(written, place: str, value: Any) -> None:
    with pytest.raises(InputError, match=r"^circuit\.json") as caught:
        Document.of_json(changed({**written, "path_edges": []}, place, value), "circuit.json")
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 400
    said.encode()


@pytest.mark.parametrize("value", [None, [], 3, "text", {}, {"format": ["wirework-circuit"]}])
def test_other_json_is_no_circuit(value: Any) -> None:
    with pytest.raises(InputError, match="is not a circuit"):
        Document.of_json(value, "circuit.json")


@pytest.mark.parametrize("name", MOST)
def test_longer_lists_than_any_circuit_has_are_not_looked_at(written, name: str) -> None:
    values = {**written, name: [None] * (MOST[name] + 1)}
    with pytest.raises(InputError, match=rf"lists {MOST[name] + 1:,} {name}: at most"):
        Document.of_json(values, "circuit.json")


def test_of_many_wrong_nodes_the_first_is_told(written) -> None:
    with pytest.raises(InputError, match=r"circuit\.json: nodes\.0"):
        Document.of_json({**written, "nodes": [{}] * 100_000}, "circuit.json")


@pytest.mark.parametrize("text", ["NaN", '{"a": -Infinity}', "[" * 100_000, '{"a": Infinity}'])
def test_json_without_a_meaning_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "value.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"value\.json is not valid JSON"):
        read_json(path)


def test_a_document_comes_back_as_it_was_written(written) -> None:
    document = Document.of_json(written, "circuit.json")
    assert Document.of_json(document.to_json(), "circuit.json") == document
