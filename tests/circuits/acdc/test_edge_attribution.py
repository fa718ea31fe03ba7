import pytest
import torch
from random_models import contrast_of, transformer_of
from straight import TOKENS, straight

from wirework.circuits.acdc.attribution import edge_attribution, path_scores
from wirework.circuits.acdc.contrast import Contrast
from wirework.circuits.acdc.patched import Patched
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import Task


def growth(patched: Patched, metric, edge: tuple[int, int], step: float, **more: object) -> float:
    """Return by how much the metric grows when one edge's gate falls by `step`."""
    gates = torch.ones(len(patched.graph.destinations), len(patched.graph.sources)).double()
    before = float(metric(patched.run(gates, **more).logits))
    gates[edge[1], edge[0]] -= step
    return float(metric(patched.run(gates, **more).logits)) - before


def test_scores_of_a_linear_model_are_what_removing_each_edge_costs() -> None:
    ablation, rows = straight(queries=False)
    contrast = Contrast(TOKENS, TOKENS.flip(0), rows.at, torch.tensor([[4, 5]] * 4))
    patched = Patched.of(ablation.transformer, contrast)
    metric = contrast.metric("logit_difference", patched.run().logits)
    scores = path_scores(patched, metric)
    expected = [growth(patched, metric, edge, 1.0) for edge in patched.graph.edges]
    found = [float(scores[destination, source]) for source, destination in patched.graph.edges]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert max(map(abs, expected)) > 0.1


def test_scores_are_the_slope_of_every_gate(kind: str) -> None:
    patched = Patched.of(transformer_of(kind), contrast_of())
    metric = patched.contrast.metric("task_loss", patched.run().logits)
    scores = path_scores(patched, metric)
    for edge in patched.graph.edges[::7]:
        slope = growth(patched, metric, edge, 1e-6) / 1e-6
        assert float(scores[edge[1], edge[0]]) == pytest.approx(slope, rel=1e-3, abs=1e-5)
    assert float(scores.abs().max()) > 0.01


def test_integrated_gradients_are_the_mean_slope_between_the_embeddings() -> None:
    patched = Patched.of(transformer_of("neo"), contrast_of())
    metric = patched.contrast.metric("kl", patched.run().logits)
    clean = patched.run().values
    away = [value - ablated for value, ablated in zip(clean, patched.ablated, strict=True)]
    scores = path_scores(patched, metric, steps=3)
    for edge in patched.graph.edges[::9]:
        slopes = [
            growth(
                patched, metric, edge, 1e-6, entry=patched.ablated[0] + away[0] * k / 3, steps=away
            )
            for k in (1, 2, 3)
        ]
        mean = sum(slopes) / 3 / 1e-6
        assert float(scores[edge[1], edge[0]]) == pytest.approx(mean, rel=1e-3, abs=1e-5)
    assert float(scores.abs().max()) > 0.01
    assert torch.allclose(path_scores(patched, metric), torch.zeros_like(scores), atol=1e-12)


def test_scores_become_a_circuit(random_model: Model, task: Task) -> None:
    scores = edge_attribution(random_model, task, pairs=6)
    best = scores.top(5)
    effects = [abs(edge.effect) for edge in best]
    assert effects == sorted(effects, reverse=True)
    assert effects[-1] >= sorted(scores.scores.abs().flatten().tolist())[-5]
    circuit = scores.circuit(5)
    assert circuit.path_edges == tuple(best)
    assert circuit.document.provenance.finder == "edge_attribution"
    all_kept = scores.circuit(len(scores.graph.edges))
    assert all_kept.document.patching.kl == pytest.approx(0, abs=1e-12)
    assert all_kept.task_loss == pytest.approx(all_kept.losses.model)


def test_settings_that_cannot_be_used_are_refused(random_model: Model, task: Task) -> None:
    with pytest.raises(InputError, match="at least 2 steps with kl"):
        edge_attribution(random_model, task, metric="kl")
    with pytest.raises(InputError, match="1 step or more"):
        edge_attribution(random_model, task, steps=0)
    with pytest.raises(InputError, match="pairs"):
        edge_attribution(random_model, task, pairs=0)
