"""Disks that are full: one line with the user's file, the room needed and the way on."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

WIREWORK = Path(sys.executable).with_name("wirework")


class SmallDisk:
    """A file system in memory of a size that can change."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, kilobytes: int) -> None:
        options = f"remount,size={kilobytes}k"
        subprocess.run(["mount", "-o", options, str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield SmallDisk(path)
    subprocess.run(["umount", str(path)], check=True)


def run(words: list[object], cwd: Path) -> tuple[int, list[str]]:
    """Run the command; return its exit code and its lines on standard error."""
    words = [str(WIREWORK), *map(str, words)]
    found = subprocess.run(words, capture_output=True, text=True, cwd=cwd, timeout=300)
    return found.returncode, found.stderr.splitlines()


def refusals(disk: SmallDisk, words: list[object], sizes: list[int]) -> Iterator[str]:
    """Yield what the command says on disks of these sizes, in kB, each too small."""
    for size in sizes:
        disk.resize(size)
        code, lines = run(words, disk.path.parent)
        assert code == 2, lines
        (line,) = [line for line in lines if line.startswith("wirework: ")]
        assert ".partial" not in line
        assert re.match(
            rf"wirework: cannot write {disk.path}/\S+: No space left on device "
            r"\(([\d,]+ bytes needed, )?[\d,]+ free\)\. Once there is room, the same command ",
            line,
        )
        yield line


def test_a_training_says_that_resume_goes_on_and_it_does(disk: SmallDisk, tmp_path: Path):
    (tmp_path / "notes").mkdir()
    for i in range(40):
        text = " ".join(f"word{(i * k) % 97}" for k in range(60))
        (tmp_path / "notes" / f"{i}.txt").write_text(text)
    (tmp_path / "settings.yaml").write_text(
        "{name: tiny, steps: 4, batch_size: 2, eval_batches: 1, checkpoint_every: 2, device: cpu,"
        " precision: float32, model: {n_ctx: 16, n_layer: 1, d_model: 16, d_head: 8},"
        " data: {corpus: notes, vocab_size: 300, val_fraction: 0.3, workers: 1}}"
    )
    words = ["train", "--config", "settings.yaml", "--runs"]
    assert run([*words, tmp_path / "runs"], tmp_path)[0] == 0
    places = [disk.path / "runs", "--data.cache", disk.path / "data", "--resume"]
    said = list(refusals(disk, [*words, *places], [4, 100]))
    assert all("the same command with --resume goes on" in line for line in said)
    assert f"{disk.path}/data/notes-" in said[0]
    assert "/runs/tiny/checkpoints/step-2/tensors.safetensors: No space left on device (" in said[1]
    disk.resize(100_000)
    assert run([*words, *places], tmp_path)[0] == 0
    model, other = (
        load_file(place / "tiny" / "model" / "model.safetensors")
        for place in (tmp_path / "runs", disk.path / "runs")
    )
    assert all(model[name].equal(other[name]) for name in model)
    assert [*disk.path.rglob(".*"), *disk.path.rglob("lock")] == []


def test_a_search_names_the_folder_that_it_goes_on_from(
    disk: SmallDisk, world: Path, tmp_path: Path
):
    words: list[object] = ["prune", world / "model", world / "pairs.jsonl", "--allow-unreached"]
    words += ["--corpus", world / "text", "--trials", "2", "--parallel", "1", "--steps", "1"]
    words += ["--eval-pairs", "8", "--out", disk.path / "c"]
    search = disk.path / "c.search"
    for line in refusals(disk, words, [8, 20]):
        assert line.endswith(f"the same command goes on from what was saved in {search}")
    assert list(search.glob("*/study.log"))
    disk.resize(100_000)
    assert run(words, tmp_path)[0] == 0
    assert (disk.path / "c" / "circuit.json").exists()
