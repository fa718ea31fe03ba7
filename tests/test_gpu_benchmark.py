"""`benchmarks.gpu` runs without a GPU too, so that a machine with one has only to start it.

Its checks are the tests of kernels on a GPU: `pytest -m gpu` runs them too.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_checks import CHECKS

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_without_a_gpu_it_says_so_in_one_line():
    result = run()
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "no CUDA GPU" in result.stderr


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CHECKS)
def test_every_kernel_passes_its_check(name: str, device: str):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    CHECKS[name](device)


@pytest.mark.slow
def test_everything_runs_small_on_the_cpu():
    result = run("--device", "cpu", "--quick")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("    ok  ") >= 9
    for part in ("small run", "training steps", "AbsTopK", "sparse product", "compiled block"):
        assert f"\n{part}" in result.stdout
    assert "| 64x1x32x2 | weight-sparse |" in result.stdout
    assert "0 failed" in result.stdout


@pytest.mark.slow
def test_a_failed_check_is_the_exit_code(tmp_path: Path):
    script = tmp_path / "run.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from benchmarks import gpu\n"
        "def fail(device): raise AssertionError('off by 1')\n"
        "gpu.CHECKS.clear(); gpu.CHECKS['loss'] = fail\n"
        "sys.argv[1:] = ['--device', 'cpu', '--quick', '--minutes', '0']\n"
        "sys.exit(gpu.main())\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    assert "FAILED  loss" in result.stdout
    assert "training steps: left out, 0 minutes are over" in result.stdout
    assert "off by 1" in result.stderr
