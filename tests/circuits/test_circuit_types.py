"""The two types of circuit, and the attributes that `Circuit` had when it was one type."""

from pathlib import Path

import pytest

import wirework as ww
from wirework import circuits, console
from wirework.circuits import find_edges

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def node_circuit() -> ww.NodeCircuit:
    return ww.NodeCircuit.load(GOLDEN / "circuit")


@pytest.fixture
def path_circuit() -> ww.PathCircuit:
    return ww.PathCircuit.load(GOLDEN / "paths")


class TestLoad:
    def test_returns_the_type_of_the_folder(self):
        assert type(ww.Circuit.load(GOLDEN / "circuit")) is ww.NodeCircuit
        assert type(ww.Circuit.load(GOLDEN / "paths")) is ww.PathCircuit

    def test_returns_a_circuit_unchanged(self, node_circuit, path_circuit):
        assert ww.Circuit.load(node_circuit) is node_circuit
        assert ww.PathCircuit.load(path_circuit) is path_circuit

    def test_of_one_type_refuses_the_other(self, node_circuit, path_circuit):
        nodes = "expected a circuit of nodes and edges, as `prune` finds, got path edges"
        with pytest.raises(ww.InputError, match=f"^{nodes}"):
            ww.NodeCircuit.load(path_circuit)
        with pytest.raises(ww.InputError, match=f"paths: {nodes}"):
            ww.NodeCircuit.load(GOLDEN / "paths")
        with pytest.raises(ww.InputError, match="as `acdc` finds, got nodes and edges"):
            circuits.sweep_row(node_circuit)


class TestTypes:
    def test_a_circuit_is_of_one_of_the_two(self, node_circuit):
        with pytest.raises(TypeError, match="abstract"):
            ww.Circuit(node_circuit.document)  # type: ignore[abstract]

    def test_each_has_the_methods_of_its_parts_only(self, node_circuit, path_circuit):
        for name in ("ablation", "edge_masks", "with_shares", "search_config"):
            assert hasattr(node_circuit, name)
            assert not hasattr(path_circuit, name)
        assert not hasattr(node_circuit, "patching")

    def test_sizes_are_those_of_its_parts(self, node_circuit, path_circuit):
        assert node_circuit.sizes() == {
            "n_nodes": 5, "n_edges": None, "n_kept_edges": 3, "n_io_edges": 10,
        }  # fmt: skip
        assert path_circuit.sizes() == {"n_path_edges": len(path_circuit.path_edges)}


class TestEdgeCounts:
    def test_of_an_earlier_file_are_counted_in_the_model(self, node_circuit):
        assert "5 nodes, edges not recorded, 3 kept edges" in repr(node_circuit)
        assert node_circuit.summary()["n_edges"] is None
        assert node_circuit.count_edges(GOLDEN / "model") == 5
        model = ww.load(GOLDEN / "model")
        nodes = [(node.site, node.index) for node in node_circuit.nodes]
        assert len(find_edges(model.transformer, nodes)) == 5


class TestOldNames:
    @pytest.fixture(autouse=True)
    def _nothing_said_before(self, monkeypatch):
        monkeypatch.setattr(console, "_said_once", set())

    def test_wiring_is_edge_masks(self, node_circuit, capsys):
        model = ww.load(GOLDEN / "model")
        edge_masks, gates = node_circuit.wiring(model)
        assert edge_masks.kept == node_circuit.edge_masks(model)[0].kept
        assert len(gates) == edge_masks.n_nodes + len(edge_masks.edges())
        assert "NodeCircuit.wiring is called edge_masks now" in capsys.readouterr().err

    def test_parts_of_the_other_type_are_empty(self, node_circuit, path_circuit, capsys):
        assert (node_circuit.path_edges, node_circuit.n_path_edges) == ((), 0)
        assert (path_circuit.nodes, path_circuit.n_edges, path_circuit.means) == ((), 0, {})
        assert path_circuit.activations.shape[2] == 0
        assert "a PathCircuit has no nodes" in capsys.readouterr().err

    def test_an_attribute_that_never_was_is_none(self, node_circuit, path_circuit):
        with pytest.raises(AttributeError, match="'NodeCircuit' object has no attribute 'n_nods'"):
            node_circuit.n_nods  # noqa: B018
        assert not hasattr(path_circuit, "wiring")

    def test_methods_of_masks(self, node_circuit, capsys):
        edge_masks, _ = node_circuit.edge_masks(GOLDEN / "model")
        assert edge_masks.differences == edge_masks.logit_diffs
        assert edge_masks.ablation.all_differences == edge_masks.ablation.all_logit_diffs
        assert "EdgeMasks.differences is called logit_diffs now" in capsys.readouterr().err
        with pytest.raises(AttributeError, match="'EdgeMasks' object has no attribute 'diffs'"):
            edge_masks.diffs  # noqa: B018

    def test_names_of_the_package(self, capsys):
        assert circuits.measure is circuits.circuit_losses
        assert circuits.check_place is circuits.check_circuit_place
        assert circuits.Finding is circuits.FinderResult
        assert circuits.Wiring is circuits.EdgeMasks
        assert circuits.find_distractors is ww.find_distractors is ww.find_attacks
        assert circuits.Distraction is circuits.adversarial.AttackReport
        assert circuits.Breaking is circuits.adversarial.Breaking is circuits.BreakingAttack
        assert "circuits.Finding is called FinderResult now" in capsys.readouterr().err
        with pytest.raises(AttributeError, match="no attribute 'Findings'"):
            circuits.Findings  # noqa: B018
