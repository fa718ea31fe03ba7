"""Where there is nothing to find: what is searched there, and that it is found out."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hand_wired import Corpus
from hand_wired.edge_masks import link_, weight
from hand_wired.quote_closer import quote_closer
from present import present
from torch import Tensor

from wirework.circuits import Ablation, Circuit, EdgeMasks, prune, validate
from wirework.circuits.held_out import pairs_of
from wirework.circuits.validation import controls
from wirework.circuits.validation.context import ValidationContext
from wirework.circuits.validation.controls import needed_nodes, random_control, shuffled
from wirework.circuits.validation.random_circuits import random_circuits
from wirework.circuits.validation.random_labels import random_labels
from wirework.circuits.validation.validate import searched_control
from wirework.circuits.validation.validation_report import Controls, RandomControl
from wirework.circuits.validation.verdict import verdict
from wirework.config import PruneConfig
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.tasks import Task, TokenizedPairs, evaluate

QUICK = PruneConfig(
    trials=2, parallel=2, steps=40, batch_pairs=8, eval_pairs=24, lr=1e-2, k_coef=1e-3,
    finalists=1, extra_rankings=(),
)  # fmt: skip


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
    assert present(evaluate(other, task).loss) > 0.5
    assert present(evaluate(wired, task).loss) < 0.05


@pytest.fixture(scope="module")
def large(ablation: Ablation, rows: TokenizedPairs) -> tuple[EdgeMasks, Tensor]:
    """A circuit in both layers of random weights, with nothing that leads nowhere."""
    parts = ablation.space.split(torch.zeros(ablation.space.size))
    nodes = {site: list(range(9)) for site in parts}
    edge_masks = EdgeMasks.of(ablation, ablation.space.gates(nodes))
    gates = (torch.rand(edge_masks.size, generator=torch.Generator().manual_seed(0)) < 0.8).float()
    while True:
        gates[: edge_masks.n_nodes] = 0
        gates[list(between(edge_masks, gates, rows))] = 1
        if gates[: edge_masks.n_nodes].all():
            return edge_masks, gates
        edge_masks, gates = edge_masks.compacted(gates)


def between(edge_masks: EdgeMasks, gates: Tensor, rows: TokenizedPairs) -> set[int]:
    """Return the nodes that walks from the prompts' tokens to the answers go through.

    A plain search from both ends, over edges, the residual stream and heads.
    """
    model, names = edge_masks.transformer, edge_masks.kept
    kept = gates[edge_masks.n_nodes :].bool().tolist()
    steps = [
        (edge.source, edge.target)
        for edge, there in zip(edge_masks.edges(), kept, strict=True)
        if there
    ]
    weighs = []
    for a, (site, channel) in enumerate(names):
        for b, (other, there) in enumerate(names):
            later = a < b and site.endswith("resid_delta") and other.endswith("act_in")
            if later and channel == there:
                steps.append((a, b))
            head = model.config.d_head
            if site[:-1] == other[:-1] and site[-1] in "qk" and other.endswith(".v"):
                weighs += [(a, b)] * (channel // head == there // head)
    fed = {
        a
        for a, (site, channel) in enumerate(names)
        if site.endswith("act_in")
        and (channel >= 16 or model.embed.weight[rows.tokens.unique(), channel].any())
    }
    read = {
        a
        for a, (site, channel) in enumerate(names)
        if site.endswith("resid_delta")
        and model.unembed.weight[rows.answers.unique(), channel].any()
    }
    for _ in names:
        fed |= {b for a, b in steps if a in fed}
        read |= {a for a, b in [*steps, *weighs] if b in read}
    return fed & read


def sizes(edge_masks: EdgeMasks, gates: Tensor) -> Counter[tuple[str, ...]]:
    """Count the nodes at each site and the edges in each matrix."""
    names = edge_masks.kept
    found: Counter[tuple[str, ...]] = Counter((site,) for site, _ in names)
    for edge, gate in zip(edge_masks.edges(), gates[edge_masks.n_nodes :].tolist(), strict=True):
        found[names[edge.source][0], names[edge.target][0]] += int(gate)
    return found


def test_random_circuits_are_connected_and_of_the_same_make_up(
    large: tuple[EdgeMasks, Tensor], rows: TokenizedPairs
) -> None:
    edge_masks, gates = large
    assert edge_masks.n_nodes > 50
    first, *others = random_circuits(edge_masks, gates, rows, 9, 0)
    assert sizes(*first) == sizes(edge_masks, gates)
    for one in (first, *others):
        assert len(between(*one, rows)) == one[0].n_nodes
        assert not sizes(*one) - sizes(edge_masks, gates)
        assert sizes(*one).total() > 0.9 * sizes(edge_masks, gates).total()
        assert one[0].node_indices.tolist() != edge_masks.node_indices.tolist()
    assert len({tuple(one.node_indices.tolist()) for one, _ in (first, *others)}) == 9
    again = random_circuits(edge_masks, gates, rows, 9, 0)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip([first, *others], again, strict=True))


@torch.no_grad()
def everywhere(tokenizer: Tokenizer, task: Task) -> Model:
    """Return the quote closer in which any path through any value does the task.

    Each channel of the stream tells which quote opened the string, the key of each head finds it,
    each value carries it and each channel that is written votes.
    """
    model = quote_closer(tokenizer, task)
    embed, unembed = weight(model, "embed.weight"), weight(model, "unembed.weight")
    quote, opens = embed[:, 0].clone(), embed[:, 3].clone()
    embed[:] = quote[:, None]
    embed[:, 3] = opens
    unembed[:] = unembed[:, 2:3].clone()
    for head in (0, 1):
        link_(model, ("0.attn.act_in", 3), ("0.attn.k", 4 * head), 6.0)
        link_(model, ("0.attn.act_in", 1), ("0.attn.q", 4 * head), 0.0)
        for channel in range(4 * head, 4 * head + 4):
            for read in (0, 1, 2, 4, 5, 6, 7):
                link_(model, ("0.attn.act_in", read), ("0.attn.v", channel), 0.5)
            for written in range(8):
                link_(model, ("0.attn.v", channel), ("0.attn.resid_delta", written), 1.0)
    weight(model, "blocks.0.attn.qkv.bias")[[0, 4]] = 4.0
    return model


@pytest.mark.slow
def test_the_control_of_random_circuits_fails_where_any_circuit_of_that_size_does_the_task(
    circuit, wired, tokenizer, task, corpus
) -> None:
    easy = everywhere(tokenizer, task)
    loose = prune(easy, task, QUICK, data=corpus, progress=False)
    control = random_control(context_of(loose, easy, task))
    assert isinstance(control, RandomControl)
    assert control.n_sufficient > 0.5 * control.n > 3
    assert control.edges.least == control.edges.circuit == loose.n_kept_edges
    report = validate(loose, easy, task, short=True)
    failed = verdict(
        report, Controls(random_circuits=control), target_loss=0.15, n_nodes=loose.n_nodes
    )
    assert failed.faithful is False
    assert "are sufficient too" in failed.reasons[0]
    real = random_control(context_of(circuit, wired, task))
    assert isinstance(real, RandomControl)
    assert real.n_sufficient == 0


def test_random_circuits_with_all_nodes_that_a_circuit_needs_are_counted_apart(
    circuit, wired, task, monkeypatch
) -> None:
    context = context_of(circuit, wired, task)
    own = (context.edge_masks, context.gates)
    without_first = torch.ones_like(context.gates)
    without_first[0] = 0
    fewer = context.edge_masks.compacted(without_first)
    monkeypatch.setattr(controls, "random_circuits", lambda *_: [own, own, fewer])
    control = random_control(context)
    assert isinstance(control, RandomControl)
    assert (control.n, control.n_sufficient, control.n_with_needed) == (3, 2, 2)
    needed = needed_nodes(context, context.first_held_out())
    assert needed <= set(context.edge_masks.kept)
    assert context.edge_masks.kept[0] in needed
    monkeypatch.setattr(controls, "needed_nodes", lambda *_: set())
    redundant = random_control(context)
    assert isinstance(redundant, RandomControl)
    assert (redundant.n_sufficient, redundant.n_with_needed) == (2, 0)


def context_of(circuit: Circuit, model: Model, task: Task) -> ValidationContext:
    return ValidationContext.of(circuit, model, pairs_of(circuit.document, model, task), None)


def test_random_labels_that_masks_can_fit_are_flagged(tokenizer, task, corpus) -> None:
    model = gullible(tokenizer, task)
    odd = random_labels(task, model, 0)
    assert odd.name.endswith("(random labels: last token's number odd)")
    real = prune(model, task, QUICK, data=corpus, progress=False)
    control = searched_control(model, odd, QUICK, corpus)
    assert control.reached is True
    assert control.held_out.circuit < 0.2
    assert control.n_nodes < 3 * real.n_nodes
    about = {"target_loss": 0.15, "n_nodes": real.n_nodes}
    checks = replace(
        control,
        held_out=replace(
            control.held_out, circuit=0.1, circuit_error=0.0, model=0.1, without_circuit=2.0
        ),
        resampled=replace(control.resampled, resample=0.1),
        interchange=replace(control.interchange, same=0.1, other=3.0),
    )
    assert verdict(checks, Controls(), **about).faithful is True
    failed = verdict(checks, Controls(random_labels=control), **about)
    assert failed.faithful is False
    assert "the same search reaches the target too" in failed.reasons[0]


def test_a_random_label_task_of_fewer_pairs_than_a_batch_is_searched_all_the_same(
    wired, task, corpus
) -> None:
    odd = random_labels(task, wired, 0)
    config = QUICK.model_copy(update={"batch_pairs": len(odd.pairs), "steps": 2, "trials": 1})
    assert searched_control(wired, odd, config, corpus).reached is False
