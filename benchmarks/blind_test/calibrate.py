"""Calibration: many circuits with and without a mechanism, and how many pass the verdict's bars.

Null circuits of even number choose the loosest bar between target and chance that lets few of
them pass; those of odd number measure it. The verdict's own bar, midway, was fixed before any of
them was made, so that all of them measure that one.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.blind_test.evidence import Record, evidence
from benchmarks.blind_test.rates import (
    SHARES,
    Rate,
    is_real,
    is_real_at,
    is_robust_at,
    loosest_share,
    rate,
)
from benchmarks.blind_test.specimens import NULLS, REAL, WIRED_NULLS, specimen
from benchmarks.blind_test.subjects import Subject, planted_subject, trained_subject
from wirework.circuits.validation.bars import LIMIT_SHARE

COUNTS = {
    "token labels": 40, "name labels": 30, "shuffled model": 30, "cancelled path": 30,
    "unused path": 30, "random circuit": 40, "luckiest random circuit": 10,
    "found": 16, "found, resampled": 8, "wired": 8,
}  # fmt: skip
"""Circuits of each kind in hand-wired models; each is of another model."""
TRAINED_COUNTS = {
    "token labels": 3, "name labels": 3, "shuffled model": 3, "random circuit": 3, "found": 3,
}  # fmt: skip
"""The same in the trained model."""


def measure(path: Path, run: Path | None) -> list[Record]:
    """Measure all circuits, or those that a file of records lacks, and add them to it."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    known = {(record["subject"], record["kind"]) for record in records}
    for subject, kind, number in _planned(run, known):
        start = time.process_time()
        made = specimen(subject, kind, number)
        record = {"subject": subject.name, "kind": kind, "number": number}
        record |= evidence(made, subject.text)
        record["cpu_seconds"] = round(time.process_time() - start, 2)
        records.append(record)
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{len(records)}: {subject.name}, {kind}: {record['levels']}", flush=True)
    return records


def _planned(run: Path | None, known: set[tuple[str, str]]) -> Iterator[tuple[Subject, str, int]]:
    """Yield subject, kind and number of the circuits that are not known, all kinds in turn."""
    kinds = (*REAL, *NULLS)
    for number in range(max(COUNTS.values())):
        for place, kind in enumerate(kinds):
            seed = 1000 * (place + 1) + number
            if number < COUNTS[kind] and (f"planted {seed}", kind) not in known:
                yield planted_subject(seed, WIRED_NULLS.get(kind, "plain")), kind, number
    if run is None:
        return
    for number in range(max(TRAINED_COUNTS.values())):
        for kind, count in TRAINED_COUNTS.items():
            if number < count and (f"trained {number}", kind) not in known:
                yield trained_subject(run, number), kind, number


def result(records: list[Record]) -> dict[str, Any]:
    """Return the calibration as JSON values: the bar, the rates, and the rates by kind."""
    nulls = [record for record in records if record["kind"] in NULLS]
    real = [record for record in records if record["kind"] in REAL]
    halves = [[record for record in nulls if record["number"] % 2 == half] for half in (0, 1)]
    loosest = loosest_share(halves[0])
    return {
        "share": LIMIT_SHARE,
        "loosest_share": loosest,
        "measuring_nulls_at_loosest_share": None
        if loosest is None
        else _entry(rate(is_real_at(record, loosest) for record in halves[1])),
        "choosing_nulls": _entry(rate(map(is_real, halves[0]))),
        "measuring_nulls": _entry(rate(map(is_real, halves[1]))),
        "all_nulls": _entry(rate(map(is_real, nulls))),
        "without_model_criterion": _entry(rate(map(_is_real_without_model, nulls))),
        "former_verdict": _entry(rate(map(_was_faithful, nulls))),
        "real": _entry(rate(map(is_real, real))),
        "former_verdict_on_real": _entry(rate(map(_was_faithful, real))),
        "by_share": {
            str(share): {
                "null": str(rate(is_real_at(record, share) for record in nulls)),
                "real": str(rate(is_real_at(record, share) for record in real)),
                "null_robust": str(rate(is_robust_at(record, share) for record in nulls)),
                "real_robust": str(rate(is_robust_at(record, share) for record in real)),
            }
            for share in SHARES
        },
        "by_kind": {kind: _of_kind(records, kind) for kind in (*REAL, *NULLS)},
        "by_criterion": _by_criterion(nulls, real),
        "cpu_seconds": round(sum(record["cpu_seconds"] for record in records)),
    }


def in_words(measured: Mapping[str, Any]) -> str:
    """Return the main figures of a calibration, a line each."""
    lines = [f"bar between target and chance: {measured['share']} (midway)"]
    for name in (
        "choosing_nulls",
        "measuring_nulls",
        "all_nulls",
        "without_model_criterion",
        "former_verdict",
    ):
        entry = measured[name]
        lines.append(
            f"{name.replace('_', ' ')}: {entry['passed']} of {entry['n']} pass, "
            f"at most {entry['highest_rate']:.2%} (95% confidence)"
        )
    real = measured["real"]
    lines.append(
        f"real: {real['passed']} of {real['n']} pass, at least {real['lowest_rate']:.1%}"
        " (95% confidence)"
    )
    lines += [f"{kind}: {entry}" for kind, entry in measured["by_kind"].items()]
    return "\n".join(lines)


def _entry(measured: Rate) -> dict[str, float]:
    return {
        "passed": measured.passed,
        "n": measured.n,
        "lowest_rate": measured.lowest,
        "highest_rate": measured.highest,
    }


def _is_real_without_model(record: Record) -> bool:
    """Return whether a circuit passes if the model need not have the behaviour."""
    necessary = record["criteria"]["without_circuit"]["met"]
    return record["levels"]["sufficient"] is True and necessary and record["n_nodes"] > 0


def _was_faithful(record: Record) -> bool:
    """Return whether the verdict of before the levels calls a circuit faithful, without controls:
    held-out loss, necessity, resampling and interchange."""
    names = ("held_out", "resampled", "interchange")
    necessary = record["criteria"]["without_circuit"]["value"] >= 0.9 * record["chance"]
    return necessary and all(record["criteria"][name]["met"] is True for name in names)


def _of_kind(records: list[Record], kind: str) -> dict[str, object]:
    """Return how many circuits of a kind are at each level, and their median size."""
    some = [record for record in records if record["kind"] == kind]
    sizes = sorted(record["n_nodes"] for record in some)
    levels = ("sufficient", "specific", "robust")
    return {
        "n": len(some),
        "median_nodes": sizes[len(sizes) // 2] if sizes else None,
        **{name: sum(record["levels"][name] is True for record in some) for name in levels},
        "sufficient_and_specific": sum(map(is_real, some)),
    }


def _by_criterion(nulls: list[Record], real: list[Record]) -> dict[str, dict[str, str]]:
    """Return by criterion how many null and how many real circuits meet it."""
    names = dict.fromkeys(name for record in nulls + real for name in record["criteria"])

    def met(some: list[Record], name: str) -> str:
        tested = [record["criteria"][name]["met"] for record in some if name in record["criteria"]]
        return str(rate(one is True for one in tested if one is not None))

    return {name: {"null": met(nulls, name), "real": met(real, name)} for name in names}
