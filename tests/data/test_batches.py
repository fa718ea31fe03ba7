from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wirework.data import Batches, ShardWriter, Tokens, eval_batches
from wirework.data.batches import ROUNDS, permute
from wirework.errors import InputError


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory):
    """Return splits whose token number i is i, so that a batch shows where it was read."""
    base = tmp_path_factory.mktemp("counting")

    def make(n_tokens: int) -> Tokens:
        folder = base / str(n_tokens) / "val"
        if not folder.exists():
            writer = ShardWriter(folder, "uint16", 37)
            writer.append(np.arange(n_tokens, dtype=np.uint16))
            writer.finish(1)
        return Tokens(folder)

    return make


class TestPermute:
    @settings(max_examples=100)
    @given(size=st.integers(1, 600), seed=st.integers(0, 2**32))
    def test_permute_visits_each_place_once(self, size: int, seed: int):
        keys = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64)
        out = permute(np.arange(size, dtype=np.uint64), size, keys)
        assert sorted(out.tolist()) == list(range(size))

    def test_permute_is_spread_evenly(self):
        """Over many keys each place of 5 goes to each other about equally often (chi-squared)."""
        counts = np.zeros((5, 5))
        for seed in range(2000):
            keys = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64)
            counts[np.arange(5), permute(np.arange(5, dtype=np.uint64), 5, keys).astype(int)] += 1
        assert ((counts - 400) ** 2 / 400).sum() < 60  # 16 degrees of freedom: 60 has p < 1e-6

    def test_permute_reaches_large_corpora(self):
        size = 3 * 10**12
        keys = np.random.SeedSequence(1).generate_state(ROUNDS, np.uint64)
        out = permute(np.arange(1000, dtype=np.uint64), size, keys)
        assert len(set(out.tolist())) == 1000
        assert int(out.max()) < size
        assert 0.4 < float(out.mean()) / size < 0.6


class TestBatches:
    @settings(deadline=None, max_examples=60)
    @given(
        n_tokens=st.integers(2, 300),
        n_ctx=st.integers(1, 40),
        seed=st.integers(0, 5),
        epoch=st.integers(0, 3),
    )
    def test_an_epoch_visits_every_window_once(self, counting, n_tokens, n_ctx, seed, epoch):
        if n_tokens <= n_ctx:
            return
        batches = Batches(counting(n_tokens), n_ctx, 1, seed)
        first = epoch * batches.n_windows
        starts = sorted(batches.starts(first, batches.n_windows))
        assert [start - starts[0] for start in starts] == (
            [n_ctx * i for i in range(batches.n_windows)]
        )
        assert starts[0] >= 0
        assert starts[-1] + n_ctx + 1 <= n_tokens
        # No more than one window and the random offset is left unread.
        assert batches.n_windows * n_ctx > n_tokens - 1 - 2 * n_ctx

    @settings(deadline=None, max_examples=40)
    @given(step=st.integers(0, 10**6), batch_size=st.integers(1, 9), world=st.integers(1, 4))
    def test_a_batch_is_a_pure_function_and_targets_are_one_later(
        self, counting, step, batch_size, world
    ):
        tokens = counting(300)
        for rank in range(world):
            inputs, targets = Batches(tokens, 8, batch_size, seed=3).at(step, rank, world)
            again, _ = Batches(tokens, 8, batch_size, seed=3).at(step, rank, world)
            assert inputs.shape == targets.shape == (batch_size, 8)
            assert inputs.dtype == targets.dtype == np.int64
            assert np.array_equal(inputs, again)
            assert np.array_equal(targets, inputs + 1)  # the tokens count up

    def test_ranks_share_no_window_and_together_are_one_bigger_batch(self, counting):
        batches = Batches(counting(300), 4, 5, seed=0)
        apart = [batches.at(2, rank, 3)[0] for rank in range(3)]
        together, _ = Batches(counting(300), 4, 15, seed=0).at(2)
        assert np.array_equal(np.concatenate(apart), together)
        assert len(set(together[:, 0].tolist())) == 15

    def test_epochs_and_seeds_differ_in_order_and_offset(self, counting):
        batches = Batches(counting(300), 8, 1, seed=0)
        epochs = [batches.starts(e * batches.n_windows, batches.n_windows) for e in range(8)]
        assert len({tuple(epoch) for epoch in epochs}) == 8
        assert len({min(epoch) for epoch in epochs}) > 3
        other = Batches(counting(300), 8, 1, seed=1)
        assert other.starts(0, other.n_windows) != epochs[0]

    def test_the_order_does_not_depend_on_blocks(self, counting, monkeypatch):
        n_windows = Batches(counting(300), 8, 1, seed=3).n_windows
        expected = Batches(counting(300), 8, 1, seed=3).starts(0, 3 * n_windows)
        monkeypatch.setattr("wirework.data.batches._BLOCK", 5)
        batches = Batches(counting(300), 8, 1, seed=3)
        for first in (2 * n_windows, 4, 0, n_windows - 2, 7):
            assert batches.starts(first, 9) == expected[first : first + 9]
        assert batches.starts(0, 3 * n_windows) == expected

    def test_the_order_never_changes(self, counting):
        """Golden numbers: another order would break resuming runs of an earlier version."""
        assert Batches(counting(300), 8, 1, seed=7).starts(0, 6) == [228, 124, 28, 276, 172, 244]

    def test_reading_across_shards(self, tmp_path: Path):
        writer = ShardWriter(tmp_path / "train", "uint32", 3)
        writer.append(np.arange(70_000, 70_020, dtype=np.uint32))
        writer.finish(1)
        inputs, targets = Batches(Tokens(tmp_path / "train"), 7, 2, seed=0).at(0)
        assert np.array_equal(targets, inputs + 1)
        assert inputs.min() >= 70_000


