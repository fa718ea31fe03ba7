"""Write the files of this folder anew, with the version of wirework that is installed.

Run it only on purpose: the files stand for what an earlier version wrote, and `test_golden.py` says
whether today's code reads them and finds the same numbers. Its one argument says that it is meant:

    OMP_NUM_THREADS=1 python tests/golden/make.py --replace-golden-files

The commands are those of `commands.yaml`, the settings those of `settings/`; what a command prints
with `--json` goes to `printed/`. `versions.json` says what wrote the files.
"""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import numpy
import torch
import yaml

import wirework as ww
from wirework import fastest
from wirework.tasks.practice import quote_practice_texts

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "circuits"))

from hand_wired import quote_closer  # noqa: E402

INPUTS = {"make.py", "commands.yaml", "settings"}
UNUSED = ("**/*.png", "**/lock", "runs/training/[!m]*", "runs/training/model", "finders_table",
          "self_ablation/runs")  # fmt: skip
"""What no test reads: pictures, locks, and what would only be large."""


def write_inputs() -> None:
    """Write text, a hand-wired model that closes quotes, and pairs of short prompts."""
    texts = islice(quote_practice_texts(), 160)
    write_lines(Path("text.jsonl"), [{"text": text} for text in texts])
    quote_closer.plant().model.save("model")
    pairs = sorted(ww.task("single_double_quote").pairs, key=lambda pair: len(pair.prompts[0]))
    write_lines(
        Path("quotes.jsonl"),
        [{"prompts": pair.prompts, "answers": pair.answers} for pair in pairs[:48]],
    )


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    """Write a JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(name: str, line: str) -> None:
    """Run a command in this folder and keep what it prints as JSON."""
    print(line, flush=True)
    command = [sys.executable, "-m", "wirework", *shlex.split(line)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "--json" in line:
        Path("printed", f"{name}.json").write_text(printed.splitlines()[-1] + "\n")


def write_versions() -> None:
    """Write what made the files; numbers are compared more closely on the same machine."""
    versions = {
        "wirework": ww.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "machine": fastest.machine(torch.get_num_threads()),
    }
    Path("versions.json").write_text(json.dumps(versions, indent=1) + "\n")


def thin_out(path: Path) -> None:
    """Keep only the attacks of one insertion, as all of them are 80 KB."""
    attack = json.loads(path.read_text())
    attack["points"] = [point for point in attack["points"] if point["strength"] == 1][:4]
    path.write_text(json.dumps(attack) + "\n")


def drop_other_text() -> None:
    """Remove the prepared text of the hand-wired model, which is prepared again when needed."""
    own = json.loads(Path("runs/run/data.json").read_text())["relative"]
    for folder in Path("data").iterdir():
        if folder.name != Path(own).name:
            shutil.rmtree(folder)


def main() -> None:
    """Write everything, in a temporary folder first: files hold the place where they were made."""
    if sys.argv[1:] != ["--replace-golden-files"]:
        sys.exit(__doc__)
    os.environ["WIREWORK_PRODUCTS"] = "torch"
    torch.set_num_threads(1)
    place = Path(tempfile.gettempdir(), "wirework-golden")
    place.mkdir()
    shutil.copytree(HERE / "settings", place / "settings")
    os.chdir(place)
    Path("printed").mkdir()
    write_inputs()
    write_versions()
    for name, line in yaml.safe_load((HERE / "commands.yaml").read_text()).items():
        run(name, line)
    for pattern in UNUSED:
        for path in place.glob(pattern):
            remove(path)
    thin_out(Path("attack/attack.json"))
    drop_other_text()
    for path in HERE.iterdir():
        if path.name not in INPUTS:
            remove(path)
    shutil.copytree(place, HERE, dirs_exist_ok=True)
    shutil.rmtree(place)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


if __name__ == "__main__":
    main()
