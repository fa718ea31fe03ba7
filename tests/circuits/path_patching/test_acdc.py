import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from one_at_a_time import exact, one_at_a_time, run
from present import present

import wirework as ww
from wirework.circuit_format import Document
from wirework.circuits import (
    acdc_sweep,
    find_attacks,
    held_out_losses,
    sweep_row,
    validate,
)
from wirework.circuits.path_patching import Graph, read_order
from wirework.circuits.path_patching.contrast import Contrast
from wirework.config import AcdcConfig, ModelConfig
from wirework.errors import InputError
from wirework.model import Model
from wirework.nn import Transformer
from wirework.tasks import Pair, Task
from wirework.view import load_page_data


def names(circuit: ww.PathCircuit) -> list[tuple[str, str]]:
    return [(edge.source, edge.target) for edge in circuit.path_edges]


@pytest.fixture(scope="module")
def found(random_model: Model, task: Task) -> ww.PathCircuit:
    return ww.acdc(random_model, task, 0.001, pairs=5, progress=False)


class TestAcdc:
    def test_finds_what_testing_one_edge_at_a_time_finds(
        self, random_model: Model, task: Task
    ) -> None:
        chosen = Task("mine", task.pairs[:5])
        circuit = ww.acdc(
            random_model, chosen, 0.01, symmetric=True, keep_unreachable=True, progress=False
        )
        rows = chosen.encode(random_model.tokenizer, 80)
        prompts = Contrast.of(rows, symmetric=True)
        model = exact(random_model.transformer)
        reference, _ = run(model, prompts.clean, prompts.last_positions)
        _, ablated = run(model, prompts.corrupted, prompts.last_positions)
        graph = Graph(2, 2)
        order = [(edge.source, edge.target) for edge in map(graph.named, graph.edges)]
        measure = prompts.metric("kl", reference)
        kept, growth = one_at_a_time(
            model,
            prompts.clean,
            prompts.last_positions,
            ablated,
            lambda x: float(measure(x)),
            order,
            0.01,
        )
        assert names(circuit) == kept
        assert 0 < circuit.n_path_edges < len(order)
        effects = [growth[edge] for edge in kept]
        assert [edge.effect for edge in circuit.path_edges] == pytest.approx(effects)

    def test_the_same_call_gives_the_same_circuit(
        self, found: ww.PathCircuit, random_model: Model, task: Task
    ) -> None:
        again = ww.acdc(random_model, task, 0.001, pairs=5, progress=False)
        assert again.document == found.document
        other = ww.acdc(random_model, task, 0.001, pairs=5, seed=1, progress=False)
        assert other.document.examples.prompts != found.document.examples.prompts

    def test_paths_stand_for_a_model_and_a_task(
        self, found: ww.PathCircuit, random_model: Model, task: Task, tmp_path: Path
    ) -> None:
        folder, pairs = random_model.save(tmp_path / "model"), tmp_path / "mine.jsonl"
        pairs.write_text("".join(json.dumps(asdict(pair)) + "\n" for pair in task.pairs))
        other = ww.acdc(str(folder), str(pairs), 0.001, pairs=5, progress=False)
        assert other.path_edges == found.path_edges
        assert ww.load(random_model) is random_model
        assert ww.task(task, random_model) is task
        with pytest.raises(ww.InputError, match="n and seed are for names"):
            ww.task(task, n=2)
        with pytest.raises(ww.InputError, match="no model at"):
            ww.acdc(tmp_path / "none", task)

    def test_pairs_of_unequal_length_are_refused_or_left_out(
        self, random_model: Model, task: Task
    ) -> None:
        first = task.pairs[0]
        longer = Pair((f"x = 1\n{first.prompts[0]}", first.prompts[1]), first.answers)
        mixed = Task("mine", (*task.pairs[1:17], longer), path="mine.jsonl")
        with pytest.raises(
            InputError, match=r"task mine, pair 17: the prompts have \d+ and \d+ tokens"
        ):
            ww.acdc(random_model, mixed, progress=False)
        made = Task("mine", mixed.pairs, generated=True)
        circuit = ww.acdc(random_model, made, pairs=99, progress=False)
        assert circuit.document.task.n_pairs == 16
        with pytest.raises(InputError, match="no pair whose prompts are of equal length"):
            ww.acdc(random_model, Task("mine", (longer,) * 16, generated=True), progress=False)

    @pytest.mark.parametrize("tau", [0.0, -1.0, float("nan")])
    def test_a_tau_that_cannot_be_is_refused(
        self, random_model: Model, task: Task, tau: float
    ) -> None:
        with pytest.raises(InputError, match="tau"):
            ww.acdc(random_model, task, tau, progress=False)

    def test_a_model_whose_stream_is_no_sum_is_refused(
        self, random_model: Model, task: Task
    ) -> None:
        config = ModelConfig(
            vocab_size=512, n_ctx=80, d_model=16, d_head=8, residual_activation="relu"
        )
        curved = Model(Transformer(config), random_model.tokenizer)
        with pytest.raises(InputError, match="relu acts on its residual stream"):
            ww.acdc(curved, task, progress=False)


