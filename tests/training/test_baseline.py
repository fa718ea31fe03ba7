import math
from collections import Counter

import numpy as np
import pytest

from wirework.data import ShardWriter, Tokens
from wirework.errors import InputError
from wirework.training.baseline import bigram_loss, bigram_table, count_pairs, table_loss


def tokens(folder, ids) -> Tokens:
    writer = ShardWriter(folder, "uint16", shard_tokens=50)
    writer.append(np.asarray(ids, np.uint16))
    writer.finish(n_documents=1)
    return Tokens(folder)


def test_pairs_are_counted_across_shards_and_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("wirework.training.baseline._PIECE", 7)
    ids = np.random.default_rng(0).integers(0, 5, 200)
    counts = count_pairs(tokens(tmp_path / "train", ids), 0, 200, 5)
    expected = Counter(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))
    assert {(i, j): int(counts[i, j]) for i, j in expected} == dict(expected)
    assert counts.sum() == 199


def test_table_loss_by_hand():
    counts = np.array([[1, 3], [0, 0]])  # single: 1 and 3 of 4; backed off: 2/6 and 4/6
    loss = table_loss(counts, 2.0, np.array([0, 1]), np.array([1, 0]))
    first, second = (3 + 2 * 4 / 6) / (4 + 2), 2 / 6
    assert loss == pytest.approx(-(math.log(first) + math.log(second)) / 2)


def test_probabilities_sum_to_one():
    counts = np.random.default_rng(1).integers(0, 9, (6, 6))
    for alpha in (0.1, 10.0):
        losses = [table_loss(counts, alpha, np.array([2]), np.array([j])) for j in range(6)]
        assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1.0)


def test_a_chain_is_learnt_to_its_entropy(tmp_path):
    # From i to i + 1 or i + 2 (of 10) with equal chance: ln 2 nats.
    generator = np.random.default_rng(2)
    ids = np.cumsum(generator.integers(1, 3, 40_000)) % 10
    held_out = np.cumsum(generator.integers(1, 3, 4_001)) % 10
    val = [(held_out[:-1].reshape(4, -1), held_out[1:].reshape(4, -1))]
    loss = bigram_loss(tokens(tmp_path / "train", ids), val, 10)
    assert loss == pytest.approx(math.log(2), abs=0.005)


def test_the_table_holds_the_log_probabilities_that_the_loss_uses(tmp_path):
    generator = np.random.default_rng(3)
    train = tokens(tmp_path / "train", generator.integers(0, 6, 300))
    current, following = generator.integers(0, 6, (2, 50))
    table = bigram_table(train, 6)
    assert np.exp(table).sum(1) == pytest.approx(1.0)
    loss = bigram_loss(train, [(current, following)], 6)
    assert -table[current, following].mean() == pytest.approx(loss, rel=1e-5)


def test_an_unseen_token_costs_a_finite_amount(tmp_path):
    val = [(np.array([[0]]), np.array([[9]]))]
    assert math.isfinite(bigram_loss(tokens(tmp_path / "train", [0, 1] * 20), val, 10))


def test_what_cannot_be_counted_is_refused(tmp_path):
    train = tokens(tmp_path / "train", [1, 2, 3])
    val = [(np.array([[1]]), np.array([[2]]))]
    with pytest.raises(InputError, match="20000 tokens is too large"):
        bigram_loss(train, val, 20_000)
    with pytest.raises(InputError, match="at least one batch"):
        bigram_loss(train, [], 10)
    with pytest.raises(InputError, match="got 1"):
        bigram_loss(tokens(tmp_path / "short", [1]), val, 10)
