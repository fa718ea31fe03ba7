"""The folder of explanations: `settings.json`, a file per neuron, `explain.json`.

`neurons/0.mlp.post_act.17.json` holds one object; docs/explain.md lists its fields. Each file is
written whole or not at all, so that a killed run resumes after the last finished neuron.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from wirework.config import changes
from wirework.errors import DamagedError, InputError, quoted
from wirework.files import check_place, is_file, names_in, read_record, write_record
from wirework.leftovers import clear_held
from wirework.measures.explain.explainers import DetectionScores, Explanation
from wirework.measures.explain.patterns import to_json
from wirework.measures.explain.record import Excerpt, Neuron, NeuronRecord

FORMAT = "wirework-neuron"
VERSION = 2
"""Files of version 1 may lack a checksum."""
SETTINGS = "settings.json"
SUMMARY = "explain.json"


def neuron_path(out: Path, neuron: Neuron) -> Path:
    """Return the path of a neuron's file."""
    return out / "neurons" / f"{neuron.name}.json"


def check(out: Path) -> None:
    """Check that a folder holds explanations or can be used for them.

    Raises:
        InputError: it holds other files, or cannot be written to.
    """
    names_there = names_in(out)
    if names_there - {"lock", "cache"} and SETTINGS not in names_there:
        raise InputError(f"{out} holds files but no {SETTINGS}: give another folder")
    if SETTINGS in names_there:
        _settings(out)
    check_place(out)


def _settings(out: Path) -> dict[str, Any]:
    try:
        return read_record(out / SETTINGS)
    except DamagedError:
        raise InputError(f"{out / SETTINGS} is damaged or not ours: give another folder") from None


def claim(out: Path, about: dict[str, Any], harmless: Collection[str]) -> None:
    """Write the settings of a folder, and remove half-written files of a killed process.

    Args:
        out: the folder.
        about: model, text and settings.
        harmless: settings that may differ from those of earlier calls.

    Raises:
        InputError: it holds neurons made with another model, text or settings, or cannot be
            written to.
    """
    path = out / SETTINGS
    clear_held([out, out / "neurons", *(out / "cache").glob("*")])  # answers lie in cache/XX
    if not is_file(path):
        write_record(path, about)
        return
    stored = _settings(out)
    if any((out / "neurons").glob("*.json")) and (other := _difference(stored, about, harmless)):
        raise InputError(f"{out} was made with {other}: give another --out")
    write_record(path, about)


def forget(out: Path) -> None:
    """Delete the summary of an earlier run: it is out of date while this one runs."""
    (out / SUMMARY).unlink(missing_ok=True)


def _difference(
    stored: dict[str, Any], about: dict[str, Any], harmless: Collection[str]
) -> str | None:
    """Return the difference of two descriptions; None if only harmless settings differ."""
    for name in ("model", "text"):
        if stored.get(name) != about[name]:
            return f"another {name}"
    differences = changes(stored.get("settings", {}), about["settings"])
    listed = "; ".join(str(change) for change in differences if change.name not in harmless)
    return f"other settings, {listed}" if listed else None


def dead_document(record: NeuronRecord) -> dict[str, Any]:
    """Return the content of the file of a neuron that is never active."""
    return _head(record) | {"dead": True}


def document(
    record: NeuronRecord,
    explainer: str,
    explanation: Explanation,
    simulated: list[list[float]],
    detected: DetectionScores | None,
    scores: dict[str, Any],
    token: Callable[[int], str],
) -> dict[str, Any]:
    """Return the content of the file of a neuron that was explained and scored."""
    detections = [None] * len(record.held_out) if detected is None else list(detected.scores)
    excerpts = [
        _excerpt(excerpt, token) | {"simulated": [round(v, 4) for v in values], "detected": score}
        for excerpt, values, score in zip(record.held_out, simulated, detections, strict=True)
    ]
    return _head(record) | {
        "dead": False,
        "explainer": explainer,
        "explanation": explanation.text,
        "patterns": to_json(explanation.patterns, token),
        "threshold": None if detected is None else detected.threshold,
        "scores": scores,
        "top": [_excerpt(excerpt, token) for excerpt in record.top],
        "held_out_top": excerpts[: len(record.held_out_top)],
        "held_out_random": excerpts[len(record.held_out_top) :],
    }


def _head(record: NeuronRecord) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "site": record.neuron.site,
        "index": record.neuron.index,
        **({"negated": True} if record.neuron.negated else {}),
        "peak": record.peak,
        "mean": record.mean,
        "live_fraction": record.live_fraction,
    }


def _excerpt(excerpt: Excerpt, token: Callable[[int], str]) -> dict[str, Any]:
    return {
        "start": excerpt.start,
        "tokens": [token(i) for i in excerpt.tokens],
        "activations": [float(f"{value:.5g}") for value in excerpt.activations],
    }


def read_neuron(path: Path) -> dict[str, Any]:
    """Read the file of a neuron.

    Raises:
        InputError: it is missing, damaged, or of a newer version.
    """
    try:
        stored = read_record(path, unsigned=True)
    except DamagedError as error:
        raise DamagedError(f"{str(error).removesuffix('; delete it')}; delete it") from None
    if stored.get("format") != FORMAT:
        raise InputError(f"{path} is no neuron file: delete it")
    if stored.get("version") not in (1, VERSION):
        version = quoted(stored.get("version"))
        raise InputError(f"{path} has version {version}, this wirework reads 1 to {VERSION}")
    if not (stored.get("dead") is True or _has_scores(stored)):
        raise InputError(f"{path} is damaged: it lacks scores; delete it")
    return stored


def _has_scores(stored: dict[str, Any]) -> bool:
    """Return whether the file of a neuron has the scores that the summary needs."""
    scores = stored.get("scores")
    if stored.get("dead") is not False or not isinstance(scores, dict):
        return False
    correlation = scores.get("correlation")
    has_correlations = isinstance(correlation, dict) and {"top_and_random", "top", "random"} <= set(
        correlation
    )
    return has_correlations and {"constant", "detection"} <= scores.keys()