class TestPathCircuit:
    def test_a_circuit_saves_loads_and_evaluates_itself(
        self, found: ww.PathCircuit, random_model: Model, task: Task, tmp_path: Path
    ) -> None:
        loaded = ww.Circuit.load(found.save(tmp_path / "paths"))
        assert loaded.document == found.document
        values = json.loads((tmp_path / "paths" / "circuit.json").read_text())
        assert (values["level"], values["n_path_edges"]) == ("head", found.n_path_edges)
        assert values["patching"]["n_all"] == len(Graph(2, 2).edges)
        on_all = ww.acdc(random_model, task, 0.01, pairs=len(task.pairs), progress=False)
        part = on_all.patching
        assert (
            on_all.evaluate(random_model, task)
            == pytest.approx(part.value)
            == pytest.approx(part.kl)
        )
        assert on_all.evaluate(random_model, task) > 0

    def test_what_needs_nodes_refuses_path_edges(
        self, found: ww.PathCircuit, random_model: Model
    ) -> None:
        for use in (
            lambda: validate(found, random_model, short=True),
            lambda: find_attacks(found, random_model, progress=False),
            lambda: held_out_losses(found, random_model),
        ):
            with pytest.raises(InputError, match="path edges between heads and MLPs"):
                use()

    def test_the_page_has_every_path_edge(self, found: ww.PathCircuit, tmp_path: Path) -> None:
        data = load_page_data(found.save(tmp_path / "paths"))
        ends = [component["name"] for component in data["components"]]
        shown = [
            (ends[source], f"{ends[target]}.{way}" if way else ends[target])
            for source, target, way, _ in data["path_edges"]
        ]
        assert shown == names(found)

    def test_a_circuit_of_another_model_or_graph_is_refused(
        self, found: ww.PathCircuit, random_model: Model, task: Task
    ) -> None:
        other = Model(Transformer(random_model.config, seed=9), random_model.tokenizer)
        with pytest.raises(InputError, match="belongs to another model"):
            found.evaluate(other, task)
        foreign = found.path_edges[0].model_copy(update={"source": "7.mlp"})
        document = found.document.model_copy(update={"path_edges": (foreign,)})
        with pytest.raises(InputError, match=r"no path edge 7\.mlp"):
            replace(found, document=document).evaluate(random_model, task)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"level": "node"}, "path edges are of head-level circuits only"),
            ({"patching": None}, "a head-level circuit has `patching`"),
            ({"path_edges": "twice"}, "once each"),
            ({"n_path_edges": 0}, "n_path_edges is 0"),
        ],
    )
    def test_a_file_at_odds_with_itself_is_refused(
        self, found: ww.PathCircuit, change: dict[str, object], says: str
    ) -> None:
        values = found.document.to_json()
        if change.get("path_edges") == "twice":
            change = {"path_edges": values["path_edges"] * 2}
        with pytest.raises(InputError, match=says):
            Document.of_json({**values, **change}, "circuit.json")
        assert Document.of_json(json.loads(json.dumps(values)), "circuit.json") == found.document

    def test_losses_are_those_of_patched_runs(self, found: ww.PathCircuit) -> None:
        losses, part = found.losses, found.patching
        assert found.task_loss == losses.circuit == found.document.target_loss
        assert part.kl == pytest.approx(part.value)
        assert losses.without_circuit != pytest.approx(losses.circuit)
        logit_diffs = torch.tensor(found.document.examples.logit_diff)
        assert part.logit_difference == pytest.approx(float(logit_diffs.mean()))
        assert part.accuracy == pytest.approx(float((logit_diffs > 0).double().mean()))


class TestAcdcSweep:
    def test_a_sweep_finds_what_each_tau_finds_alone(
        self, found: ww.PathCircuit, random_model: Model, task: Task
    ) -> None:
        config = AcdcConfig(tau=(0.1, 0.01, 0.001), pairs=5)
        sweep = acdc_sweep(random_model, task, config, progress=False)
        assert names(sweep[2]) == names(found)
        rows = [sweep_row(circuit) for circuit in sweep]
        sizes = [present(row["n_path_edges"]) for row in rows]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[-1]
        assert [row["tau"] for row in rows] == [0.1, 0.01, 0.001]

    def test_an_order_from_a_file_is_an_order_given(
        self, random_model: Model, task: Task, tmp_path: Path
    ) -> None:
        graph = Graph(2, 2)
        order = [(edge.source, edge.target) for edge in map(graph.named, reversed(graph.edges))]
        path = tmp_path / "order.txt"
        path.write_text("\n".join(f"{source} -> {target}" for source, target in order) + "\n\n")
        assert read_order(path) == order
        config = AcdcConfig(order=path, pairs=3)
        (circuit,) = acdc_sweep(random_model, task, config, progress=False)
        given = ww.acdc(random_model, task, order=order, pairs=3, progress=False)
        assert names(circuit) == names(given)
        path.write_text("embed to 0.mlp\n")
        with pytest.raises(InputError, match="line 1: expected `SOURCE -> TARGET`"):
            read_order(path)
        with pytest.raises(InputError, match="cannot read"):
            read_order(tmp_path / "none.txt")

    def test_a_named_order_is_that_of_the_graph(self, random_model: Model, task: Task) -> None:
        graph = Graph(2, 2)
        order = [graph.named(edge) for edge in graph.auto_circuit_edges(1)]
        given = ww.acdc(random_model, task, order=order, pairs=3, seed=1, progress=False)
        named = ww.acdc(random_model, task, order="auto_circuit", pairs=3, seed=1, progress=False)
        assert named.path_edges == given.path_edges
        assert named.document.provenance.settings["order"] == "auto_circuit"
        (again,) = acdc_sweep(
            random_model, task, AcdcConfig(order="auto_circuit", pairs=3, seed=1), progress=False
        )
        assert again.path_edges == named.path_edges
        plain = ww.acdc(random_model, task, pairs=3, seed=1, progress=False)
        conmy = ww.acdc(random_model, task, order="conmy", pairs=3, seed=1, progress=False)
        assert conmy.path_edges == plain.path_edges
        assert plain.path_edges != named.path_edges
