"""A search that excludes nodes: no step of it brings one back, and its folder is its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_wired import Corpus, Node
from hand_wired.quote_closer import NODES
from hand_wired.two_circuits import OTHER_NODES, plant
from present import present

from wirework.circuits import Circuit, NodeCircuit
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pruning.discretise import discretise
from wirework.circuits.pruning.prune import PruningRun
from wirework.circuits.pruning.second_sample import EdgePruning
from wirework.circuits.pruning.trials import score_gates
from wirework.circuits.validation.validate import searched_control
from wirework.config import PruneConfig
from wirework.errors import InputError

LEARNED = {
    "finder": "learned", "trials": 2, "parallel": 2, "steps": 30, "batch_pairs": 8, "lr": 1e-2,
    "k_coef": 1e-3,
}  # fmt: skip
QUICK = PruneConfig(finder="attribution", eval_pairs=16, mean_tokens=2000)


def by_site(nodes: list[Node]) -> dict[str, tuple[int, ...]]:
    return {site: tuple(i for name, i in nodes if name == site) for site in dict(nodes)}


@pytest.fixture(scope="module")
def planted() -> tuple:
    model, task = plant()
    return model, task, Corpus(model.tokenizer, task)


def search(planted: tuple, excluded: list[Node] = NODES, **changes: Any) -> PruningRun:
    """Return a search that excludes the nodes of the first circuit."""
    model, task, corpus = planted
    config = QUICK.model_copy(update=changes)
    baseline = AblationBaseline.of(model, corpus, config)
    return PruningRun.of(model, task, config, baseline).excluding(by_site(excluded))


def nodes_of(circuit: NodeCircuit) -> list[Node]:
    return [(node.site, node.index) for node in circuit.nodes]


@pytest.fixture(scope="module")
def second(planted: tuple) -> NodeCircuit:
    return search(planted).run()


class TestExcluding:
    def test_the_other_circuit_is_found(self, second: NodeCircuit) -> None:
        assert nodes_of(second) == OTHER_NODES
        assert second.reached
        assert second.excluded == by_site(NODES)
        assert second.n_excluded == len(NODES) == second.summary()["n_excluded"]
        assert "its search excluded 5 nodes" in repr(second)

    @pytest.mark.parametrize(
        "changes",
        [
            LEARNED,
            {**LEARNED, "warm_start": "attribution"},
            {**LEARNED, "trials": 1, "allow_unreached": True, "target_loss": 1e-4},
            {**LEARNED, "trials": 1, "ablation": "resample"},
            {"finder": "atp_star", "tie_qk": True},
            {"finder": "random", "clean_up": False, "prune_edges": False},
        ],
        ids=["masks", "warm start", "missed", "resample", "tied", "bisection"],
    )
    def test_no_excluded_node_comes_back(self, planted: tuple, changes: dict[str, Any]) -> None:
        found = search(planted, **changes).run()
        assert set(nodes_of(found)).isdisjoint(NODES)

    def test_no_excluded_node_comes_back_in_a_retry(
        self, planted: tuple, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        targets: list[float] = []
        grown = EdgePruning._grown

        def counted(pruning: EdgePruning, nodes, score, target: float) -> torch.Tensor:
            targets.append(target)
            return grown(pruning, nodes, score, target)

        monkeypatch.setattr(EdgePruning, "_grown", counted)
        monkeypatch.setattr(EdgePruning, "_highest_loss", lambda *_: 0.16)
        found = search(planted).run()
        assert len(targets) > 1
        assert set(nodes_of(found)).isdisjoint(NODES)

    def test_rankings_have_no_place_for_an_excluded_node(self, planted: tuple) -> None:
        run = search(planted, **LEARNED)
        judge = tokenize_task(run.parts.judge, run.model)
        for candidate in run.ranked():
            assert len(candidate.tau) == run.ablation.size == run.ablation.space.size - len(NODES)
            everything = discretise(run.ablation, candidate.tau, judge, target=-1.0)
            assert everything.all()
            kept = run.ablation.nodes(everything).nonzero().flatten()
            assert set(run.ablation.space.locate(kept)).isdisjoint(NODES)

    def test_scores_are_those_in_the_model_without_these_nodes(self, planted: tuple) -> None:
        run, whole = search(planted), search(planted, [])
        train = tokenize_task(run.parts.train, run.model)
        score = score_gates(run.ablation, train, "attribution", 0)
        kept = ~present(run.ablation.excluded)
        rise = whole.ablation.loss_increase(kept.float(), train)[kept] / len(train.last_positions)
        assert torch.allclose(score, rise.abs(), atol=1e-7)
        intact = score_gates(whole.ablation, train, "attribution", 0)[kept]
        assert not torch.allclose(score, intact, rtol=0.5)

    def test_the_models_loss_is_that_of_necessity(
        self, planted: tuple, second: NodeCircuit
    ) -> None:
        first = search(planted, []).run()
        assert nodes_of(first) == NODES
        assert search(planted, []).model_loss() == pytest.approx(first.losses.model)
        assert search(planted).model_loss() == pytest.approx(first.losses.without_circuit)
        both = search(planted).excluding(second.channels)
        assert both.model_loss() > 0.6
        assert second.losses.model == first.losses.model

    def test_under_resampling_the_highest_loss_counts(self, planted: tuple) -> None:
        model, _, _ = planted
        run = search(planted, ablation="resample")
        judge = tokenize_task(run.parts.judge, model)
        ablation = present(run.baseline.second_sample(model, run.config))
        mask = (~present(run.ablation.excluded)).float()[None]
        losses = [float(mode.losses(mask, judge)[0]) for mode in ablation.ablation_modes()]
        assert len(losses) == 1 + run.config.n_resamples
        assert run.model_loss() == pytest.approx(max(losses))
        assert max(losses) > min(losses)

    def test_nothing_excluded_is_the_same_search(self, planted: tuple) -> None:
        run = search(planted, [])
        assert run.excluding({}) is run
        assert run.excluded == {}
        assert run.run().document.provenance.excluded is None

    def test_a_node_that_the_model_lacks_is_refused(self, planted: tuple) -> None:
        with pytest.raises(InputError, match=r"the model has no node 0\.attn\.q\.999"):
            search(planted, [("0.attn.q", 999)])


def test_a_search_folder_tells_exclusions_apart(planted: tuple, tmp_path: Path) -> None:
    settings = {**LEARNED, "trials": 1, "steps": 1, "extra_rankings": ()}
    for number, excluded in enumerate(([], NODES, OTHER_NODES, NODES)):
        run = replace(search(planted, excluded, **settings), search=tmp_path)
        (resumed,), (expected,) = run.ranked(), replace(run, search=None).ranked()
        assert torch.equal(resumed.tau, expected.tau)
        assert len(list(tmp_path.iterdir())) == min(number + 1, 3)


class TestDocument:
    def test_it_is_saved_with_the_excluded_nodes(self, second: NodeCircuit, tmp_path: Path) -> None:
        again = Circuit.load(second.save(tmp_path / "circuit"))
        assert again.document == second.document
        without = second.document.provenance.model_copy(update={"excluded": None})
        document = second.document.model_copy(update={"provenance": without})
        assert "excluded" not in document.to_json()["provenance"]

    def test_a_kept_node_that_was_excluded_is_refused(self, second: NodeCircuit) -> None:
        values = second.document.to_json()
        site, index = OTHER_NODES[0]
        values["provenance"]["excluded"][site] = [index]
        with pytest.raises(InputError, match=rf"{site}\.{index} is kept, but the search excluded"):
            type(second.document).of_json(values, "circuit.json")


def test_a_control_repeats_the_search_without_these_nodes(
    planted: tuple, second: NodeCircuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, task, corpus = planted
    found: list[NodeCircuit] = []
    run = PruningRun.run

    def noted(self: PruningRun, *given: Any) -> NodeCircuit:
        found.append(run(self, *given))
        return found[-1]

    monkeypatch.setattr(PruningRun, "run", noted)
    searched_control(model, task, QUICK, corpus, excluded=second.excluded)
    assert nodes_of(found[0]) == OTHER_NODES
