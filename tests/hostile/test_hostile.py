"""Files from a stranger: each is refused in one line, warned of, or read as something valid."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

_RUN = Path(__file__).parent / "run.py"


@pytest.mark.slow
def test_no_spoiled_file_ends_in_a_traceback_a_hang_or_silence() -> None:
    """In a process of its own, since it forks workers that may be killed."""
    ended = subprocess.run([sys.executable, str(_RUN)], capture_output=True, text=True)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    counted = re.search(r"^(\d+) cases", ended.stdout, re.MULTILINE)
    assert counted is not None
    assert int(counted[1]) >= 2000
