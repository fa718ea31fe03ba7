import pytest
import torch
from one_at_a_time import Edge, exact, one_at_a_time
from random_models import contrast_of, transformer_of

from wirework.circuits.path_patching import search as acdc_search
from wirework.circuits.path_patching import trials
from wirework.circuits.path_patching.patched import Patched
from wirework.circuits.path_patching.search import SearchResult, search
from wirework.circuits.path_patching.state import PatchedState, Trials


class Case:
    """A model, prompts and a metric, for our search and for the plain one."""

    def __init__(self, kind: str, ablation: str, metric: str, seed: int = 0) -> None:
        self.contrast = contrast_of(seed)
        transformer = transformer_of(kind, seed)
        self.patched = Patched.of(transformer, self.contrast, ablation)
        self.graph, self.metric = self.patched.graph, metric
        self.model = exact(transformer)
        self.measure = self.contrast.metric(metric, self.patched.run().logits)

    def order(self, seed: int | None) -> list[Edge]:
        """Return the default order, or one shuffled by a seed."""
        names = [(edge.source, edge.target) for edge in map(self.graph.named, self.graph.edges)]
        if seed is None:
            return names
        generator = torch.Generator().manual_seed(seed)
        return [names[place] for place in torch.randperm(len(names), generator=generator)]

    def plain(self, order: list[Edge], tau: float) -> tuple[list[Edge], dict[Edge, float]]:
        ablated = dict(zip(self.graph.sources, self.patched.ablated, strict=True))
        prompts = self.contrast.clean, self.contrast.last_positions
        measure = lambda logits: float(self.measure(logits))  # noqa: E731
        return one_at_a_time(self.model, *prompts, ablated, measure, order, tau)

    def ours(self, order: list[Edge], tau: float, **more: object) -> SearchResult:
        return search(
            PatchedState(self.patched, self.metric), self.graph.ordered(order), tau, **more
        )

    def named(self, found: SearchResult) -> list[Edge]:
        return [(edge.source, edge.target) for edge in map(self.graph.named, found.kept)]


CASES = [
    ("corrupted", "kl", None, 0.01),
    ("corrupted", "logit_difference", 4, 0.02),
    ("zero", "kl", 5, 0.3),
    ("mean", "task_loss", None, 0.001),
]


@pytest.mark.parametrize(("ablation", "metric", "shuffle", "tau"), CASES)
def test_the_same_edges_as_one_at_a_time(
    kind: str, ablation: str, metric: str, shuffle: int | None, tau: float
) -> None:
    case = Case(kind, ablation, metric)
    order = case.order(shuffle)
    kept, growth = case.plain(order, tau)
    found = case.ours(order, tau)
    assert case.named(found) == kept
    for edge, expected in growth.items():
        assert found.increases[case.graph.numbered(edge)] == pytest.approx(expected, abs=1e-5)
    assert 0 < len(kept) < len(order)


def test_the_kept_set_depends_on_the_order() -> None:
    case = Case("bare", "corrupted", "kl")
    one, other = (set(case.named(case.ours(case.order(seed), 0.05))) for seed in (None, 4))
    assert one != other


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["neo", "sparse"])
def test_a_growth_a_hair_from_tau_is_decided_in_float64(kind: str) -> None:
    case = Case(kind, "corrupted", "kl")
    order = case.order(None)
    _, growth = case.plain(order, 0.01)
    near = sorted(growth.values(), key=lambda one: abs(one - 0.01))[:3]
    for value in near:
        for tau in (value * (1 - 1e-9), value * (1 + 1e-9)):
            assert case.named(case.ours(order, tau)) == case.plain(order, tau)[0]


@pytest.mark.parametrize("guess", [0.0, 1.0, "wrong", "right"])
def test_guesses_never_change_what_is_found(guess: float | str) -> None:
    case = Case("neo", "corrupted", "kl", seed=1)
    order = case.order(None)
    plain = case.ours(order, 0.01)
    growth = {
        "wrong": {edge: 0.02 - value for edge, value in plain.increases.items()},
        "right": plain.increases,
    }.get(str(guess), dict.fromkeys(plain.increases, guess))
    assert case.ours(order, 0.01, guess=growth).kept == plain.kept


def test_an_edge_that_nothing_depends_on_goes_without_a_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case("neo", "corrupted", "kl")
    tried = []

    def watched(state: PatchedState, edges: list[tuple[int, int]], removed: object) -> Trials:
        tried.append(edges)
        return trials.run_trials(state, edges, removed)

    monkeypatch.setattr(acdc_search, "run_trials", watched)
    found = search(PatchedState(case.patched, "kl"), case.graph.edges, 1e3)
    assert found.kept == []
    final = [edge for edge in case.graph.edges if edge[1] == case.graph.final]
    assert {edge for edges in tried for edge in edges} == set(final)
    assert [found.increases[edge] for edge in case.graph.edges[len(final) :]] == [0.0] * (
        len(case.graph.edges) - len(final)
    )


def test_the_metric_at_the_end_is_that_of_the_kept_edges(kind: str) -> None:
    case = Case(kind, "mean", "kl")
    found = case.ours(case.order(None), 0.03)
    gates = torch.zeros(len(case.graph.destinations), len(case.graph.sources)).double()
    for source, destination in found.kept:
        gates[destination, source] = 1
    assert found.metric == pytest.approx(float(case.measure(case.patched.run(gates).logits)))
