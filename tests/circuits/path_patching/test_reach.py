import pytest
import torch
from present import present
from random_models import contrast_of, transformer_of

import wirework as ww
from wirework.circuits.path_patching.patched import Patched
from wirework.circuits.path_patching.reach import edges_without_effect
from wirework.config import PathAblation
from wirework.model import Model
from wirework.tasks import Task


def some_edges(patched: Patched, share: float, seed: int) -> torch.Tensor:
    graph = patched.graph
    gates = torch.zeros(len(graph.destinations), len(graph.sources), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for source, destination in graph.edges:
        gates[destination, source] = float(torch.rand((), generator=generator) < share)
    return gates


@pytest.mark.parametrize("ablation", ["corrupted", "mean", "zero"])
def test_without_idle_edges_the_patched_run_is_the_same(kind: str, ablation: PathAblation) -> None:
    patched = Patched.of(transformer_of(kind), contrast_of(), ablation)
    dropped = 0
    with torch.no_grad():
        for seed in range(6):
            gates = some_edges(patched, 0.15, seed)
            idle, constant = edges_without_effect(patched, gates)
            before, after = (patched.run(g).logits for g in (gates, gates * ~idle))
            assert torch.allclose(before, after, rtol=0, atol=1e-9)
            again = edges_without_effect(patched, gates * ~idle)
            assert not again.idle.any()
            assert ablation != "corrupted" or not constant.any()
            dropped += int(idle.sum())
    assert dropped > 3


def test_every_other_edge_lies_between_the_embedding_and_the_output() -> None:
    patched = Patched.of(transformer_of("bare"), contrast_of())
    graph = patched.graph
    gates = some_edges(patched, 0.2, 1)
    idle = edges_without_effect(patched, gates).idle
    links = [(graph.sources[s], graph.destinations[d]) for s, d in graph.edges if gates[d, s]]
    reached, read = {"embed"}, {"final_resid"}
    for _ in links:  # a plain search from both ends
        reached |= {_whole(target) for source, target in links if source in reached}
        read |= {source for source, target in links if _whole(target) in read}
    for source, destination in graph.edges:
        if gates[destination, source]:
            target = _whole(graph.destinations[destination])
            between = graph.sources[source] in reached and target in read
            assert bool(idle[destination, source]) is not between


def _whole(target: str) -> str:
    """Return the source that a destination belongs to."""
    return target[:-2] if target[-2:] in (".q", ".k", ".v") else target


def test_path_circuits_leave_out_and_count_what_carries_nothing(
    random_model: Model, task: Task
) -> None:
    found = ww.acdc(random_model, task, 0.001, pairs=5, progress=False)
    kept = ww.acdc(random_model, task, 0.001, pairs=5, keep_unreachable=True, progress=False)
    part, other = found.patching, kept.patching
    assert part.n_unreachable == other.n_unreachable == kept.n_path_edges - found.n_path_edges
    assert (part.kl, found.task_loss) == pytest.approx((other.kl, kept.task_loss), abs=1e-9)
    assert set(found.path_edges) <= set(kept.path_edges)


def test_a_path_circuit_says_which_mean_it_rests_at(random_model: Model, task: Task) -> None:
    about = ww.acdc(random_model, task, 0.1, pairs=5, ablation="mean", progress=False).document
    rows = about.task.n_pairs
    assert rows == 5
    assert len(about.provenance.means) == 64
    assert about.provenance.mean_source == "task prompts"
    assert present(about.provenance.mean_tokens) > 5 * 2 * 10
    plain = ww.acdc(random_model, task, 0.1, pairs=5, progress=False).document.provenance
    assert (plain.means, plain.mean_tokens, plain.mean_source) == ("", None, "")
