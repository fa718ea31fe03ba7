"""A series of circuits with disjoint nodes, in hand-wired models of one and of two circuits."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hand_wired import PLANT, Corpus, Node
from hand_wired.quote_closer import NODES
from hand_wired.two_circuits import OTHER_NODES, plant

from wirework.circuits import CircuitSeries, NodeCircuit, exhaust_circuits
from wirework.circuits.pruning.prune import PruningRun
from wirework.commands.circuit_series import show_series
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.files import read_record, write_record
from wirework.model import Model
from wirework.tasks import Task

QUICK = PruneConfig(finder="attribution", eval_pairs=16, mean_tokens=2000)


@pytest.fixture(scope="module")
def planted() -> tuple[Model, Task]:
    return plant()


def find(planted: tuple[Model, Task], out: Path, most: int = 8, **changes: Any) -> CircuitSeries:
    model, task = planted
    config, corpus = QUICK.model_copy(update=changes), Corpus(model.tokenizer, task)
    return exhaust_circuits(
        model, task, out, config, max_circuits=most, data=corpus, progress=False
    )


def nodes_of(folder: Path) -> list[Node]:
    return [(node.site, node.index) for node in NodeCircuit.load(folder).nodes]


@pytest.fixture(scope="module")
def folder(planted: tuple[Model, Task], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the finished series."""
    out = tmp_path_factory.mktemp("series")
    find(planted, out)
    return out


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[PruningRun]:
    """Return a list to which each search is appended when it runs."""
    ran: list[PruningRun] = []
    run = PruningRun.run

    def counted(self: PruningRun, *given: Any) -> NodeCircuit:
        ran.append(self)
        return run(self, *given)

    monkeypatch.setattr(PruningRun, "run", counted)
    return ran


def test_two_planted_circuits_are_two(planted: tuple[Model, Task], folder: Path) -> None:
    series = find(planted, folder)
    assert series.n_circuits == 2
    assert [nodes_of(folder / "1"), nodes_of(folder / "2")] == [NODES, OTHER_NODES]
    assert series.n_nodes == len(NODES) + len(OTHER_NODES)
    assert (series.end, series.closest) == ("without_circuits", None)
    assert series.without_circuits > 0.6
    assert f"the model's task loss is {series.without_circuits:.3f}" in series.reason()
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "results.json"]


def test_each_loss_is_that_of_the_circuits(planted: tuple[Model, Task], folder: Path) -> None:
    first, second = (NodeCircuit.load(folder / name) for name in "12")
    one, other = find(planted, folder).circuits
    assert (one.folder, other.folder) == ("1", "2")
    assert one.model == pytest.approx(first.losses.model)
    assert other.model == pytest.approx(first.losses.without_circuit)
    assert [one.circuit, other.circuit] == [first.task_loss, second.task_loss]
    assert other.circuit_held_out == second.losses.circuit_held_out
    assert (other.n_nodes, other.n_edges, other.n_kept_edges) == (8, 5, 5)


def test_a_node_in_both_paths_leaves_one(tmp_path: Path) -> None:
    redundant = PLANT["redundant"]()
    series = find((redundant.model, redundant.task), tmp_path)
    assert series.n_circuits == 1
    assert nodes_of(tmp_path / "1") == list(redundant.nodes)
    assert "without its nodes the model's task loss is" in series.reason()


def test_the_file_says_what_the_call_returns(planted: tuple[Model, Task], folder: Path) -> None:
    model, _ = planted
    record = read_record(folder / "results.json")
    returned = json.loads(json.dumps(find(planted, folder).to_dict()))
    about = {"model": model.fingerprint, "settings": QUICK.recorded(), "max_circuits": 8}
    assert record == about | returned


