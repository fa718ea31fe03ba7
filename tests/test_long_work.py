"""Long work says how far it is where standard error is no terminal; nobody needs to ask twice."""

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "circuits"))

from hand_wired import Corpus
from hand_wired.circuits import circuit_of
from hand_wired.quote_closer import plant
from marks import slow_cases
from small_world import QUICK, text_of, text_settings

import wirework as ww
from wirework import circuits, console, data, measures, studies
from wirework.config import ExplainConfig, MeasureConfig, PruneConfig, SaeConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated"),
    pytest.mark.usefixtures("few_random_circuits"),
]

_EXPLAIN = ExplainConfig(neurons=20, excerpt_tokens=8, explain_excerpts=512, score_excerpts=512)
_SAE = SaeConfig(tokens=2048, batch_size=64, buffer=256, eval_tokens=256)


def _explain_circuit(progress: bool) -> None:
    """Explain the circuit of a hand-wired model: an untrained one does not do its task."""
    planted = plant()
    text = Corpus(planted.model.tokenizer, planted.task)
    circuit = circuit_of(planted)
    ww.explain_circuit(circuit, planted.model, planted.task, data=text, pairs=8, progress=progress)


WORK: dict[str, tuple[Callable[[Path, Path, bool], object], list[str]]] = {
    "prune": (
        lambda home, _, progress: ww.prune(
            home / "model", home / "pairs.jsonl",
            PruneConfig(allow_unreached=True, target_loss=0.69, trials=2, parallel=1, steps=20,
                        finalists=1, extra_rankings=(), eval_pairs=8, batch_pairs=4),
            data=text_of(home).train, progress=progress,
        ),
        [r"prune pairs: \d+%, .*(so far|left)"],
    ),
    "prune_all": (
        lambda home, out, progress: circuits.prune_all(
            home / "model", [home / "pairs.jsonl"], out, QUICK, data=text_of(home).train,
            progress=progress,
        ),
        [r"tasks: 0/1, pairs, ", r"; validate pairs: "],
    ),
    "validate": (
        lambda home, _, progress: ww.validate(
            home / "circuit", data=text_of(home).train, runs=1, progress=progress
        ),
        [r"validate pairs: \d+%, ", r"; search number 1: ", r"; control: search on "],
    ),
    "acdc": (
        lambda home, _, progress: ww.acdc(home / "model", home / "pairs.jsonl", progress=progress),
        [r"acdc pairs: "],
    ),
    "attack": (
        lambda home, _, progress: circuits.find_attacks(
            home / "circuit", pairs=2, progress=progress
        ),
        [r"attacks pairs: \d+/\d+, "],
    ),
    "explain-circuit": (
        lambda home, _, progress: _explain_circuit(progress),
        [r"explain .+: \d+%, "],
    ),
    "explain": (
        lambda home, _, progress: measures.explain_neurons(
            home / "model", _EXPLAIN, text=text_of(home), progress=progress
        ),
        [r"excerpts: ", r"neurons: "],
    ),
    "sae": (
        lambda home, _, progress: measures.measure_sae(
            home / "model", _SAE, text_of(home), progress
        ),
        [r"autoencoder: \d+%, ", r"measuring the autoencoder: "],
    ),
    "measure": (
        lambda home, _, progress: ww.measure(
            home / "model", ["language", "sparsity"], MeasureConfig(), data=text_of(home),
            progress=progress,
        ),
        [r"instruments: 0/2, language, "],
    ),
    "study finders": (
        lambda home, out, progress: studies.finders(
            home / "model", [home / "pairs.jsonl"], out,
            PruneConfig(allow_unreached=True, batch_pairs=4, eval_pairs=8),
            finders=["attribution"], targets=[0.69], data=text_of(home).train, progress=progress,
        ),
        [r"study: 0/1, .*; tasks: 0/1, "],
    ),
    "data": (
        lambda home, out, progress: data.prepare(text_settings(home), out, progress),
        [r"tokens: "],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_it_writes_lines_and_leaves_no_thread(
    world: Path, tmp_path: Path, capsys, monkeypatch, name: str
):
    work, patterns = WORK[name]
    monkeypatch.setattr(console, "EVERY", 1e-4)
    work(world, tmp_path / "out", True)
    said = capsys.readouterr().err
    for pattern in patterns:
        assert re.search(pattern, said), (pattern, said[:2000])
    assert not [one for one in threading.enumerate() if one.name == "progress"]


LONGEST = ("prune", "prune_all", "validate", "attack", "study finders")


@pytest.mark.parametrize(
    "name", [*(name for name in WORK if name not in LONGEST), *slow_cases(*LONGEST)]
)
def test_it_is_silent_where_nobody_wants_to_know(
    world: Path, tmp_path: Path, capsys, monkeypatch, name: str
):
    monkeypatch.setattr(console, "EVERY", 1e-4)
    WORK[name][0](world, tmp_path / "out", False)
    assert capsys.readouterr().err == ""
