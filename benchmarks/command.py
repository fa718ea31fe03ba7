"""The command line of the benchmarks."""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.settings import Settings

if TYPE_CHECKING:
    from benchmarks.comparison import Saved
    from benchmarks.figure import Figure
    from benchmarks.machine import Machine

EXIT_SLOWER, EXIT_INPUT = 1, 2


def main(words: Sequence[str], description: str) -> int:
    """Run the command; return its exit code."""
    from wirework.errors import InputError  # before torch: it sets how its threads wait

    try:
        if words[:1] == ["sweep"]:
            from benchmarks.sweep import main as sweep

            return sweep(words[1:])
        return _run(_arguments(words, description))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT


def _run(options: argparse.Namespace) -> int:
    """Measure, print, save and compare.

    Raises:
        InputError: an option cannot be used.
    """
    import torch

    from benchmarks import comparison, figures
    from benchmarks.machine import this_machine
    from benchmarks.timing import cpu_seconds

    if options.list:
        for name in (*figures.NAMES, *figures.EXTRA):
            print(f"{name:24} {figures.subject(name)}")
        return 0
    settings, names = _settings(options), _names(options.only)
    saved = None if options.compare is None else comparison.read(options.compare)
    torch.set_num_threads(options.threads)
    logging.getLogger("wirework").setLevel("ERROR")  # a floor above the target, on purpose
    machine = this_machine()
    print(f"{machine.line()}\n{settings.precision}; {_clock(options.threads)}", flush=True)
    measured: list[Figure] = []
    start, cpu_start = time.monotonic(), cpu_seconds()
    for name in names:
        print(f"\n{figures.subject(name)}", flush=True)
        for figure in figures.measure(name, settings):
            print(f"  {figure.line()}", flush=True)
            measured.append(figure)
    missed = [figure for figure in measured if figure.is_met is False]
    took, cpu = time.monotonic() - start, cpu_seconds() - cpu_start
    print(f"\n{took:.0f} s ({cpu:.0f} CPU s), {len(missed)} targets missed")
    if options.json is not None:
        comparison.save(options.json, machine, settings.precision, measured)
    return 0 if saved is None else _compare(machine, settings, measured, saved)


def _compare(
    machine: "Machine", settings: Settings, measured: "Sequence[Figure]", saved: "Saved"
) -> int:
    """Print what changed; return 1 if something got slower."""
    from benchmarks import comparison
    from wirework.errors import InputError

    differences = comparison.differences(machine, saved)
    if saved.precision != settings.precision:
        raise InputError(
            f"the earlier figures are in {saved.precision}, these in {settings.precision}: "
            f"use --precision {saved.precision}"
        )
    if differences:
        print(f"another machine, so ratios only ({'; '.join(differences)})")
    changes = comparison.changes(measured, saved, ratios_only=bool(differences))
    if not changes:
        raise InputError("the earlier run has none of these figures: compare runs of the same kind")
    for change in changes:
        print(change.line())
    counts = {kind: sum(one.verdict == kind for one in changes) for kind in ("slower", "faster")}
    print(f"{counts['slower']} slower, {counts['faster']} faster, of {len(changes)}")
    return EXIT_SLOWER if counts["slower"] else 0


def _settings(options: argparse.Namespace) -> Settings:
    from benchmarks.machine import bf16_instructions
    from wirework.errors import InputError

    if options.precision == "bfloat16" and not bf16_instructions():
        raise InputError("this processor has no instructions for bfloat16: use --precision float32")
    return Settings(options.quick, options.rounds, options.precision, options.model)


def _names(only: Sequence[str] | None) -> Sequence[str]:
    from benchmarks import figures
    from wirework.errors import InputError

    for name in only or ():
        if name not in (*figures.NAMES, *figures.EXTRA):
            raise InputError(f"no figure is called {name}: --list shows them all")
    return only or figures.NAMES


def _clock(threads: int) -> str:
    kind = "CPU time" if threads == 1 else "elapsed time"
    return f"medians of {kind}, in brackets the lowest and highest round"


def _arguments(words: Sequence[str], description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="figures to measure")
    parser.add_argument("--list", action="store_true", help="name the figures, measure nothing")
    parser.add_argument("--quick", action="store_true", help="small sizes: seconds for each figure")
    parser.add_argument("--rounds", type=_positive, default=3, help="of each comparison")
    parser.add_argument("--threads", type=_positive, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--model", type=Path, help="run of the demo on which circuits are searched")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all figures")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="figures of an earlier run")
    return parser.parse_args(words)


def _positive(word: str) -> int:
    """Return a number from 1."""
    if not word.isdigit() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"wanted a whole number from 1, got {word}")
    return int(word)
