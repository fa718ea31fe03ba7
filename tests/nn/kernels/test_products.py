"""Products by each library against torch's own, however operands lie, and which one is taken."""

import pytest
import torch

from wirework import fastest
from wirework.errors import InputError
from wirework.nn.kernels import products
from wirework.nn.kernels.products import (
    LIBRARIES,
    available,
    dense_weight_gradient,
    gradient_library,
    library_for,
    product,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=LIBRARIES)
def library(request, monkeypatch):
    if request.param not in available():
        pytest.skip(f"no {request.param} here")
    monkeypatch.setenv("WIREWORK_PRODUCTS", request.param)
    monkeypatch.setattr(products, "_MIN_CHOSEN", 1)
    return request.param


@pytest.fixture
def taken(monkeypatch, tmp_path):
    """Collect each question and the candidates that would be measured for it."""
    asked = {}

    def choose(question, default, ways):
        asked[question] = (default, ways)
        return default

    monkeypatch.delenv("WIREWORK_PRODUCTS", raising=False)
    monkeypatch.setattr(fastest, "choose", choose)
    return asked


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


class TestProduct:
    @pytest.mark.parametrize("sizes", [(3, 400, 7), (7, 400, 3), (400, 3, 7), (0, 4, 5), (4, 0, 5)])
    def test_is_torch_s_however_operands_lie(self, library, sizes):
        rows, between, columns = sizes
        a, b, bias = drawn(rows, between), drawn(between, columns, seed=1), drawn(columns, seed=2)
        for left in (a, a.t().contiguous().t(), drawn(rows, 2 * between)[:, ::2]):
            for right in (b, b.t().contiguous().t(), drawn(2 * between, columns)[::2]):
                close(product(left, right), left @ right)
                close(product(left, right, bias), left @ right + bias)

    def test_rounding_errors_are_of_the_same_size(self, library):
        a, b = drawn(512, 512), drawn(512, 512, seed=1)
        exact = a.double() @ b.double()
        assert (product(a, b) - exact).abs().max() < 3 * (a @ b - exact).abs().max()

    def test_leaves_numpy_s_threads_as_they_were(self, monkeypatch):
        blas = products._openblas()
        if blas is None:
            pytest.skip("numpy without OpenBLAS")
        monkeypatch.setenv("WIREWORK_PRODUCTS", "numpy")
        before = blas.get_num_threads()
        blas.set_num_threads(2)
        try:
            product(drawn(256, 256), drawn(256, 256))
            assert blas.get_num_threads() == 2
        finally:
            blas.set_num_threads(before)


@pytest.mark.parametrize("shape", [(20, 17, 5), (3, 17, 5), (20, 2, 5), (340, 5), (2, 8, 17, 5)])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_weight_s_gradient_sums_over_tokens(library, shape, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, grad = drawn(*shape), drawn(*shape[:-1], 9, seed=1)
    close(dense_weight_gradient(grad, x), grad.flatten(0, -2).t() @ x.flatten(0, -2))


class TestLibrary:
    def test_small_products_are_torch_s(self, taken):
        assert library_for("nn", 64, 64, 64) == "torch"
        assert gradient_library(torch.Size((16, 16, 16)), 16) == "torch"
        assert taken == {}

    def test_each_product_of_a_layer_is_a_question_of_its_own(self, taken):
        library_for("nt", 1024, 128, 512)
        library_for("nn", 1024, 512, 128)
        gradient_library(torch.Size((16, 64, 128)), 512)
        assert len(taken) == 3

    def test_sizes_near_each_other_are_one_question(self, taken):
        for rows in (800, 1000, 1024, 1500):
            library_for("nt", rows, 128, 512)
        assert len(taken) == 1

    def test_every_candidate_makes_a_product_that_is_quick_to_time(self, taken):
        library_for("nt", 1 << 20, 256, 1024)
        gradient_library(torch.Size((4096, 256, 256)), 1024)
        for _, ways in taken.values():
            made = [way() for way in ways().values()]
            assert len(made) >= len(available())
            assert all(one.shape == made[0].shape for one in made)
            for one in made[1:]:
                torch.testing.assert_close(one, made[0], rtol=1e-3, atol=1e-2)

    def test_numpy_takes_part_on_one_thread_only(self, monkeypatch):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        assert "numpy" not in available()

    def test_the_environment_may_name_one(self, monkeypatch, taken):
        monkeypatch.setenv("WIREWORK_PRODUCTS", "torch")
        assert library_for("nn", 512, 512, 512) == "torch"
        monkeypatch.setenv("WIREWORK_PRODUCTS", "blas")
        with pytest.raises(InputError, match=r"WIREWORK_PRODUCTS must be auto, torch, .*'blas'"):
            library_for("nn", 512, 512, 512)
        assert taken == {}

    def test_measuring_does_not_touch_torch_s_random_state(self, monkeypatch, tmp_path):
        monkeypatch.delenv("WIREWORK_PRODUCTS", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(fastest, "_chosen", {})
        before = torch.get_rng_state()
        library_for("nt", 256, 128, 64)
        assert torch.equal(torch.get_rng_state(), before)
        assert fastest.remembered()
