"""`make install` on a machine without a network: pip is a script."""

import os
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"


def install(folder: Path, pip: str) -> subprocess.CompletedProcess[str]:
    text = MAKEFILE.read_text()
    assert "sleep 20" in text
    (folder / "Makefile").write_text(text.replace("sleep 20", "sleep 0.05"))
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{pip}\n")
    python.chmod(0o755)
    # Read to its end: a process that is left behind would hold the pipe open.
    return subprocess.run(
        ["make", "install"], cwd=folder, capture_output=True, text=True, env=dict(os.environ)
    )


def test_it_says_that_it_is_at_work(tmp_path: Path):
    done = install(tmp_path, "echo got $*; sleep 1")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "got -m pip install -c constraints.txt torch" in said
    assert "got -m pip install -c constraints.txt -e ." in said
    assert sum(line.startswith("installing, ") for line in said) >= 2
    assert (tmp_path / ".venv" / ".installed").exists()


@pytest.mark.parametrize("code", [1, 3])
def test_a_failure_of_pip_is_one(tmp_path: Path, code: int):
    done = install(tmp_path, f"exit {code}")
    assert done.returncode != 0
    assert not (tmp_path / ".venv" / ".installed").exists()
