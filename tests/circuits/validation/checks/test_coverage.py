import pytest
import torch
from hand_wired.quote_closer import NODES

from wirework.circuits import Ablation, find_edges
from wirework.circuits.validation.checks import Coverage, coverage
from wirework.model import Model


def test_the_planted_circuit_by_hand(wired: Model, planted_gates, wired_ablation) -> None:
    # Each of its nodes is joined to circuit nodes only.
    assert coverage(wired.transformer, planted_gates) == Coverage(3, 3, 1.0, 3, 1.0)
    # A neuron of layer 0 has a weight from read 4 and one to write 6, neither end in the circuit.
    parts: dict[str, list[int]] = {}
    for site, channel in [*NODES, ("0.mlp.post_act", 0)]:
        parts.setdefault(site, []).append(channel)
    more = wired_ablation.space.gates(parts)
    assert coverage(wired.transformer, more) == Coverage(3, 5, 0.6, 3, 0.6)
    # Of the three edges between its nodes the circuit keeps two.
    assert coverage(wired.transformer, more, n_kept_edges=2) == Coverage(3, 5, 0.6, 2, 0.4)
    nothing = torch.zeros(wired_ablation.space.size)
    assert coverage(wired.transformer, nothing) == Coverage(0, 0, None, 0, None)


def test_it_counts_what_a_plain_loop_does(
    random_model: Model, ablation: Ablation, some_gates
) -> None:
    space = ablation.space
    every = find_edges(random_model.transformer, space.locate(torch.arange(space.size)))
    kept = some_gates.bool().tolist()
    touching = sum(kept[edge.source] or kept[edge.target] for edge in every)
    inside = sum(kept[edge.source] and kept[edge.target] for edge in every)
    found = coverage(random_model.transformer, some_gates)
    assert (found.n_edges, found.n_touching) == (inside, touching)
    assert found.share == pytest.approx(inside / touching)
