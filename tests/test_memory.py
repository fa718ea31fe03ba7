"""Free memory, and the refusal of what cannot fit."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from wirework.errors import InputError
from wirework.memory import available_bytes, gigabytes, require_memory


def test_some_memory_is_free_and_no_more_than_all_of_it() -> None:
    total = 1024 * int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    assert 10**6 < available_bytes() <= total


def test_what_fits_passes_and_what_does_not_is_refused_with_both_numbers() -> None:
    require_memory(1000, "a list")
    with pytest.raises(InputError, match=r"^a list needs 1\.0e\+21 GB of memory, \S+ GB are avail"):
        require_memory(10**30, "a list")


def test_a_limit_of_address_space_counts() -> None:
    code = (
        "from wirework.memory import available_bytes; import resource;"
        f"resource.setrlimit(resource.RLIMIT_AS, (2**31, {resource.RLIM_INFINITY}));"
        "print(available_bytes())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 2**31


def test_sizes_beyond_any_machine_are_in_powers_of_ten() -> None:
    assert gigabytes(1_500_000_000) == "1.5 GB"
    assert gigabytes(10**13) == "10,000.0 GB"
    assert gigabytes(8 * 10**60) == "8.0e+51 GB"
