"""CPU time of `import wirework` and of `wirework --help`, compared with bare Python."""

import subprocess
import sys

from benchmarks.figure import Figure
from benchmarks.settings import Settings
from benchmarks.timing import child_seconds, over

BARE = "python -c pass"
COMMANDS = {
    BARE: ["-c", "pass"],
    "import wirework": ["-c", "import wirework"],
    "wirework --help": ["-c", "from wirework.cli import main; main()", "--help"],
}
TARGETS = {"import wirework": 100.0, "wirework --help": 300.0}
"""Milliseconds."""


def measure(settings: Settings) -> list[Figure]:
    """Return milliseconds, and ratios to bare Python."""
    rounds = settings.counted_rounds if settings.quick else 3 * settings.rounds
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_ in range(rounds + 1):
        for name, words in COMMANDS.items():
            took = cpu_seconds([sys.executable, *words])
            if round_:  # the first reads files from disk
                seconds[name].append(took)
    figures = [
        Figure.of(name, [1e3 * s for s in values], unit="ms", target=TARGETS.get(name))
        for name, values in seconds.items()
    ]
    names = [name for name in COMMANDS if name != BARE]
    return figures + [
        Figure.of(f"{name} / {BARE}", over(seconds[name], seconds[BARE])) for name in names
    ]


def cpu_seconds(command: list[str]) -> float:
    """Return the CPU seconds of a command."""
    before = child_seconds()
    subprocess.run(command, check=True, capture_output=True)
    return child_seconds() - before