class TestEvalBatches:
    def test_eval_batches_are_fixed_spread_and_without_repetition(self, counting):
        batches = eval_batches(counting(300), n_ctx=10, batch_size=4, n=3)
        starts = [int(row[0]) for inputs, _ in batches for row in inputs]
        # 29 windows, 12 wanted: floor(i * 29 / 12) * 10
        assert starts == [0, 20, 40, 70, 90, 120, 140, 160, 190, 210, 240, 260]
        assert all(np.array_equal(targets, inputs + 1) for inputs, targets in batches)

    def test_eval_batches_of_a_short_split(self, counting):
        assert [len(inputs) for inputs, _ in eval_batches(counting(100), 10, 4, 5)] == [4, 4]
        assert [len(inputs) for inputs, _ in eval_batches(counting(31), 10, 4, 5)] == [3]


class TestContextLength:
    def test_a_context_is_no_longer_than_the_split(self, counting, capsys):
        for n_ctx in (99, 100, 256):
            inputs, targets = Batches(counting(100), n_ctx, 2, seed=0).at(5)
            assert inputs.tolist() == [list(range(99))] * 2
            assert np.array_equal(targets, inputs + 1)
            ((inputs, targets),) = eval_batches(counting(100), n_ctx, 2, 3)
            assert inputs.tolist() == [list(range(99))]
            assert np.array_equal(targets, inputs + 1)
        said = "val has 100 tokens, too few for a context of 256: contexts of 99 tokens are read\n"
        assert capsys.readouterr().err.count(said) == 1

    def test_a_context_beyond_a_split_of_thousands_is_refused(self, counting):
        message = (
            r"context of 10000 tokens needs more than the 9000 tokens of val: lower model\.n_ctx"
        )
        with pytest.raises(InputError, match=message):
            Batches(counting(9000), 10_000, 1, seed=0)
        with pytest.raises(InputError, match=message):
            eval_batches(counting(9000), 10_000, 1, 1)

    def test_one_token_is_no_context(self, counting):
        with pytest.raises(InputError, match="val has 1 token: a context takes two or more"):
            Batches(counting(1), 8, 1, seed=0)
        with pytest.raises(InputError, match="val has 1 token"):
            eval_batches(counting(1), 8, 1, 1)
        assert Batches(counting(2), 8, 1, seed=0).at(3)[0].tolist() == [[0]]
