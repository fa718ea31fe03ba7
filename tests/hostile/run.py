"""Spoil files in thousands of ways, read them, and say what was not refused in one clear line.

`python tests/hostile/run.py` runs all, `--only LOADER` some, `--replay CASE` one, with its message.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

# Before anything computes: the processes are forked.
os.environ |= {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error",
}  # fmt: skip
sys.path.insert(0, str(Path(__file__).parent))

from cases import LOADERS, Case, cases_of
from pool import Pool, in_child
from worker import FINE, Outcome, good_digest

Found = list[tuple[Case, Outcome]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; 0 if every file was refused, warned of, or read as something valid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=sorted(LOADERS), help="a loader")
    parser.add_argument("--replay", metavar="CASE", help="one case, as a report names it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--all", action="store_true", help="print every case")
    chosen = parser.parse_args(arguments)
    replayed = None if chosen.replay is None else Case.of(chosen.replay)
    names = [replayed.loader] if replayed else chosen.only or list(LOADERS)
    _import_all()
    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        folder = Path(place)
        os.environ["HOSTILE_SHARED"] = str(folder / "shared")
        expected = in_child(lambda: _prepare(folder, names))
        cases = [replayed] if replayed else _cases(folder / "good", names)
        started, found = time.monotonic(), []
        pool = Pool(chosen.jobs, folder / "good", expected, folder)
        for case, outcome in pool.run(cases):
            found.append((case, outcome))
            if sys.stderr.isatty() and not len(found) % 20:
                print(f"\r{len(found)} of {len(cases)}", end="", file=sys.stderr, flush=True)
            if chosen.all or replayed:
                print(f"{case}: {outcome.kind}: {outcome.detail}", flush=True)
        print(report(found, time.monotonic() - started, _cpu_seconds()))
    return int(any(outcome.kind not in FINE for _, outcome in found))


def _import_all() -> None:
    """Import what loaders need, once for all processes."""
    import matplotlib.figure  # noqa: F401
    import optuna  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import wirework.circuits
    import wirework.interop
    import wirework.training
    import wirework.view  # noqa: F401

    if "sae" in os.environ.get("HOSTILE_WITHOUT", ""):
        return
    import sae_lens  # noqa: F401

    torch.set_num_threads(1)


def _prepare(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Make the good inputs; return their digests."""
    from own_formats import make_shared

    (folder / "shared").mkdir()
    make_shared()
    expected = {}
    for name in names:
        good = folder / "good" / name
        good.mkdir(parents=True)
        LOADERS[name].build(good)
        once, again = (good_digest(LOADERS[name], good, folder / "first") for _ in range(2))
        if once != again:
            raise AssertionError(f"{name} is not the same twice")
        expected[name] = once
    return expected


def _cases(good: Path, names: Sequence[str]) -> list[Case]:
    """Return all cases in an order that spreads slow ones."""
    cases = [case for name in names for case in cases_of(LOADERS[name], good / name)]
    Random(0).shuffle(cases)
    return cases


def _cpu_seconds() -> float:
    """Return the CPU seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(found: Found, seconds: float, cpu: float) -> str:
    """Return counts, and each kind of failure of each loader with one example."""
    kinds = Counter(outcome.kind for _, outcome in found)
    groups: dict[tuple[str, str, str], Found] = defaultdict(list)
    for case, outcome in found:
        if outcome.kind not in FINE:
            what = outcome.group or case.mutation
            groups[case.loader, outcome.kind, what].append((case, outcome))
    lines = []
    for (loader, kind, what), some in sorted(groups.items()):
        case, outcome = min(some, key=lambda one: str(one[0]))
        lines += [
            f"{loader}: {kind}: {what} ({len(some)})",
            f"    {outcome.detail}",
            f"    --replay '{case}'",
        ]
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    failed = sum(len(some) for some in groups.values())
    lines.append(f"{len(found)} cases in {seconds:.0f} s ({cpu:.0f} of CPU): {counts}")
    lines.append(f"{failed} failures of {len(groups)} kinds" if failed else "no failures")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
