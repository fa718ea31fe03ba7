import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from circuit_maker import edit_document, make_circuit, make_paths, sum_again
from safetensors.numpy import load_file, save_file

from wirework.circuit_format import read_circuit, split_site
from wirework.circuits import Circuit
from wirework.errors import InputError
from wirework.view import load_page_data, serve, write_page


def edit_tensors(path: Path, **changes: np.ndarray | None) -> Path:
    """Change (or with None remove) tensors by hand; `__` in a name stands for `/`."""
    tensors = load_file(path / "circuit.safetensors")
    for name, value in changes.items():
        tensors.pop(name.replace("__", "/"), None)
        if value is not None:
            tensors[name.replace("__", "/")] = value
    save_file(tensors, path / "circuit.safetensors")
    return sum_again(path)


GROUP: dict[str, Any] = {"name": "numbers", "tokens": ["1"], "token_ids": [1], "unseen_ids": [2]}
EDGE = {"group": 0, "channel": 0, "n_entries": 1}


class TestReadCircuit:
    def test_read_gives_back_what_was_written(self, circuit: Path) -> None:
        read = read_circuit(circuit)
        written = json.loads((circuit / "circuit.json").read_text())
        assert read.document.to_json()["nodes"] == written["nodes"]
        assert read.document.to_json()["edges"] == written["edges"]
        tensors = load_file(circuit / "circuit.safetensors")
        np.testing.assert_array_equal(read.activations, tensors["examples/activations"])

    def test_edges_between_nodes_and_kept_edges_are_counted_apart(self, circuit: Path) -> None:
        written = json.loads((circuit / "circuit.json").read_text())
        old = read_circuit(circuit).document
        assert (old.n_edges_between_nodes, len(old.edges)) == (None, written["n_edges"])
        assert "n_kept_edges" not in old.to_json()
        assert old.to_json()["n_edges"] == written["n_edges"]
        n_kept = written["n_edges"]
        edit_document(circuit, n_edges=n_kept + 12, n_kept_edges=n_kept)
        new = read_circuit(circuit).document
        assert new.n_edges_between_nodes == n_kept + 12
        counts = {key: new.to_json()[key] for key in ("n_edges", "n_kept_edges")}
        assert counts == {"n_edges": n_kept + 12, "n_kept_edges": n_kept}

    def test_an_earlier_file_whose_edges_were_not_pruned_has_both_counts(self, circuit: Path):
        written = json.loads((circuit / "circuit.json").read_text())
        settings = {"prune_edges": False}
        edit_document(circuit, provenance={**written["provenance"], "settings": settings})
        assert read_circuit(circuit).document.n_edges_between_nodes == written["n_edges"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n_kept_edges": 7}, r"n_kept_edges is 7, but \d+ edges are listed"),
            ({"edges": [], "n_edges": 7, "n_kept_edges": 1}, r"n_kept_edges is 1, but 0 edges"),
            ({"n_edges": 2, "n_kept_edges": 120}, r"n_edges is 2, but \d+ edges are listed"),
            ({"n_edges": -1, "n_kept_edges": 120}, r"n_edges: Input should be greater than"),
        ],
    )
    def test_counts_at_odds_are_refused(
        self, circuit: Path, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InputError, match=message) as caught:
            read_circuit(edit_document(circuit, **changes))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"channels": [0, 10**6]}, r"embedding channel 1000000 is beyond the model's"),
            ({"channels": [3, 0]}, r"channels must be ascending, each once"),
            ({"n_all": 0}, r"n_all is 0, but 1 edges are listed"),
            ({"edges": [EDGE, EDGE]}, r"must be sorted by channel, then group, each once"),
            ({"edges": [EDGE | {"channel": 2}]}, r"no embedding edge of group 0, channel 2"),
            ({"edges": [EDGE | {"group": 1}]}, r"no embedding edge of group 1, channel 0"),
            ({"edges": [EDGE | {"n_entries": 0}]}, r"n_entries: Input should be greater than"),
            ({"groups": [], "edges": []}, r"groups: Tuple should have at least 1 item"),
            ({"groups": [GROUP, GROUP]}, r"a token is in one group only, once"),
            ({"groups": [GROUP | {"tokens": []}]}, r"'numbers' has other tokens than token_ids"),
            ({"groups": [GROUP | {"token_ids": [10**7]}]}, r"token 10000000 is beyond the model's"),
            ({"groups": [GROUP | {"name": None}]}, r"groups.0.name: Input should be a valid"),
            ({}, r"expected means/embed"),
        ],
    )
    def test_embedding_edges_at_odds_are_refused(
        self, circuit: Path, changes: dict[str, Any], message: str
    ) -> None:
        part = {"groups": [GROUP], "channels": [0, 3], "edges": [EDGE], "n_all": 2} | changes
        with pytest.raises(InputError, match=message) as caught:
            read_circuit(edit_document(circuit, embedding_edges=part))
        assert "\n" not in str(caught.value)

    def test_unknown_keys_are_ignored(self, circuit: Path) -> None:
        assert len(read_circuit(edit_document(circuit, a_later_key={"x": 1})).document.nodes) == 40

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"format": "other"}, r"expected format 'wirework-circuit', got 'other'"),
            ({"version": 2}, r"has version 2, this wirework reads up to 1"),
            ({"version": "1"}, r"expected version 1, got '1'"),
            ({"version": True}, r"expected version 1, got True"),
            ({"nodes": None}, r"circuit.json: nodes: Input should be a valid tuple"),
            ({"n_edges": 7}, r"n_edges is 7, but \d+ edges are listed"),
            (
                {"edges": [{"source": 0, "target": 99, "weight": 1.0}], "n_edges": 1},
                r"an edge names node 99, but there are 40 nodes",
            ),
            (
                {"edges": [{"source": 0, "target": 1, "weight": float("nan")}], "n_edges": 1},
                r"circuit.json is not valid JSON: NaN is no number in JSON",
            ),
            (
                {"io_edges": [{"token": "x", "token_id": 1, "weight": 1.0}], "n_io_edges": 1},
                r"io_edges.0: needs either token and target or source and answer",
            ),
            ({"n_nodes": None}, r"n_nodes is None, but 40 nodes are listed"),
            (
                {"examples": {"prompts": [["a"]], "answers": [["b", "c"]], "logit_diff": []}},
                r"1 example prompts, but 0 logit_diff",
            ),
        ],
    )
    def test_a_document_at_odds_is_refused(
        self, circuit: Path, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InputError, match=message) as caught:
            read_circuit(edit_document(circuit, **changes))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("source", "target", "message"),
        [
            ("embed", "<b>", "'<b>' is no end of a path edge"),
            ("embed", "00.mlp", "'00.mlp' is no end"),
            ("embed", "0.mlp.q", "'0.mlp.q' is no end"),
            ("embed", "1.attn.2", "no path edge embed -> 1.attn.2"),
            ("0.attn.1.q", "0.mlp", "no path edge 0.attn.1.q -> 0.mlp"),
            ("final_resid", "0.mlp", "no path edge final_resid -> 0.mlp"),
            ("0.mlp", "embed", "no path edge 0.mlp -> embed"),
            ("1.attn.0", "1.attn.1.q", "no path edge 1.attn.0 -> 1.attn.1.q"),
            ("1.mlp", "1.mlp", "no path edge 1.mlp -> 1.mlp"),
            ("embed", "4.mlp", "embed -> 4.mlp is beyond the 4 layers of 16 heads"),
            ("embed", "0.attn.16.q", "beyond the 4 layers of 16 heads"),
        ],
    )
    def test_a_path_edge_that_no_model_has_is_refused(
        self, tmp_path: Path, source: str, target: str, message: str
    ) -> None:
        made = make_paths(tmp_path / "c", [(source, target, 1.0)])
        with pytest.raises(InputError, match=message) as caught:
            read_circuit(made)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("site", "message"),
        [
            ("0.mlp.post", "'0.mlp.post' is not a site that holds nodes"),
            ("x.mlp.post_act", "is not a site"),
            ("4.mlp.post_act", "4.mlp.post_act is beyond the 4 layers"),
        ],
    )
    def test_unknown_sites_are_refused(self, circuit: Path, site: str, message: str) -> None:
        nodes = [{"site": site, "index": 0, "mean": 0.0, "score": None}]
        edit_document(
            circuit, nodes=nodes, n_nodes=1, edges=[], n_edges=0, io_edges=[], n_io_edges=0
        )
        with pytest.raises(InputError, match=message):
            read_circuit(circuit)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"examples__lengths": None}, "tensor examples/lengths is missing"),
            ({"examples__lengths": np.ones(16, np.int32)}, "lengths differ from the prompts"),
            ({"examples__lengths": np.ones((2, 2), np.int32)}, "should have 1 dimensions, got 2"),
            (
                {"examples__activations": np.zeros((16, 99, 39), np.float32)},
                r"should be \(16, \d+, 40\) \(prompts, tokens, nodes\), got \(16, 99, 39\)",
            ),
            (
                {"examples__activations": np.full((16, 99, 40), np.inf, np.float32)},
                "values that are not finite",
            ),
            ({"examples__activations": None}, "tensor examples/activations is missing"),
            (
                {"examples__activations": np.zeros((16, 99, 40), np.int32)},
                "not finite, or no floats",
            ),
            ({"means__0.mlp.post_act": np.zeros(1, np.float32)}, r"0.mlp.post_act has 1 node"),
            (
                {"means__0.mlp.post_act": np.zeros((1, 1024), np.float32)},
                r"post_act \(1024,\), got",
            ),
            ({"means__3.attn.y": None}, r"expected means/3.attn.y \(256,\), got None"),
            ({"means__4.attn.y": np.zeros(256, np.float32)}, "means/4.attn.y is of no site"),
            ({"means__3.attn.y": np.full(256, np.nan, np.float32)}, "means/3.attn.y holds values"),
        ],
    )
    @pytest.mark.parametrize("read", [read_circuit, Circuit.load, load_page_data])
    def test_tensors_at_odds_are_refused(
        self, circuit: Path, changes: dict[str, np.ndarray | None], message: str, read: Any
    ) -> None:
        with pytest.raises(InputError, match=rf"circuit\.safetensors: .*{message}"):
            read(edit_tensors(circuit, **changes))

    def test_a_flipped_bit_is_refused(self, circuit: Path) -> None:
        file = circuit / "circuit.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"circuit.safetensors does not match its checksum"):
            read_circuit(circuit)

    def test_a_foreign_or_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no circuit at .*nowhere: expected a folder with"):
            read_circuit(tmp_path / "nowhere")
        path = make_circuit(tmp_path / "c")
        (path / "circuit.safetensors").write_bytes(b"not safetensors at all")
        with pytest.raises(InputError, match=r"circuit\.safetensors is damaged"):
            read_circuit(sum_again(path))
        (path / "circuit.safetensors").unlink()
        with pytest.raises(InputError, match=r"c is damaged: circuit.safetensors is missing"):
            read_circuit(path)

    @pytest.mark.parametrize("content", [None, "{}", '{"circuit.json": "0"}'])
    def test_checksums_that_are_gone_are_refused(self, circuit: Path, content: str | None) -> None:
        """As `validate` does: a folder without them may have been changed."""
        path = circuit / "checksums.json"
        path.unlink()
        if content is not None:
            path.write_text(content)
        with pytest.raises(InputError, match=r"checksums\.json") as caught:
            read_circuit(circuit)
        with pytest.raises(InputError) as other:
            Circuit.load(circuit)
        assert str(caught.value) == str(other.value)
        with pytest.raises(InputError, match=r"checksums\.json"):
            write_page(circuit, circuit.parent / "page.html")
        with pytest.raises(InputError, match=r"checksums\.json"):
            serve(circuit)


def test_split_site() -> None:
    assert split_site("12.attn.resid_delta") == (12, "attn.resid_delta")
    with pytest.raises(ValueError, match="not a site"):
        split_site("0.resid_mid")
