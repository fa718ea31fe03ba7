import copy
import inspect

import pytest
import torch
from present import present
from random_models import contrast_of, transformer_of
from straight import TOKENS, straight

from wirework.circuits.path_patching.contrast import Contrast
from wirework.circuits.path_patching.patched import Patched
from wirework.circuits.path_patching.path_attribution import (
    completeness,
    edge_attribution,
    path_scores,
    quadrature_points,
)
from wirework.config import ModelConfig, PathMetric
from wirework.errors import InputError
from wirework.model import Model
from wirework.nn import Transformer
from wirework.tasks import Task


def growth(patched: Patched, metric, edge: tuple[int, int], step: float, **more: object) -> float:
    """Return by how much the metric grows when one edge's gate falls by `step`."""
    gates = torch.ones(len(patched.graph.destinations), len(patched.graph.sources)).double()
    before = float(metric(patched.run(gates, **more).logits))
    gates[edge[1], edge[0]] -= step
    return float(metric(patched.run(gates, **more).logits)) - before


def test_scores_of_a_linear_model_are_what_removing_each_edge_costs() -> None:
    ablation, rows = straight(queries=False)
    contrast = Contrast(TOKENS, TOKENS.flip(0), rows.last_positions, torch.tensor([[4, 5]] * 4))
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
    deviations = [value - ablated for value, ablated in zip(clean, patched.ablated, strict=True)]
    scores = path_scores(patched, metric, steps=3)
    root = 0.6**0.5 / 2  # the rule of three points, by hand
    rule = [(0.5 - root, 5 / 18), (0.5, 8 / 18), (0.5 + root, 5 / 18)]
    assert quadrature_points(3) == [pytest.approx(point) for point in rule]
    for edge in patched.graph.edges[::9]:
        slopes = [
            weight
            * growth(
                patched,
                metric,
                edge,
                1e-6,
                entry=patched.ablated[0] + deviations[0] * k,
                deviations=deviations,
            )
            for k, weight in rule
        ]
        mean = sum(slopes) / 1e-6
        assert float(scores[edge[1], edge[0]]) == pytest.approx(mean, rel=1e-3, abs=1e-5)
    assert float(scores.abs().max()) > 0.01
    assert torch.allclose(path_scores(patched, metric), torch.zeros_like(scores), atol=1e-12)


@pytest.mark.parametrize("metric", ["kl", "logit_difference", "task_loss"])
def test_scores_of_a_smooth_model_add_up_to_the_difference_by_default(metric: PathMetric) -> None:
    """A model like GPT-2, at twice its initial weights."""
    config = ModelConfig(
        vocab_size=500, n_ctx=16, n_layer=4, d_model=64, d_head=16, act_fraction=None, norm="layer",
        sinks=False, bigram=False, positions="added", tied_embedding=True, activation="gelu_tanh",
    )  # fmt: skip
    transformer = Transformer(config, seed=0)
    with torch.no_grad():
        for weight in transformer.parameters():
            weight.mul_(2 if weight.dim() == 2 else 1)
    prompts = contrast_of()
    patched = Patched.of(transformer, prompts)
    measure = prompts.metric(metric, patched.run().logits)
    steps = inspect.signature(edge_attribution).parameters["steps"].default
    scores = path_scores(patched, measure, steps)
    assert completeness(patched, measure, scores) == pytest.approx(1, abs=0.05)
    coarse = path_scores(patched, measure, 2)
    corrupted = patched.transformer.entry(prompts.corrupted)[0]
    ends = [float(measure(patched.run(entry=e).logits)) for e in (corrupted, None)]
    found = completeness(patched, measure, coarse)
    assert found == pytest.approx(float(coarse[:, 0].sum()) / (ends[0] - ends[1]))


def test_a_score_has_the_sign_and_size_of_what_acdc_measures(random_model, task) -> None:
    """On the first edge tried nothing else is removed, and the metric hardly bends."""
    mild = copy.deepcopy(random_model)
    with torch.no_grad():
        mild.transformer.unembed.weight.mul_(0.01)
    scores = edge_attribution(mild, task, steps=1, pairs=4, metric="logit_difference")
    assert scores.settings["metric"] == "logit_difference"
    first = scores.graph.edges[0]
    patched = scores.setting.patched
    measure = patched.contrast.metric("logit_difference", patched.run().logits)
    effect = growth(patched, measure, first, 1.0)
    found = float(scores.scores[first[1], first[0]])
    assert abs(effect) > 1e-6
    assert found / effect == pytest.approx(1, abs=0.5)


def test_scores_become_a_circuit(random_model: Model, task: Task) -> None:
    scores = edge_attribution(random_model, task, pairs=6)
    best = scores.top(5)
    effects = [abs(edge.effect) for edge in best]
    assert effects == sorted(effects, reverse=True)
    assert effects[-1] >= sorted(scores.scores.abs().flatten().tolist())[-5]
    circuit = scores.circuit(5)
    part = circuit.patching
    assert set(circuit.path_edges) <= set(best)
    assert circuit.n_path_edges + present(part.n_unreachable) == 5
    assert part.completeness == scores.completeness is not None
    assert edge_attribution(random_model, task, pairs=2, ablation="mean").completeness is None
    assert circuit.document.provenance.finder == "edge_attribution"
    all_kept = scores.circuit(len(scores.graph.edges))
    assert all_kept.patching.kl == pytest.approx(0, abs=1e-12)
    assert all_kept.task_loss == pytest.approx(all_kept.losses.model)


def test_settings_that_cannot_be_used_are_refused(random_model: Model, task: Task) -> None:
    with pytest.raises(InputError, match=r"^kl needs at least 2 steps: .* is zero; got 1$"):
        edge_attribution(random_model, task, metric="kl", steps=1)
    with pytest.raises(InputError, match=r"takes 1 step or more: got 0$"):
        edge_attribution(random_model, task, steps=0)
    with pytest.raises(InputError, match="pairs"):
        edge_attribution(random_model, task, pairs=0)
