"""Freed memory stays with the process for the block, and what runs after it is as before."""

import subprocess
import sys

import pytest

from wirework.training.memory import freed_memory_kept

FAULTS = """
import resource
import torch
from wirework.training.memory import freed_memory_kept

def faults():  # of 96 MB in blocks of 24
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        several = [torch.zeros(6 << 20) for _ in range(4)]
        several.clear()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
with freed_memory_kept():
    faults()
    print(faults())
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told to")
def test_pages_are_fetched_once_within_the_block_and_given_back_after_it():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    before, within, after = map(int, done.stdout.split())
    assert within < before / 5
    assert after > before / 2


def test_an_error_passes_through():
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        _ = 1 / 0