def test_embedding_edges_are_counted_where_they_were_pruned(
    planted: tuple[Model, Task], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = find(planted, tmp_path, most=1, embedding_edges=True)
    sizes = NodeCircuit.load(tmp_path / "1").embedding_sizes()
    assert sizes["n_embedding_edges"] > 0
    (entry,) = read_record(tmp_path / "results.json")["circuits"]
    assert {name: entry[name] for name in sizes} == sizes
    show_series(series)
    assert "n token groups" in " ".join(capsys.readouterr().out.replace("┃", " ").split())
    (first, _) = read_record(folder / "results.json")["circuits"]
    assert sizes.keys().isdisjoint(first)


def test_a_finished_series_is_not_searched_again(
    planted: tuple[Model, Task], folder: Path, searches: list[PruningRun]
) -> None:
    before = (folder / "results.json").read_bytes()
    find(planted, folder)
    assert searches == []
    assert (folder / "results.json").read_bytes() == before


def test_a_killed_series_goes_on(
    planted: tuple[Model, Task],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    searches: list[PruningRun],
) -> None:
    run = PruningRun.run

    def stopped(self: PruningRun, *given: Any) -> NodeCircuit:
        if self.excluded:
            raise KeyboardInterrupt
        return run(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(PruningRun, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            find(planted, tmp_path)
    partial = read_record(tmp_path / "results.json")
    assert (partial["n_circuits"], partial["end"]) == (1, None)
    searches.clear()
    assert find(planted, tmp_path) == find(planted, folder)
    assert [bool(search.excluded) for search in searches] == [True]


def test_circuits_after_a_changed_one_are_found_again(
    planted: tuple[Model, Task], tmp_path: Path, searches: list[PruningRun]
) -> None:
    find(planted, tmp_path)
    find(planted, tmp_path, target_loss=0.2)
    assert len(searches) == 4


def test_the_maximum_ends_the_series_and_a_larger_one_goes_on(
    planted: tuple[Model, Task], tmp_path: Path, searches: list[PruningRun]
) -> None:
    series = find(planted, tmp_path, most=1)
    assert (series.n_circuits, series.end) == (1, "max_circuits")
    assert series.without_circuits < 0.1
    assert "--max-circuits" in series.reason()
    assert find(planted, tmp_path, most=2).end == "without_circuits"
    assert len(searches) == 2


def test_the_closest_circuit_is_kept_if_the_last_search_misses_the_target(
    planted: tuple[Model, Task], tmp_path: Path, searches: list[PruningRun]
) -> None:
    series = find(planted, tmp_path, allow_unreached=True)
    assert (series.n_circuits, series.end) == (2, "closest")
    closest = NodeCircuit.load(tmp_path / "closest")
    assert not closest.reached
    assert closest.n_excluded == series.n_nodes
    assert series.closest is not None
    assert series.closest.circuit == closest.task_loss > 0.15
    assert f"the closest circuit of the other nodes has {closest.task_loss:.3f}" in series.reason()
    assert find(planted, tmp_path, allow_unreached=True) == series
    assert len(searches) == 3


def test_a_circuit_without_nodes_is_the_last(planted: tuple[Model, Task], tmp_path: Path) -> None:
    easy = {"target_loss": 4.0, "allow_unreached": True}
    series = find(planted, tmp_path, **easy)
    assert (series.n_circuits, series.n_nodes, series.end) == (1, 0, "no_nodes")
    assert "has no node" in series.reason()


def test_a_model_that_misses_the_target_is_refused(
    planted: tuple[Model, Task], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"own task loss .* does not reach the target 1e-06"):
        find(planted, tmp_path, target_loss=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_refused_before_a_search(
    planted: tuple[Model, Task], folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="max_circuits must be 1 or more, got 0"):
        find(planted, tmp_path, most=0)
    with pytest.raises(InputError, match=f"{folder / '1'} is a circuit: give another folder"):
        find(planted, folder / "1")
    with pytest.raises(InputError, match="asks for nothing"):
        find(planted, tmp_path, target_loss=math.log(2))
    write_record(tmp_path / "results.json", {"rows": []})
    with pytest.raises(InputError, match=r"results\.json is of other circuits"):
        find(planted, tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(InputError, match=r"results\.json is damaged.*delete it"):
        find(planted, tmp_path)
    (tmp_path / "results.json").unlink()
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="2 exists and is not a circuit: not overwritten"):
        find(planted, tmp_path)


def test_circuits_of_an_earlier_call_are_named(
    planted: tuple[Model, Task], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    find(planted, tmp_path)
    with caplog.at_level("INFO", "wirework"):
        find(planted, tmp_path, most=1)
    assert f"{tmp_path / '2'} is not part of these circuits" in caplog.text
