"""Blocks of memory are used again for results of the same size, while nothing else uses them."""

import gc
import resource
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from wirework import block_pool
from wirework.malloc import _glibc, freed_memory_kept

LARGE = 1 << 19  # float32: 2 MB
needs_glibc = pytest.mark.skipif(_glibc() is None, reason="used with glibc alone")


@pytest.fixture
def pool():
    block_pool.open_pool()
    yield block_pool._pool
    block_pool.close_pool()


def address(shape, dtype=torch.float32) -> int:
    """Return the address of a tensor that is freed at once."""
    return block_pool.empty(shape, dtype).data_ptr()


class TestOpen:
    def test_a_freed_block_is_used_again_for_its_size(self, pool):
        first = address((LARGE,))
        assert address((4, LARGE // 4)) == first
        assert address((2 * LARGE,), torch.bfloat16) == first
        assert pool.free_bytes() == 4 * LARGE

    def test_a_view_keeps_its_block(self, pool):
        x = block_pool.empty((2, LARGE))
        x.fill_(1)
        part = x[1, 5:].numpy()
        del x
        gc.collect()
        block_pool.empty((2, LARGE)).fill_(2)
        assert (part == 1).all()
        assert pool.free_bytes() == 8 * LARGE

    def test_a_graph_keeps_its_block(self, pool):
        x = block_pool.empty((LARGE,)).fill_(3).requires_grad_()
        loss = x.square().sum()
        del x
        block_pool.empty((LARGE,)).fill_(0)
        loss.backward()
        assert loss == 9 * LARGE
        assert pool.free_bytes() == 4 * LARGE

    def test_small_results_take_no_block(self, pool):
        block_pool.empty((8,))
        assert pool.free_bytes() == 0

    def test_few_bytes_are_held_for_sizes_that_change(self, pool):
        for more in range(200):
            block_pool.empty((LARGE + more,))
        assert pool.free_bytes() <= 1.5 * 4 * (LARGE + 200)

    def test_the_size_that_was_not_used_for_longest_goes_first(self, pool):
        a, b, c = (block_pool.empty((size * LARGE,)) for size in (1, 2, 3))
        first = a.data_ptr()
        del a
        del b
        del c
        assert address((LARGE,)) == first  # the size 2 is now the oldest
        block_pool.empty((4 * LARGE,))  # 10 would be held, where 6 were in use and 9 may be held
        assert pool.free_bytes() == (1 + 3 + 4) * 4 * LARGE

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int32])
    @pytest.mark.usefixtures("pool")
    def test_shape_dtype_and_memory_are_those_of_torch(self, dtype):
        x, expected = block_pool.empty((3, LARGE), dtype), torch.empty(3, LARGE, dtype=dtype)
        assert (x.shape, x.dtype, x.stride()) == (expected.shape, expected.dtype, expected.stride())
        assert x.data_ptr() % 64 == 0
        assert block_pool.empty_like(x).shape == x.shape

    @pytest.mark.usefixtures("pool")
    def test_a_default_device_changes_nothing(self):
        with torch.device("meta"):
            assert block_pool.empty((3,)).device.type == "cpu"
            assert block_pool.empty((LARGE,)).device.type == "cpu"
        assert block_pool.empty_like(torch.empty(LARGE, device="meta")).device.type == "meta"

    def test_tensors_in_cycles_are_collected_at_any_moment(self, pool):
        before = gc.get_threshold()
        gc.set_threshold(20)
        try:
            for i in range(300):
                cycle = [block_pool.empty((LARGE // 2 + i % 7,))]
                cycle.append(cycle)
        finally:
            gc.set_threshold(*before)
        del cycle
        gc.collect()
        assert pool.free_bytes() > 0

    def test_threads_get_blocks_of_their_own(self, pool):
        def work(number: int) -> bool:
            for _ in range(50):
                x = block_pool.empty((LARGE,)).fill_(number)
                if not (x == number).all():
                    return False
            return True

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(work, range(4)))
        assert pool.free_bytes() <= 2 * 4 * 4 * LARGE  # a thread has two at a time

    def test_without_memory_the_error_is_torch_s(self, pool, monkeypatch):
        block_pool.empty((LARGE,))
        monkeypatch.setattr(block_pool, "_map", lambda _: None)
        assert block_pool.empty((2 * LARGE,)).shape == (2 * LARGE,)  # torch's own memory
        assert pool.free_bytes() == 0
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            block_pool.empty((1 << 50,))


def test_a_closed_pool_keeps_nothing():
    x = block_pool.empty((LARGE,))
    del x
    assert block_pool._pool is None


def test_blocks_in_use_when_the_pool_closes_are_not_taken_by_the_next_one(pool):
    x = block_pool.empty((LARGE,)).fill_(1)
    block_pool.close_pool()
    block_pool.open_pool()
    assert x.sum() == LARGE
    del x
    assert pool.free_bytes() == 0
    assert block_pool._pool is not None
    assert block_pool._pool.free_bytes() == 0


@needs_glibc
def test_passes_of_changing_sizes_use_no_pool():
    with freed_memory_kept(same_sizes=False):
        assert block_pool._pool is None
        with freed_memory_kept():  # the outer block decides
            assert block_pool._pool is None


@needs_glibc
def test_results_of_a_pass_need_no_new_pages():
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            block_pool.empty((16 * LARGE,)).fill_(0)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with freed_memory_kept():
        faults()
        assert faults() < 100
    assert block_pool._pool is None
