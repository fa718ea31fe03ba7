"""Steering on a planted pair of models, the hand-wired quote closer and itself in another basis."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hand_wired import quote_closer
from hand_wired.circuits import circuit_of
from hand_wired.edge_masks import Corpus, Planted
from hand_wired.rotated import exact_pair
from present import present

from wirework.bridges import Bridged, steer
from wirework.bridges.directions import ReadingNode, dense_direction, stream_sizes
from wirework.bridges.perturbations import (
    answer_probabilities,
    differences,
    partner_tokens,
)
from wirework.bridges.steering import SteeringReport
from wirework.circuits import NodeCircuit
from wirework.circuits.circuit import tokenize_task
from wirework.errors import InputError
from wirework.nn.residual_locations import record_streams
from wirework.tasks import TokenizedPairs

QUOTE = "0.attn.act_in.0"
"""The node that carries which quote opened the string."""


@pytest.fixture(scope="module")
def planted() -> Planted:
    return quote_closer.plant()


@pytest.fixture(scope="module")
def pair(planted: Planted) -> Bridged:
    return exact_pair(planted.model)


@pytest.fixture(scope="module")
def text(planted: Planted) -> Any:
    corpus = Corpus(present(planted.model.tokenizer), planted.task)
    return SimpleNamespace(train=corpus, val=corpus)


@pytest.fixture(scope="module")
def circuit(planted: Planted) -> NodeCircuit:
    return circuit_of(planted)


@pytest.fixture(scope="module")
def steered(pair: Bridged, circuit: NodeCircuit, planted: Planted, text: Any) -> SteeringReport:
    return steer(pair, circuit, task=planted.task, data=text, draws=8)


@pytest.fixture(scope="module")
def batch(planted: Planted) -> TokenizedPairs:
    return tokenize_task(planted.task, planted.model)


def test_the_rotated_model_is_the_same_model(pair: Bridged, batch: TokenizedPairs):
    expected = pair.sparse.transformer(batch.tokens)
    assert torch.allclose(pair.dense.transformer(batch.tokens), expected, atol=1e-4)


def test_the_node_that_carries_the_context_is_found_and_flips_the_answer(steered: SteeringReport):
    assert (steered.nodes, steered.chosen) == ((QUOTE,), True)
    assert steered.at(0).other_of_two < 0.1
    assert steered.at(1).other_of_two > 0.9
    assert steered.at(1).other > steered.at(0.5).other > steered.at(0).other


def test_the_dense_stream_changes_along_the_channel_of_the_node_alone(
    pair: Bridged, batch: TokenizedPairs, text: Any
):
    """In the basis of the sparse model it is the swapped channel, as large as the stream."""
    node = ReadingNode.of(QUOTE, pair.sparse.transformer)
    windows = [torch.from_numpy(text.train.slice(0, 80))[None]]
    sizes = stream_sizes(pair.sparse.transformer, windows)
    change = differences(pair, [node], batch, "dense")[0]
    moved = change[..., None] * dense_direction(pair, node, sizes)
    back = moved @ pair.bridges.decoders[0].weight  # the rotation's inverse
    assert torch.allclose(back[..., 1:], torch.zeros_like(back[..., 1:]), atol=1e-5)
    assert torch.allclose(back[..., 0], change * float(sizes[0]), atol=1e-5)
    _, streams = record_streams(pair.sparse.transformer, batch.tokens)
    own = streams[0][..., 0]
    inside = torch.arange(own.shape[1]) <= batch.last_positions[:, None]
    other = own.view(-1, 2, own.shape[1]).flip(1).view_as(own)  # the pairs differ in one token
    assert torch.equal(back[..., 0].sign(), ((other - own) * inside).sign())


def test_controls_of_equal_length_do_less(steered: SteeringReport):
    by_kind = {control.control: control for control in steered.controls}
    assert by_kind.keys() == {"random", "other_channel"}
    at_one = by_kind["random"].strengths.index(1.0)
    assert by_kind["random"].mean[at_one] < 0.5 * steered.at(1).other
    assert all(c.mean[0] == pytest.approx(steered.at(0).other) for c in steered.controls)
    assert all(m <= x for c in steered.controls for m, x in zip(c.mean, c.largest, strict=True))


def test_the_sparse_model_is_steered_by_the_dense_one(
    pair: Bridged, circuit: NodeCircuit, planted: Planted, text: Any
):
    report = steer(pair, circuit, [QUOTE], target="sparse", task=planted.task, data=text, draws=2)
    assert not report.chosen
    assert report.at(0).other_of_two < 0.1
    assert report.at(1).other_of_two > 0.99
    # The channel is swapped exactly, so that the answers are those of the other prompt.
    assert report.at(1).other == pytest.approx(report.at(0).right, rel=0.02)


def test_several_nodes_add_up(pair: Bridged, circuit: NodeCircuit, planted: Planted, text: Any):
    names = [QUOTE, "0.attn.act_in.3"]
    report = steer(pair, circuit, names, task=planted.task, data=text, draws=2)
    alone = steer(pair, circuit, [QUOTE], task=planted.task, data=text, draws=2)
    assert report.nodes == tuple(names)
    # Both prompts have a quote, so that the second node has nothing to add.
    assert report.at(1).other == pytest.approx(alone.at(1).other, abs=1e-6)


def test_at_strength_zero_nothing_changes(pair: Bridged, batch: TokenizedPairs):
    _, width = batch.tokens.shape[1], pair.dense.config.d_model
    added = {0: torch.randn(*batch.tokens.shape, width)}
    unchanged = answer_probabilities(pair.dense.transformer, batch, {}, 1.0)
    assert torch.equal(answer_probabilities(pair.dense.transformer, batch, added, 0.0), unchanged)
    logits = pair.dense.transformer(batch.tokens, batch.last_positions).double()
    assert torch.allclose(unchanged, logits.softmax(-1).gather(1, batch.answers), atol=1e-6)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (([1, 2, 3, 4], [1, 9, 3, 4]), [[0, 1, 2, 3], [0, 1, 2, 3]]),
        (([1, 2, 3], [1, 8, 9, 3]), [[0, 2, 3, 0], [0, 1, 1, 2]]),
        (([1, 3], [1, 9, 3]), [[0, 2, 0], [0, 0, 1]]),
        (([1, 2], [1, 2]), [[0, 1], [0, 1]]),
        (([5, 6], [7]), [[0, 0], [1, 0]]),
    ],
)
def test_tokens_find_their_partner(prompts: Any, expected: list[list[int]]):
    width = max(map(len, prompts))
    tokens = torch.tensor([[*one, *[0] * (width - len(one))] for one in prompts])
    last = torch.tensor([len(one) - 1 for one in prompts])
    batch = TokenizedPairs(tokens, last, torch.zeros(2, 2, dtype=torch.int64))
    assert partner_tokens(batch).tolist() == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": ["0.attn.v.1"]}, "is no node that reads the residual stream"),
        ({"nodes": ["0.attn.act_in.99"]}, "C below 8"),
        ({"nodes": ["7.attn.act_in.0"]}, "L below 2"),
        ({"nodes": ["0.mlp.act_in.0"]}, "the circuit does not hold 0.mlp.act_in.0"),
        ({"strengths": [float("nan")]}, "a strength must be a finite number, got nan"),
        ({"strengths": [float("inf")]}, "a strength must be a finite number, got inf"),
        ({"pairs": 0}, "pairs must be at least 1"),
        ({"draws": 0}, "draws must be at least 1"),
    ],
)
def test_what_cannot_be_steered_is_said(
    pair: Bridged, circuit: NodeCircuit, planted: Planted, text: Any,
    changes: dict[str, Any], message: str,
):  # fmt: skip
    with pytest.raises(InputError, match=message):
        steer(pair, circuit, task=planted.task, data=text, **changes)


def test_a_circuit_of_another_model_is_refused(
    pair: Bridged, circuit: NodeCircuit, planted: Planted, text: Any
):
    other = replace(pair, sparse=pair.dense)
    with pytest.raises(InputError, match="model"):
        steer(other, circuit, task=planted.task, data=text)
