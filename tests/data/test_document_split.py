import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirework.data.document_split import HASHES, split_hash, split_limit
from wirework.errors import InputError


def test_the_hash_is_the_first_eight_bytes_of_sha256():
    assert split_hash("abc") == 0xBA7816BF8F01CFEA  # FIPS 180-2, appendix B.1
    assert split_hash("é") == int.from_bytes(hashlib.sha256("é".encode()).digest()[:8], "big")


def test_a_fraction_of_many_documents_is_held_out():
    texts = [f"document {i}" for i in range(20_000)]
    limit = split_limit(texts, 0.05)
    assert limit == int(0.05 * HASHES)
    held = sum(split_hash(text) < limit for text in texts)
    assert held == pytest.approx(1000, abs=150)  # 5 standard deviations


@given(
    texts=st.lists(st.text(), min_size=2, max_size=20, unique=True),
    fraction=st.floats(0.001, 0.999),
)
def test_a_few_documents_give_both_sides_one(texts: list[str], fraction: float):
    limit = split_limit(texts, fraction)
    held = [split_hash(text) < limit for text in texts]
    assert any(held)
    assert not all(held)


def test_it_reads_no_more_than_it_needs():
    def texts():
        for i in range(10_000):
            yield f"document {i}"
        pytest.fail("read the whole corpus")

    split_limit(texts(), 0.1)


@pytest.mark.parametrize("texts", [["same"], ["same", "same"]])
def test_one_document_cannot_be_split(texts: list[str]):
    with pytest.raises(InputError, match="too small: it takes two different documents"):
        split_limit(texts, 0.5)
