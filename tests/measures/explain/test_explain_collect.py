"""One pass for all neurons: what is kept is what sorting everything would give."""

import pytest
import torch
from planted_neurons import CONSTANT, PAIR_NEURON, SITE

from wirework.config import ModelConfig
from wirework.data import Prepared
from wirework.errors import InputError
from wirework.measures.explain import collect
from wirework.measures.explain.collect import RankedExcerpts, distinct_starts, stream
from wirework.measures.explain.record import Neuron
from wirework.model import Model
from wirework.nn import Transformer

LENGTH = 16
NEURONS = [Neuron(SITE, i) for i in (0, 1, 4)]


def run(model: Model, text: Prepared, **more):
    starts = distinct_starts(text.val, LENGTH, 60, set())
    settings = {"n_top": 4, "n_random": 5, "seed": 0} | more
    return stream(model.transformer, NEURONS, text.val, starts, LENGTH, **settings)


@torch.no_grad()
def test_the_top_excerpts_are_those_that_sorting_gives(model: Model, text: Prepared) -> None:
    found = run(model, text)
    assert len(found.starts) == 60
    rows = torch.stack(
        [torch.tensor(text.val.slice(s, LENGTH).astype("int64")) for s in found.starts]
    )
    _, values = model.run_with_cache(rows, [SITE])
    for i, neuron in enumerate(NEURONS):
        acts = values[SITE][..., neuron.index]  # (60, T)
        order = sorted(range(60), key=lambda j: (-float(acts[j].max()), j))
        assert [one.start for one in found.top[i]] == [found.starts[j] for j in order[:4]]
        assert found.mean[i] == pytest.approx(float(acts.mean()), rel=1e-5)
        assert found.live_fraction[i] == pytest.approx(float((acts > 0).float().mean()))


def test_random_excerpts_are_others_and_drawn_for_each_neuron(model: Model, text: Prepared) -> None:
    found, again, other = run(model, text), run(model, text), run(model, text, seed=1)
    starts = [[one.start for one in part] for part in found.random]
    assert [len(set(part)) for part in starts] == [5, 5, 5]
    for part, top in zip(starts, found.top, strict=True):
        assert not set(part) & {one.start for one in top}
    assert starts[0] != starts[1]
    assert found == again
    assert starts != [[one.start for one in part] for part in other.random]


def test_small_batches_keep_the_same_top(model: Model, text: Prepared, monkeypatch) -> None:
    whole = run(model, text)
    monkeypatch.setattr(collect, "_VALUES", 7 * LENGTH * len(NEURONS))
    assert [[e.start for e in part] for part in run(model, text).top] == [
        [e.start for e in part] for part in whole.top
    ]


def test_of_equal_excerpts_the_first_stay() -> None:
    kept = RankedExcerpts(2, 1, 1)
    for first in (0, 2):
        kept.update(torch.ones(2, 1), torch.tensor([first, first + 1]), torch.ones(2, 1, 1))
    assert kept.start.tolist() == [[0], [1]]


@pytest.mark.parametrize(
    "sites", [["0.mlp.post_act"], ["1.resid_out", "0.attn.q"], ["final_resid"]]
)
@torch.no_grad()
def test_blocks_behind_the_sites_change_nothing(sites: list[str]) -> None:
    config = ModelConfig(vocab_size=50, n_ctx=8, n_layer=3, d_model=16, d_head=8)
    transformer = Transformer(config)
    tokens = torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(0))
    neurons = [Neuron(site, i) for i in (3, 1) for site in sites]
    found = collect.activations(transformer, neurons, tokens)
    _, values = transformer.record(tokens, sites)
    for i, neuron in enumerate(neurons):
        assert torch.equal(found[..., i], values[neuron.site][..., neuron.index])
    assert len(transformer.blocks) == 3


@torch.no_grad()
def test_a_negated_neuron_has_the_opposite_sign(model: Model) -> None:
    tokens = torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(0))
    neurons = [Neuron(SITE, CONSTANT), Neuron(SITE, CONSTANT, negated=True)]
    found = collect.activations(model.transformer, neurons, tokens)
    assert found[..., 0].any()
    assert torch.equal(found[..., 1], -found[..., 0])


def test_text_that_repeats_is_taken_once(model: Model, text: Prepared) -> None:
    seen: set[tuple[int, ...]] = set()
    first = distinct_starts(text.val, LENGTH, 1000, seen)
    assert first == [i * LENGTH for i in range(text.val.n_tokens // LENGTH)]
    assert distinct_starts(text.val, LENGTH, 1000, seen) == []
    spread = distinct_starts(text.val, LENGTH, 3, set())
    n = text.val.n_tokens // LENGTH
    assert spread == [0, n // 3 * LENGTH, 2 * n // 3 * LENGTH]
    with pytest.raises(InputError, match="excerpts of 2000 tokens need more text than the"):
        distinct_starts(text.val, 2000, 3, set())


def test_a_pair_neuron_is_one(model: Model, text: Prepared) -> None:
    assert NEURONS[1].index == PAIR_NEURON
    for excerpt in run(model, text).top[1]:
        for i, value in enumerate(excerpt.activations):
            assert (value > 0) == (excerpt.tokens[max(i - 1, 0) : i + 1] == (320, 330))
