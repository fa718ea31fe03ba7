"""Freed memory stays with the process for the block, and what runs after it is as before."""

import resource
import sys

import pytest
import torch

from wirework.training.memory import freed_memory_kept


def faults_of_fresh_tensors() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        several = [torch.zeros(6 << 20) for _ in range(4)]  # of 24 MB, 96 in all
        several.clear()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told to")
def test_pages_are_fetched_once_within_the_block_and_given_back_after_it():
    usual = faults_of_fresh_tensors()
    with freed_memory_kept():
        faults_of_fresh_tensors()
        assert faults_of_fresh_tensors() < usual / 5
    assert faults_of_fresh_tensors() > usual / 2


def test_an_error_passes_through():
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        _ = 1 / 0
