import pytest
import torch
from one_at_a_time import all_edges, exact, run
from random_models import contrast_of, transformer_of

from wirework.circuits.path_patching.contrast import Contrast
from wirework.circuits.path_patching.patched import Patched
from wirework.config import ModelConfig
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs, kl_divergence


def whole(patched: Patched) -> torch.Tensor:
    gates = torch.zeros(len(patched.graph.destinations), len(patched.graph.sources)).double()
    for source, destination in patched.graph.edges:
        gates[destination, source] = 1
    return gates


def test_nothing_removed_is_the_model(kind: str) -> None:
    transformer, contrast = transformer_of(kind), contrast_of()
    patched = Patched.of(transformer, contrast)
    plain = exact(transformer)(contrast.clean, contrast.last_positions)
    assert torch.allclose(patched.run().logits, plain, atol=1e-11)
    assert torch.allclose(patched.run(whole(patched)).logits, plain, atol=1e-11)


def test_everything_removed_is_the_corrupted_run(kind: str) -> None:
    transformer, contrast = transformer_of(kind), contrast_of()
    patched = Patched.of(transformer, contrast)
    found = patched.run(torch.zeros_like(whole(patched))).logits
    # What stands beside the residual stream stays: the bigram row of the last token, the same here.
    rows = torch.arange(len(contrast.last_positions))
    assert torch.equal(
        contrast.clean[rows, contrast.last_positions],
        contrast.corrupted[rows, contrast.last_positions],
    )
    expected = exact(transformer)(contrast.corrupted, contrast.last_positions)
    assert torch.allclose(found, expected, atol=1e-11)
    assert not torch.allclose(found, patched.run().logits, atol=0.1)


@pytest.mark.parametrize("ablation", ["corrupted", "zero", "mean"])
def test_any_edges_removed_is_what_plain_loops_give(kind: str, ablation: str) -> None:
    transformer, contrast = transformer_of(kind), contrast_of()
    patched = Patched.of(transformer, contrast, ablation)
    graph = patched.graph
    ablated = dict(zip(graph.sources, patched.ablated, strict=True))
    generator = torch.Generator().manual_seed(3)
    gates = whole(patched)
    removed = set()
    for edge in all_edges(graph.n_layer, graph.n_head):
        if torch.rand((), generator=generator) < 0.4:
            source, destination = graph.numbered(edge)
            gates[destination, source] = 0
            removed.add(edge)
    expected, _ = run(exact(transformer), contrast.clean, contrast.last_positions, removed, ablated)
    assert torch.allclose(patched.run(gates).logits, expected, atol=1e-9)


def test_what_removed_edges_bring(kind: str) -> None:
    transformer, contrast = transformer_of(kind), contrast_of()
    model = exact(transformer)
    clean, corrupted = (
        run(model, tokens, contrast.last_positions)[1]
        for tokens in (contrast.clean, contrast.corrupted)
    )
    found = {
        name: Patched.of(transformer, contrast, name) for name in ("corrupted", "zero", "mean")
    }
    for number, source in enumerate(found["mean"].graph.sources):
        brought = {name: patched.ablated[number] for name, patched in found.items()}
        assert torch.allclose(brought["corrupted"], corrupted[source], atol=1e-11)
        assert not brought["zero"].any()
        tokens = [
            values[source][row, : int(end) + 1]
            for values in (clean, corrupted)
            for row, end in enumerate(contrast.last_positions)
        ]
        mean = torch.cat(tokens).mean(0)
        assert torch.allclose(brought["mean"], mean.expand_as(clean[source]), atol=1e-11)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"residual_activation": "relu"}, "relu"),
        ({"act_sites": ("resid_mid",), "vocab_size": 40}, "resid_mid"),
        ({"act_sites": ("attn.q", "resid_out")}, "resid_out"),
    ],
)
def test_a_stream_that_is_no_sum_is_refused(settings: dict[str, object], named: str) -> None:
    transformer = Transformer(ModelConfig.of({"vocab_size": 9, "d_model": 16, **settings}))
    with pytest.raises(InputError, match=f"no path edges in this model: {named} acts"):
        Patched.of(transformer, contrast_of())


def test_pairs_become_clean_and_corrupted_prompts() -> None:
    tokens = torch.tensor([[1, 2, 0], [3, 4, 0], [5, 6, 7], [8, 6, 9]])
    rows = TokenizedPairs(tokens, torch.tensor([1, 1, 2, 2]), torch.tensor([[1, 2], [2, 1]] * 2))
    one, symmetric = Contrast.of(rows), Contrast.of(rows, symmetric=True)
    assert one.clean.tolist() == [[1, 2, 0], [5, 6, 7]]
    assert one.corrupted.tolist() == [[3, 4, 0], [8, 6, 9]]
    assert (one.last_positions.tolist(), one.answers.tolist()) == ([1, 2], [[1, 2], [1, 2]])
    assert one.last.tolist() == [2, 7]
    assert torch.equal(symmetric.clean, tokens)
    assert symmetric.corrupted.tolist() == tokens[[1, 0, 3, 2]].tolist()


def test_metrics_by_hand() -> None:
    clean, corrupted = torch.zeros(2, 2, 1).long()
    contrast = Contrast(clean, corrupted, torch.zeros(2).long(), torch.tensor([[0, 1], [1, 0]]))
    logits = torch.tensor([[2.0, 0.0], [2.0, 1.0]]).double()
    even = torch.zeros(2, 2).double()
    assert float(contrast.metric("logit_difference", even)(logits)) == pytest.approx(-(2 - 1) / 2)
    loss = (torch.tensor(-2.0).exp().log1p() + torch.tensor(1.0).exp().log1p()) / 2
    assert float(contrast.metric("task_loss", even)(logits)) == pytest.approx(float(loss))
    odds = logits.softmax(-1)
    kl = (0.5 * (0.5 / odds).log()).sum(-1).mean()
    other = torch.randn(2, 2, generator=torch.Generator().manual_seed(0)).double()
    expected = float(kl_divergence(other, logits).mean())
    assert float(contrast.metric("kl", other)(logits)) == pytest.approx(expected)
    assert float(contrast.metric("kl", even)(logits)) == pytest.approx(float(kl))
    assert contrast.metric("kl", even)(torch.stack([even, logits])).tolist() == pytest.approx(
        [0, float(kl)]
    )
