"""Steering on a planted pair of models, the hand-wired quote closer and itself in another basis."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hand_wired import quote_closer
from hand_wired.circuits import circuit_of
from hand_wired.edge_masks import Corpus, Planted
from hand_wired.rotated import exact_pair
from present import present
from safetensors.torch import load_file

from wirework.bridges import Bridged, steer
from wirework.bridges.directions import ReadingNode, dense_direction, stream_sizes
from wirework.bridges.held_out_text import text_batches
from wirework.bridges.perturbations import (
    adding,
    answer_probabilities,
    differences,
    partner_tokens,
    perturbation,
)
from wirework.bridges.steering_controls import of_equal_size, other_channels
from wirework.bridges.steering_files import check_steering_folder, save_steering
from wirework.bridges.steering_report import SteeringReport
from wirework.bridges.text_effect import text_effect, typical_change
from wirework.circuits import NodeCircuit
from wirework.circuits.circuit import tokenize_task
from wirework.errors import InputError
from wirework.model import Model
from wirework.nn import Transformer
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


def test_the_projection_takes_what_the_node_carries(steered: SteeringReport):
    """Without the channel the model cannot tell the quotes apart; other channels do less."""
    (quote,) = [effect for effect in steered.effects if effect.node == QUOTE]
    (marker,) = [effect for effect in steered.effects if effect.node == "0.attn.act_in.3"]
    assert (quote.location, marker.location) == ("0.attn", "0.attn")
    assert quote.right_without < 0.7 * steered.at(0).right
    assert quote.right_without_other > quote.right_without
    assert quote.other == pytest.approx(steered.at(1).other)
    assert quote.other_on_seen == max(effect.other_on_seen for effect in steered.effects)
    assert quote.text_loss_without != pytest.approx(steered.text.loss, abs=1e-6)


def test_the_directions_are_those_that_steer(steered: SteeringReport, pair: Bridged):
    assert set(steered.directions) == {"0.attn.act_in.0", "0.attn.act_in.3"}
    found = torch.tensor(steered.directions[QUOTE])
    column = pair.bridges.decoders[0].weight[:, 0].detach()
    assert float(torch.cosine_similarity(found, column, 0)) == pytest.approx(1.0, abs=1e-6)


def test_both_sides_are_reported(steered: SteeringReport):
    point = steered.at(1)
    assert sum(point.other_by_side) / 2 == pytest.approx(point.other)
    with pytest.raises(KeyError):
        steered.at(0.3)


def test_the_gain_of_the_norm_is_taken_out(pair: Bridged, text: Any):
    """A node that the norm halves changes by half of what its channel does."""
    tokens = [torch.from_numpy(text.train.slice(0, 80))[None]]
    gained = Model(Transformer(pair.sparse.config), pair.sparse.tokenizer)
    gained.transformer.load_state_dict(pair.sparse.transformer.state_dict())
    with torch.no_grad():
        gained.transformer.blocks[0].norm1.weight[:3] = torch.tensor([0.5, -2.0, 0.0])
    other = replace(pair, sparse=gained)
    sizes = stream_sizes(gained.transformer, tokens)
    plain = stream_sizes(pair.sparse.transformer, tokens)
    for index, factor in ((0, 2.0), (1, -0.5), (2, 0.0), (3, 1.0)):
        node = ReadingNode(f"0.attn.act_in.{index}", "0.attn.act_in", index, 0)
        expected = factor * dense_direction(pair, node, plain) * float(sizes[0] / plain[0])
        assert torch.allclose(dense_direction(other, node, sizes), expected, rtol=1e-5), index
    # The gains are not part of the size: it is that of the channels with a gain.
    assert float(sizes[0] / plain[0]) == pytest.approx(1.0, abs=0.2)


def test_sizes_weigh_every_token_alike(pair: Bridged, text: Any):
    tokens = torch.from_numpy(text.train.slice(0, 90))
    whole = stream_sizes(pair.sparse.transformer, [tokens[:60].view(3, 20), tokens[60:80][None]])
    parts = stream_sizes(pair.sparse.transformer, [tokens[:80].view(4, 20)])
    assert torch.allclose(whole, parts, rtol=1e-6)


def test_a_control_adds_vectors_of_equal_length_at_every_token():
    """Also where several nodes act at one location and their directions are alike."""
    nodes = [ReadingNode(f"0.attn.act_in.{i}", "0.attn.act_in", i, 0) for i in range(2)]
    changes = torch.randn(2, 4, 5)
    own = perturbation(nodes, changes, torch.tensor([[1.0, 0, 0], [1.0, 0.1, 0]]))
    control = of_equal_size(perturbation(nodes, changes, torch.randn(2, 3)), own)
    assert torch.allclose(control[0].norm(dim=-1), own[0].norm(dim=-1), rtol=1e-5)
    assert not torch.allclose(control[0], own[0], atol=0.1)


def test_other_channels_are_distinct_and_not_those_of_the_nodes():
    nodes = [ReadingNode(f"0.attn.act_in.{i}", "0.attn.act_in", i, 0) for i in range(3)]
    for seed in range(20):
        drawn = other_channels(nodes, 7, torch.Generator().manual_seed(seed))
        assert len({node.index for node in drawn} & {3, 4, 5, 6}) == 3
    other = replace(nodes[0], name="0.mlp.act_in.0", site="0.mlp.act_in", location=1)
    mixed = [nodes[0], other, nodes[1]]
    for seed in range(20):
        drawn = other_channels(mixed, 5, torch.Generator().manual_seed(seed), beside=mixed[:1])
        assert [node.location for node in drawn] == [0, 1, 0]
        assert drawn[0].index != drawn[2].index
        assert drawn[1].index != 0
    with pytest.raises(InputError, match="3 nodes of one location leave 2 of 5 channels"):
        other_channels(nodes, 5, torch.Generator())


def test_the_change_of_text_keeps_the_signs_between_nodes():
    """Two nodes that change in opposite ways cancel where their directions are alike."""
    nodes = [ReadingNode(f"0.attn.act_in.{i}", "0.attn.act_in", i, 0) for i in range(2)]
    changes = torch.zeros(2, 4, 3)
    changes[0, :, 1] = torch.tensor([2.0, -2.0, 2.0, -2.0])  # first prompts up, second down
    changes[1, :, 1] = -changes[0, :, 1]
    alike = typical_change(perturbation(nodes, changes, torch.tensor([[1.0, 0], [1.0, 0]])))
    assert torch.allclose(alike[0], torch.zeros(2))
    apart = typical_change(perturbation(nodes, changes, torch.tensor([[1.0, 0], [0, 1.0]])))
    assert torch.allclose(apart[0], torch.tensor([2.0, -2.0]))


def test_the_effect_on_text_is_that_of_the_added_vector(pair: Bridged, text: Any):
    vector = torch.randn(pair.dense.config.d_model)
    added = {0: torch.stack([vector, -vector])[:, None]}  # one pair of one token
    found = text_effect(pair.dense.transformer, added, text.val, torch.Generator())
    losses, divergences, model = [], [], pair.dense.transformer
    ((tokens, targets),) = text_batches(text.val, [model], 8192)
    with torch.no_grad():
        before = model(tokens).log_softmax(-1)
        for sign in (1, -1):
            with model.edited({"0.resid_in": adding(sign * vector)}):
                losses.append(float(model.loss(tokens, targets)))
                after = model(tokens).log_softmax(-1)
            divergences.append(float((before.exp() * (before - after)).sum(-1).mean()))
        assert found.loss == pytest.approx(float(model.loss(tokens, targets)), rel=1e-5)
    assert found.loss_steered == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert found.kl_steered == pytest.approx(sum(divergences) / 2, rel=1e-4)
    assert found.n_tokens == targets.numel()


def test_the_folder_holds_what_the_report_says(
    steered: SteeringReport, pair: Bridged, tmp_path: Path
):
    save_steering(steered, pair, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "steering.json").read_text())
    assert about["nodes"] == [QUOTE]
    assert about["model"]["fingerprint"] == pair.dense.fingerprint
    assert "directions" not in about
    directions = load_file(tmp_path / "out" / "steering.safetensors")
    assert {name: tuple(v.tolist()) for name, v in directions.items()} == dict(steered.directions)
    assert (tmp_path / "out" / "steering.png").read_bytes().startswith(b"\x89PNG")
    save_steering(steered, pair, tmp_path / "out")  # its own folder is replaced
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    with pytest.raises(InputError):
        check_steering_folder(tmp_path / "foreign")


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
        (([1, 2, 3], [2, 3]), [[0, 0, 1], [1, 2, 0]]),
        (([9, 3], [3]), [[0, 0], [1, 0]]),
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
