"""Triton kernels: in processes of their own, because triton reads its mode when it is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_in_the_interpreter_they_are_right():
    cases = str(HERE / "triton_interpreted.py")
    options = ("-q", "-n", "0", "-p", "no:cacheprovider")
    result = run("-m", "pytest", *options, cases, TRITON_INTERPRET="1", WIREWORK_TRITON="auto")
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


@pytest.mark.slow
def test_they_compile_for_cuda(tmp_path: Path):
    result = run(str(HERE / "triton_compiled.py"), TRITON_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2 * (2 * (3 + 1) + (1 + 2 + 2) + 3)
