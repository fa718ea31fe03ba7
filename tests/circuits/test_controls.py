"""Where there is nothing to find: what is searched there, and that it is found out."""

import pytest
import torch
from hand_wired import Corpus
from hand_wired.quote_closer import quote_closer
from hand_wired.wiring import link_, weight

from wirework.circuits import Circuit, prune
from wirework.circuits.controls import random_masks, searched, shuffled
from wirework.circuits.nonsense import nonsense
from wirework.circuits.verdict import verdict
from wirework.config import PruneConfig
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.tasks import Task, evaluate

QUICK = PruneConfig(
    trials=2, parallel=2, steps=40, batch_pairs=8, eval_pairs=24, lr=1e-2, k_coef=1e-3,
    finalists=1, also=(),
)  # fmt: skip
GOOD_TRADE = {"same": 0.1, "other": 3.0}


@pytest.fixture(scope="module")
def circuit(wired: Model, task: Task, corpus: Corpus) -> Circuit:
    return prune(wired, task, QUICK, data=corpus, progress=False)


@torch.no_grad()
def gullible(tokenizer: Tokenizer, task: Task) -> Model:
    """Return the quote closer with two neurons that let odd last tokens speak for one answer.

    Channels 4 and 5 tell whether a token's number is odd; the neurons write where the head does.
    The quotes' votes are stronger, so that the model as a whole still closes quotes.
    """
    model = quote_closer(tokenizer, task)
    odd = torch.arange(len(weight(model, "embed.weight"))) % 2
    weight(model, "embed.weight")[:, 4:6] = (odd - 0.5)[:, None]
    for neuron, sign in ((0, 1.0), (1, -1.0)):
        link_(model, ("0.mlp.post_act", neuron), ("0.mlp.resid_delta", 2), sign * 0.5)
    weight(model, "unembed.weight")[:, 2] *= 2
    return model


def test_shuffled_weights_keep_their_values_and_lose_the_task(wired: Model, task: Task) -> None:
    other = shuffled(wired, 0)
    for (name, before, _), (_, moved, _) in zip(
        wired.transformer.prunable(), other.transformer.prunable(), strict=True
    ):
        assert torch.equal(before.flatten().sort().values, moved.flatten().sort().values), name
    assert evaluate(other, task).loss > 0.5
    assert evaluate(wired, task).loss < 0.05


def test_random_circuits_have_the_same_make_up(circuit: Circuit, wired: Model) -> None:
    ablation, nodes = circuit.ablation(wired)
    masks = random_masks(ablation, nodes, 9, 0)
    for name, part in ablation.space.split(masks).items():
        assert (part.sum(1) == ablation.space.split(nodes)[name].sum()).all()
    assert len({tuple(mask.tolist()) for mask in masks}) == 9


def test_nonsense_that_masks_can_fit_is_flagged(tokenizer, task, corpus) -> None:
    model = gullible(tokenizer, task)
    odd = nonsense(task, model, 0)
    assert odd.name.endswith("(nonsense: last token's number odd)")
    real = prune(model, task, QUICK, data=corpus, progress=False)
    control = searched(model, odd, QUICK, corpus)
    assert control["reached"] is True
    assert control["held_out"]["circuit"] < 0.2
    assert control["n_nodes"] < 3 * real.n_nodes
    about = {"target_loss": 0.15, "n_nodes": real.n_nodes}
    fine = {"circuit": 0.1, "circuit_error": 0.0, "without_circuit": 2.0}
    checked = {"held_out": fine, "resampled": {"resample": 0.1}, "interchange": GOOD_TRADE}
    assert verdict(about | checked, {})["faithful"] is True
    found = verdict(about | checked, {"nonsense task": control})
    assert found["faithful"] is False
    assert "the same search reaches the target too" in found["reasons"][0]


def test_a_nonsense_task_of_fewer_pairs_than_a_batch_is_searched_all_the_same(
    wired, task, corpus
) -> None:
    odd = nonsense(task, wired, 0)
    config = QUICK.model_copy(update={"batch_pairs": len(odd.pairs), "steps": 2, "trials": 1})
    assert searched(wired, odd, config, corpus)["reached"] is False
