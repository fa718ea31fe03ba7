import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from circuit_maker import MODEL, edit_document, make_circuit, site_widths, write_circuit
from hypothesis import given
from hypothesis import strategies as st

from wirework.view import load_page_data
from wirework.view.page.page_data import exact, heads, residual_links

SITES = [
    ("0.attn.act_in", 5),
    ("0.attn.q", 18),  # head 1, channel 2
    ("0.attn.k", 18),
    ("0.attn.k", 19),
    ("0.attn.v", 40),  # head 2, channel 8
    ("0.attn.resid_delta", 5),
    ("0.mlp.act_in", 5),
    ("0.mlp.act_in", 6),
    ("0.mlp.resid_delta", 6),
    ("1.attn.act_in", 5),
    ("1.attn.act_in", 6),
]


@pytest.fixture
def small(tmp_path: Path) -> dict[str, Any]:
    """Page data of a circuit whose every number is known."""
    nodes = [{"site": s, "index": i, "mean": 0.5, "score": None} for s, i in SITES]
    io_edges = [
        {"token": "'", "token_id": 7, "target": 0, "weight": 0.25},
        {"token": " x", "token_id": 3, "target": 0, "weight": -1.0},
        {"source": 8, "answer": "')", "token_id": 301, "weight": 0.5},
    ]
    activations = np.zeros((1, 2, len(SITES)), np.float32)
    activations[0, :, 4] = [0.123456, -7.0]
    document = {
        "format": "wirework-circuit",
        "version": 1,
        "model": MODEL,
        "task": {"name": "t", "answers": ["')", '")'], "n_pairs": 1},
        "target_loss": 0.15,
        "losses": {
            "model": 0.05,
            "circuit": 0.1,
            "circuit_calibrated": 0.08,
            "without_circuit": 2.0,
            "chance": 0.7,
        },
        "calibration": {"scale": 1.0, "shift": 0.0},
        "nodes": nodes,
        "edges": [{"source": 0, "target": 1, "weight": float(np.float32(0.3))}],
        "io_edges": io_edges,
        "n_nodes": len(nodes),
        "n_edges": 1,
        "n_io_edges": 3,
        "examples": {"prompts": [["'", " x"]], "answers": [["')", '")']], "logit_diff": [2.0]},
        "provenance": {"finder": "by hand", "settings": {}, "seed": 0, "wirework": "0"},
    }
    write_circuit(tmp_path / "small", document, activations, np.array([2], np.int32))
    return load_page_data(tmp_path / "small")


