from itertools import pairwise

import torch

from wirework.circuits import training_windows
from wirework.circuits.masking.training_text import disjoint_windows


def test_windows_are_spread_over_the_corpus(corpus) -> None:
    first, second = training_windows(corpus, 20, 2)
    assert first.shape == second.shape == (16, 20)
    assert torch.equal(first[0], corpus.ids[:20])
    assert torch.equal(second[-1], corpus.ids[-20:])
    (whole,) = training_windows(corpus, corpus.n_tokens + 1, 1)
    assert whole.tolist() == [corpus.ids.tolist()] * 16


def test_two_samples_share_no_token_and_are_half_of_a_short_text_each(corpus) -> None:
    first, second = disjoint_windows(corpus, 20, 6)
    assert (len(first), len(second)) == (6, 6)
    starts = sorted([*first, *second])
    assert all(later - start >= 20 for start, later in pairwise(starts))
    assert (starts[0], starts[-1]) == (0, corpus.n_tokens - 20)
    assert first == starts[0::2]
    most, rest = disjoint_windows(corpus, 20, 10**9)
    assert 20 * (len(most) + len(rest)) > corpus.n_tokens - 20
    assert all(later - start >= 20 for start, later in pairwise(sorted([*most, *rest])))
    assert disjoint_windows(corpus, corpus.n_tokens, 3) == ([0], [])
