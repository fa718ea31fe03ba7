"""Blocks of memory are used again for results of the same size, while nothing else uses them."""

import gc
import resource

import pytest
import torch

from wirework import block_pool
from wirework.malloc import _glibc, freed_memory_kept

LARGE = 1 << 19  # float32: 2 MB
needs_glibc = pytest.mark.skipif(_glibc() is None, reason="used with glibc alone")


@pytest.fixture
def pool():
    block_pool.open_pool()
    yield
    block_pool.close_pool()


def address(shape, dtype=torch.float32) -> int:
    """Return the address of a tensor that is freed at once."""
    return block_pool.empty(shape, dtype).data_ptr()


@pytest.mark.usefixtures("pool")
class TestOpen:
    def test_a_freed_block_is_used_again_for_its_size(self):
        first = address((LARGE,))
        assert address((4, LARGE // 4)) == first
        assert address((2 * LARGE,), torch.bfloat16) == first

    def test_another_size_gets_another_block(self):
        first = address((LARGE,))
        assert address((2 * LARGE,)) != first
        assert address((LARGE,)) == first

    def test_a_view_keeps_its_block(self):
        x = block_pool.empty((2, LARGE))
        x.fill_(1)
        part = x[1, 5:].numpy()
        del x
        gc.collect()
        block_pool.empty((2, LARGE)).fill_(2)
        assert (part == 1).all()

    def test_a_gradient_keeps_its_block_until_the_graph_is_gone(self):
        x = block_pool.empty((LARGE,)).fill_(3).requires_grad_()
        loss = x.square().sum()
        del x
        block_pool.empty((LARGE,)).fill_(0)
        assert loss == 9 * LARGE

    def test_small_results_take_no_block(self):
        block_pool.empty((8,))
        assert not block_pool._free

    def test_an_idle_size_is_returned_to_the_system(self, monkeypatch):
        monkeypatch.setattr(block_pool, "_MAX_IDLE", 5)
        address((LARGE,))
        for _ in range(6):
            address((2 * LARGE,))
        address((3 * LARGE,))
        assert not block_pool._free[4 * LARGE]
        assert block_pool._free[8 * LARGE]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int32])
    def test_shape_dtype_and_memory_are_those_of_torch(self, dtype):
        x, expected = block_pool.empty((3, LARGE), dtype), torch.empty(3, LARGE, dtype=dtype)
        assert (x.shape, x.dtype, x.stride()) == (expected.shape, expected.dtype, expected.stride())
        assert x.data_ptr() % 64 == 0
        assert block_pool.empty_like(x).shape == x.shape


def test_a_closed_pool_keeps_nothing():
    x = block_pool.empty((LARGE,))
    del x
    assert not block_pool._free


def test_blocks_in_use_when_the_pool_closes_are_freed_later():
    block_pool.open_pool()
    x = block_pool.empty((LARGE,)).fill_(1)
    block_pool.close_pool()
    assert x.sum() == LARGE
    del x
    assert not block_pool._free


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
    assert not block_pool._free