class TestLoadPageData:
    def test_residual_links_join_a_write_with_every_later_read_of_its_channel(
        self,
        small: dict[str, Any],
    ) -> None:
        assert small["residual_links"] == [[5, 6], [5, 9], [8, 10]]

    def test_shares_come_with_what_they_are_of(self, small: dict[str, Any], tmp_path: Path) -> None:
        assert (small["share_runs"], small["edge_shares"]) == (None, [None])
        written = json.loads((tmp_path / "small" / "circuit.json").read_text())
        written["edges"][0]["share"] = 0.5
        written["nodes"][3]["share"] = 1
        data = load_page_data(edit_document(tmp_path / "small", **written, share_runs=4))
        assert (data["share_runs"], data["edge_shares"]) == (4, [0.5])
        assert [node["share"] for node in data["nodes"]] == [None] * 3 + [1] + [None] * 7

    def test_heads_gather_q_k_v_and_pair_equal_channels(self, small: dict[str, Any]) -> None:
        assert small["heads"] == [
            {
                "name": "0.attn.1",
                "layer": 0,
                "head": 1,
                "q": [1],
                "k": [2, 3],
                "v": [],
                "pairs": [[1, 2]],
            },
            {"name": "0.attn.2", "layer": 0, "head": 2, "q": [], "k": [], "v": [4], "pairs": []},
        ]

    def test_boxes_say_tokens_or_the_end_of_the_node_s_name(self, small: dict[str, Any]) -> None:
        # 0.attn.v.40 is -7 at " x" and 0.12 at "'"; all other nodes are silent.
        labels = [node["label"] for node in small["nodes"][:6]]
        assert labels == ["5", "q.18", "k.18", "k.19", "v ·x", "5"]

    def test_nodes_are_named_by_tokens_and_answers(self, tmp_path: Path) -> None:
        made = make_circuit(tmp_path / "c", n_nodes=8, n_prompts=4)
        prompts = [["'", "a"], ['"', "a"]] * 2
        document = json.loads((made / "circuit.json").read_text())
        activations = np.zeros((4, 2, 8), np.float32)
        activations[::2, 0, 1] = 2.0  # node 1: at the single quote
        activations[1::2, 1, 2] = -3.0  # node 2: at the end of the prompts with a double one
        activations[:, :, 3] = 1.0  # node 3: everywhere
        examples = document["examples"] | {"prompts": prompts}
        write_circuit(made, document | {"examples": examples}, activations, np.full(4, 2, np.int32))
        data = load_page_data(made)
        texts = [entry["text"] for entry in data["texts"]]
        named = [
            [
                [(texts[text], share) for text, share in node[key]]
                for key in ("active_at", "active_before")
            ]
            for node in data["nodes"]
        ]
        assert named[1:4] == [[[("'", 1.0)], []], [[], [('")', -1.0)]], [[], []]]
        kinds = [node["kind"] if node["head"] is not None else "" for node in data["nodes"]]
        labels = [node["label"] for node in data["nodes"]]
        assert labels[1:3] == [f"{kinds[1]} '".lstrip(), f'{kinds[2]} → ")'.lstrip()]
        assert labels[3] == f"{kinds[3]}.{data['nodes'][3]['index']}".lstrip(".")

    def test_nodes_carry_name_head_and_channel(self, small: dict[str, Any]) -> None:
        node = small["nodes"][4]
        assert node["name"] == "0.attn.v.40"
        assert (node["layer"], node["sublayer"], node["kind"]) == (0, "attn", "v")
        assert (node["head"], node["channel"]) == (2, 8)
        assert small["nodes"][0]["head"] is None

    def test_inputs_and_outputs(self, small: dict[str, Any]) -> None:
        texts = [entry["text"] for entry in small["texts"]]
        inputs = [(texts[entry["text"]], entry["token_id"]) for entry in small["inputs"]]
        outputs = [(texts[entry["text"]], entry["token_id"]) for entry in small["outputs"]]
        assert inputs == [(" x", 3), ("'", 7)]
        assert outputs == [("')", 301), ('")', None)]  # the second answer is written by no node
        assert small["in_edges"] == [[1, 0, 0.25], [0, 0, -1.0]]
        assert small["out_edges"] == [[8, 0, 0.5]]
        assert small["edges"] == [[0, 1, 0.3]]  # the shortest decimal of that float32

    def test_prompts_and_activations_to_four_digits(self, small: dict[str, Any]) -> None:
        texts = [entry["shown"] for entry in small["texts"]]
        prompt = small["prompts"][0]
        assert [texts[token] for token in prompt["tokens"]] == ["'", "·x"]
        assert [texts[answer] for answer in prompt["answers"]] == ["')", '")']
        assert small["activations"][4] == [[0.1235, -7]]
        assert small["activations"][0] == [[0, 0]]

    def test_losses_are_those_of_the_document(self, small: dict[str, Any]) -> None:
        assert small["losses"]["circuit"] == 0.1
        assert small["losses"]["without_circuit"] == 2.0
        assert small["target_loss"] == 0.15

    def test_layout_covers_every_item_and_goes_up_with_depth(self, circuit: Path) -> None:
        data = load_page_data(circuit)
        n_items = len(data["nodes"]) + len(data["inputs"]) + len(data["outputs"])
        points = data["layout"]["points"]
        assert len(points) == len(data["layout"]["widths"]) == n_items
        for a, b, _ in data["edges"]:
            assert points[a][1] > points[b][1]
        for a, b in data["residual_links"]:
            assert points[a][1] > points[b][1]

    def test_activations_end_where_the_prompt_ends(self, circuit: Path) -> None:
        data = load_page_data(circuit)
        lengths = [len(prompt["tokens"]) for prompt in data["prompts"]]
        assert len(data["activations"]) == len(data["nodes"])
        assert all([len(row) for row in node] == lengths for node in data["activations"])

    def test_the_format_is_pinned(self, circuit: Path) -> None:
        data = load_page_data(circuit)
        assert (data["format"], data["version"]) == ("wirework-page", 2)
        assert set(data) == {
            "format", "version", "model", "task", "target_loss", "losses", "calibration",
            "provenance", "nodes", "inputs", "outputs", "edges", "in_edges", "out_edges",
            "residual_links", "heads", "prompts", "texts", "activations", "layout",
            "share_runs", "edge_shares", "folded", "further", "level", "components",
            "path_edges", "patching", "n_edges", "paper_size", "loss_reduction",
        }  # fmt: skip
        json.dumps(data, allow_nan=False)

    @pytest.mark.parametrize("size", [{"n_nodes": 3, "n_edges": 0, "n_io": 0}, {"n_prompts": 0}])
    def test_tiny_circuits_work(self, tmp_path: Path, size: dict[str, int]) -> None:
        data = load_page_data(make_circuit(tmp_path / "tiny", **size))
        assert len(data["prompts"]) == size.get("n_prompts", 16)

    def test_the_same_folder_gives_the_same_data(self, circuit: Path) -> None:
        assert json.dumps(load_page_data(circuit)) == json.dumps(load_page_data(circuit))


class TestExact:
    @given(st.floats(width=32, allow_nan=False, allow_infinity=False))
    def test_exact_is_the_same_float32(self, value: float) -> None:
        assert np.float32(exact(value)) == np.float32(value)

    def test_exact_leaves_what_is_no_float32(self) -> None:
        assert exact(0.1) == 0.1
        assert exact(1e300) == 1e300


def test_links_of_nothing() -> None:
    assert residual_links([]) == []
    assert heads([]) == []
    assert len(site_widths()) == 32
