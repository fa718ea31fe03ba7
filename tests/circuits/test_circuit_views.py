"""A circuit as a picture and as a table."""

import sys
from pathlib import Path

import pytest

import wirework as ww
from wirework.errors import InputError

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def circuit() -> ww.NodeCircuit:
    return ww.NodeCircuit.load(GOLDEN / "circuit")


@pytest.mark.parametrize("folder", ["circuit", "paths"])
def test_show_returns_a_picture(folder: str):
    figure = ww.Circuit.load(GOLDEN / folder).show()
    assert figure._repr_png_().startswith(b"\x89PNG")


class TestToDataframe:
    def test_has_the_edges_by_site_and_index(self, circuit: ww.NodeCircuit):
        pytest.importorskip("pandas")
        table = circuit.to_dataframe()
        assert len(table) == circuit.n_kept_edges
        assert list(table["weight"]) == [edge.weight for edge in circuit.edges]
        first = circuit.edges[0]
        assert table["source_site"][0] == circuit.nodes[first.source].site
        assert table["target_index"][0] == circuit.nodes[first.target].index

    def test_has_every_other_part(self, circuit: ww.NodeCircuit):
        pytest.importorskip("pandas")
        assert list(circuit.to_dataframe("nodes")["index"]) == [n.index for n in circuit.nodes]
        entries = circuit.to_dataframe("io_edges")
        assert list(entries["weight"]) == [edge.weight for edge in circuit.io_edges]
        assert entries["index"].notna().all()

    def test_of_a_head_level_circuit_has_its_path_edges(self):
        pytest.importorskip("pandas")
        circuit = ww.PathCircuit.load(GOLDEN / "paths")
        rows = circuit.to_dataframe().itertuples(index=False)
        assert [tuple(row) for row in rows] == [
            (edge.source, edge.target, edge.effect) for edge in circuit.path_edges
        ]

    def test_refuses_another_table(self, circuit: ww.NodeCircuit):
        with pytest.raises(InputError, match=r"the tables nodes, edges, .*heads"):
            circuit.to_dataframe("heads")

    def test_says_what_to_install(self, circuit: ww.NodeCircuit, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(InputError, match="pip install pandas"):
            circuit.to_dataframe()
