"""Trials of learned pruning a minute, and seconds of a search with default settings and of checks.

The checks are the whole `validate` of the demo's circuit, which repeats the demo's search on
controls. One round each: they take minutes.
"""

from benchmarks import stored
from benchmarks.figure import Figure
from benchmarks.search_subject import Subject, subject
from benchmarks.settings import Settings
from benchmarks.timing import clock
from wirework.circuits import NodeCircuit, prune, validate
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pruning.prune import PruningRun

TRIALS_TARGET, SECONDS_TARGET = 4.0, 3.0
"""How many times faster than the stored version."""


def measure(settings: Settings) -> list[Figure]:
    """Return the figures, and how many times faster they are than stored ones."""
    of = subject(settings)
    note = f"fingerprint {of.model.fingerprint[:12]}" if of.data is None else "planted circuit"
    baseline = AblationBaseline.of(of.model, of.data, of.default)  # measures the means
    trials, pruning, _ = searched(of, baseline)
    circuit = prune(of.model, of.task, of.demo, data=of.data, progress=False)
    per_minute = Figure.of(
        f"trials a minute, {of.name}", [60 * of.default.trials / trials], unit="1/min",
        better="higher", note=note,
    )  # fmt: skip
    whole = [
        Figure.of(f"prune, {of.name}, default settings", [pruning], unit="s", note=note),
        Figure.of(f"validate, {of.name}", [validated(of, circuit)], unit="s", note=note),
    ]
    return [
        per_minute,
        *whole,
        *stored.times_as_fast([per_minute], TRIALS_TARGET),
        *stored.times_as_fast(whole, SECONDS_TARGET),
    ]


def searched(of: Subject, baseline: AblationBaseline) -> tuple[float, float, NodeCircuit]:
    """Return the seconds of the trials, of the whole search, and its circuit."""
    now = clock()
    start = now()
    run = PruningRun.of(of.model, of.task, of.default, baseline)
    best = run.trial_selection.best(None, lambda _: None)
    trials = now() - start
    best += [run.trial_selection.by_score(method) for method in of.default.extra_rankings]
    circuit = run.circuit_from(best)
    return trials, now() - start, circuit


def validated(of: Subject, circuit: NodeCircuit) -> float:
    """Return the seconds of all checks and controls of a circuit."""
    now = clock()
    start = now()
    validate(circuit, of.model, of.task, data=of.data, progress=False)
    return now() - start
