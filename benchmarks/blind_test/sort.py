"""Blind test: `validate` sorts circuits into real and null without being told which is which.

1. Circuits of both kinds are made in a random order and named by number only.
2. `validate` makes a short report. A circuit that is not sufficient, or fails a criterion of
   *specific*, is sorted as null. The others get the searched controls (`verdict_only`) and are
   sorted as real if they are sufficient and specific.
3. Only then the answers are compared with the truth.

Models of real circuits have no latent labels: where a search finds a circuit for labels without
meaning that is as small, the control of random labels turns down every circuit, by design.
"""

import json
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.blind_test.specimens import REAL, WIRED_NULLS, Specimen, specimen
from benchmarks.blind_test.subjects import Subject, planted_subject, trained_subject
from wirework.circuits import validate
from wirework.circuits.validation.validation_report import ValidationReport
from wirework.tasks import Task

SEED = 22
PLANTED = {
    "found": 10, "found, resampled": 4, "wired": 2,
    "token labels": 4, "name labels": 2, "shuffled model": 3, "cancelled path": 2,
    "unused path": 2, "random circuit": 2, "luckiest random circuit": 1,
}  # fmt: skip
TRAINED = {
    "found": 4,
    "token labels": 1, "name labels": 1, "shuffled model": 1, "luckiest random circuit": 1,
}  # fmt: skip
"""Those found under resample ablation are left out: their controls take minutes each."""


class Case(NamedTuple):
    """What the circuit with one number is made of; not shown to `validate`."""

    kind: str
    seed: int
    is_trained: bool


def cases(with_trained: bool) -> list[Case]:
    """Return 40 cases in a random order; without a trained model the others are 32."""
    planned = [
        Case(kind, 300_000 + 1000 * place + number, False)
        for place, (kind, count) in enumerate(PLANTED.items())
        for number in range(count)
    ]
    if with_trained:
        trained = [kind for kind, count in TRAINED.items() for _ in range(count)]
        planned += [Case(kind, 300 + number, True) for number, kind in enumerate(trained)]
    random.Random(SEED).shuffle(planned)
    return planned


def sort(out: Path, run: Path | None) -> dict[str, Any]:
    """Sort all cases and compare with the truth. Answers are kept in `answers.jsonl`."""
    path, planned = out / "answers.jsonl", cases(run is not None)
    lines = path.read_text().splitlines() if path.exists() else []
    answers = {answer["case"]: answer for answer in map(json.loads, lines)}
    for number in sorted(set(range(len(planned))) - set(answers)):
        start = time.process_time()
        subject = _subject(planned[number], run)
        made = specimen(subject, planned[number].kind, number)
        made_in = time.process_time() - start
        answer = {"case": number, **_sorted(_unlabelled(made, number), subject.text)}
        total = time.process_time() - start
        answer |= {"making_cpu_s": round(made_in, 1), "sorting_cpu_s": round(total - made_in, 1)}
        answers[number] = answer
        with path.open("a") as file:
            file.write(json.dumps(answer) + "\n")
        print(f"case {number}: {'real' if answer['is_real'] else 'null'}", flush=True)
    return _scored(planned, [answers[number] for number in range(len(planned))])


def _subject(case: Case, run: Path | None) -> Subject:
    if case.is_trained:
        assert run is not None
        return trained_subject(run, case.seed)
    variant = WIRED_NULLS.get(case.kind, "plain")
    return planted_subject(case.seed, variant, latent_labels=case.kind == "token labels")


def _unlabelled(made: Specimen, number: int) -> Specimen:
    """Return a specimen whose task is named by number."""
    task = made.task
    pairs = Task(f"case {number}", task.pairs, generated=True, seed=task.seed)
    return made._replace(task=pairs)


def _sorted(made: Specimen, text: Any) -> dict[str, Any]:
    """Let `validate` say whether a circuit is real."""
    circuit, model, task = made
    report = validate(circuit, model, task, data=text, short=True, progress=False)
    levels = report.to_dict()["verdict"]["levels"]
    is_searched = levels["sufficient"]["met"] is True and levels["specific"]["met"] is not False
    if is_searched:
        report = validate(circuit, model, task, data=text, verdict_only=True, progress=False)
    return {"is_real": _is_real(report), "controls_searched": is_searched, **_in_short(report)}


def _is_real(report: ValidationReport) -> bool:
    levels = report.verdict.levels
    assert levels is not None
    return levels.sufficient.met is True and levels.specific.met is True


def _in_short(report: ValidationReport) -> dict[str, Any]:
    levels = report.to_dict()["verdict"]["levels"]
    return {
        "n_nodes": report.n_nodes,
        "levels": {name: level["met"] for name, level in levels.items()},
        "held_out": report.held_out.circuit,
        "failed": [
            criterion["words"]
            for level in levels.values()
            for criterion in level["criteria"]
            if criterion["met"] is False
        ],
    }


def _scored(planned: list[Case], answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare the answers with the truth."""
    rows = [
        {
            "case": answer["case"],
            "kind": case.kind,
            "model": "trained" if case.is_trained else "hand-wired",
            "truth": "real" if case.kind in REAL else "null",
            **answer,
        }
        for case, answer in zip(planned, answers, strict=True)
    ]
    right = [(row["truth"] == "real") == row["is_real"] for row in rows]
    return {
        "right": sum(right),
        "n": len(rows),
        "misses": [row["case"] for row, ok in zip(rows, right, strict=True) if not ok],
        "cases": rows,
    }


def in_words(result: Mapping[str, Any]) -> str:
    """Return how many circuits were sorted right, and which were not."""
    misses = [row for row in result["cases"] if row["case"] in result["misses"]]
    lines = [f"sorted right: {result['right']} of {result['n']}"]
    lines += [
        f"case {row['case']}, {row['kind']} ({row['model']}): sorted as "
        f"{'real' if row['is_real'] else 'null'}: {'; '.join(row['failed'])}"
        for row in misses
    ]
    return "\n".join(lines)
