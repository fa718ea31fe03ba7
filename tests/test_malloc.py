"""Freed memory stays with the process for the block, and what runs after it is as before."""

import mmap
import os
import subprocess
import sys

import pytest

from wirework.malloc import _glibc, freed_memory_kept

FAULTS = """
import resource
import torch
from wirework.malloc import freed_memory_kept

def faults():  # of 96 MB in blocks of 24, several times
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        several = [torch.zeros(6 << 20) for _ in range(4)]
        several.clear()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
with freed_memory_kept():
    for _ in range(4):  # until every block has had pages at its place in the heap
        faults()
    print(faults())
print(faults())
"""


def faults(**settings: str) -> list[int]:
    """Return page faults before the block, within it and after it."""
    others = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True,
        env=others | settings,
    )  # fmt: skip
    return [int(count) for count in done.stdout.split()]


@pytest.mark.skipif(_glibc() is None, reason="glibc alone is told to")
def test_pages_are_fetched_once_within_the_block_and_given_back_after_it():
    _, within, after = faults()  # before it malloc may happen to keep them, by what lies above
    assert within < 1000
    assert after > (96 << 20) / mmap.PAGESIZE / 2


@pytest.mark.slow
@pytest.mark.skipif(_glibc() is None, reason="glibc alone is told to")
def test_settings_of_the_environment_stand():
    before, within, _ = faults(MALLOC_MMAP_THRESHOLD_="131072")
    assert within > before / 2


def test_an_error_passes_through():
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        _ = 1 / 0


@pytest.mark.skipif(_glibc() is None, reason="glibc alone is told to")
def test_the_outermost_block_decides(monkeypatch):
    thresholds = []
    monkeypatch.setattr("wirework.malloc._set", lambda _, options: thresholds.append(options))
    with freed_memory_kept():
        with freed_memory_kept():
            assert len(thresholds) == 1
        assert len(thresholds) == 1
    assert len(thresholds) == 2
