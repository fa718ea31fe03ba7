import pytest
import torch
from hand_wired.quote_closer import NODES

import wirework as ww
from wirework.circuits import METHODS, Ablation, auroc, node_means, score_nodes
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import Task, TokenizedPairs


@pytest.fixture(scope="module")
def planted(wired: Model, task: Task) -> tuple[Ablation, TokenizedPairs]:
    rows = task.take(task.pairs[:32]).encode(wired.tokenizer, 80)
    return Ablation.of(wired.transformer, node_means(wired.transformer, [rows.tokens])), rows


def test_planted_nodes_score_high(planted: tuple[Ablation, TokenizedPairs]) -> None:
    ablation, rows = planted
    truth = torch.zeros(ablation.space.size, dtype=torch.bool)
    for site, channel in NODES:
        ablation.space.split(truth)[site][channel] = True
    found = {method: auroc(score_nodes(ablation, rows, method), truth) for method in METHODS}
    # The head's softmax is saturated: plain gradients cannot see its key nor what the key reads,
    # AtP* sees the key, and the path of integrated gradients leaves the flat part.
    assert found["integrated_gradients"] == 1.0
    assert found["attribution"] > 0.9
    assert found["atp_star"] > 0.9
    assert 0.1 < found["random"] < 0.9


def test_attribute_scores_every_node_by_site(wired: Model, task: Task, corpus) -> None:
    scores = ww.attribute(wired, task, "integrated_gradients", data=corpus)
    assert (scores.method, scores.task) == ("integrated_gradients", "single_double_quote")
    sites = wired.transformer.sites
    assert {name: len(part) for name, part in scores.sites.items()} == {
        name: sites[name].width for name in wired.transformer.node_sites
    }
    best = scores.top(5)
    assert {(site, index) for site, index, _ in best} == set(NODES)
    assert [score for *_, score in best] == sorted((score for *_, score in best), reverse=True)
    assert all(float(scores.sites[site][index]) == score for site, index, score in best)
    assert len(scores.top(10_000)) == scores.n_nodes
    assert scores.top(0) == []


def test_random_scores_follow_the_seed(wired: Model, task: Task, corpus) -> None:
    one, again, other = (
        ww.attribute(wired, task, "random", data=corpus, seed=seed).top(9) for seed in (1, 1, 2)
    )
    assert one == again != other


def test_an_unknown_method_is_refused(wired: Model, task: Task) -> None:
    with pytest.raises(InputError, match=r"no method 'atp'.*did you mean 'atp_star'"):
        ww.attribute(wired, task, "atp")


def test_a_model_without_a_tokeniser_is_refused(wired: Model, task: Task) -> None:
    with pytest.raises(InputError, match="needs a model with a tokeniser"):
        ww.attribute(Model(wired.transformer), task)
