"""The code blocks of the documentation, and what makes them small enough to run.

Where a flag or an argument decides how long a line takes, `SMALL` gives it a lesser
value. Nothing else of a line is changed.
"""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import wirework as ww
from wirework import measures
from wirework.data import prepare

ROOT = Path(__file__).parent.parent
FOLDERS = (".", "docs", "benchmarks", "tests/hostile", "studies/results/*")
PAGES = [
    str(page.relative_to(ROOT))
    for folder in FOLDERS
    for page in sorted(ROOT.glob(f"{folder}/*.md"))
]

_NETWORK = "needs a network: tests/test_install.py"
_SERVES = "serves until Ctrl-C: tests/view/page/test_server.py"
_STUDY = "hours of work: tests/studies, tests/test_golden.py"
NOT_RUN = {
    ("CONTRIBUTING.md", "make install"): _NETWORK,
    ("CONTRIBUTING.md", ".venv/bin/pip install"): _NETWORK,
    ("README.md", "make demo"): "minutes of training: tests/test_demo.py",
    ("README.md", "make test"): "runs all tests, this one too",
    ("README.md", "make install"): _NETWORK,
    ("README.md", ". .venv/bin/activate"): "is for the reader's shell",
    ("README.md", "wirework view"): _SERVES,
    ("README.md", "wirework study"): _STUDY,
    ("docs/acdc.md", "wirework view"): _SERVES,
    ("docs/bridges.md", "wirework bridge"): "needs a dense run: tests/bridges/test_bridged.py",
    ("docs/bridges.md", "wirework prune"): "needs that run: tests/bridges",
    ("docs/bridges.md", "wirework steer"): "needs that run: tests/bridges/test_bridge_commands.py",
    ("docs/circuits.md", "wirework view"): _SERVES,
    ("docs/circuits.md", "wirework explain-circuit circuits/quote"): "the model of two steps that "
    "stands for the demo's does not do its task: tests/circuits/reading",
    ("docs/explain.md", "wirework explain runs/demo --out explained/lm"): "asks a server: "
    "tests/measures/explain/test_explain_command.py",
    ("docs/measures.md", "wirework study"): _STUDY,
    ("docs/measures.md", "wirework sae runs/big"): "stands for a model of the reader's",
    ("docs/reading_a_circuit.md", "wirework train"): _STUDY,
    ("docs/reading_a_circuit.md", "wirework prune"): _STUDY,
    ("docs/reading_a_circuit.md", "wirework attack"): "needs that circuit: "
    "tests/circuits/adversarial",
    ("docs/reading_a_circuit.md", "wirework validate"): "needs that circuit: "
    "tests/circuits/validation",
    ("docs/reading_a_circuit.md", "wirework explain-circuit"): "needs the circuit of that model: "
    "tests/circuits/reading",
    ("docs/self_ablation.md", "wirework convert self-ablating DIR OUT"): "stands for files of "
    "others: tests/interop",
    ("docs/training.md", "wirework train --config recipes/wide.yaml --name longer"): "needs that "
    "run: tests/training/test_start_from.py",
    ("tests/hostile/README.md", "make hostile-test"): "minutes, and CI runs it",
    ("tests/hostile/README.md", "python tests/hostile/run.py"): "minutes: make hostile-test",
    ("studies/results/ablations/README.md", "wirework study"): _STUDY,
    ("studies/results/adversarial/README.md", "python -m benchmarks"): "minutes: "
    "tests/test_adversarial_benchmark.py",
    ("studies/results/adversarial/README.md", "wirework train"): _STUDY,
    ("studies/results/adversarial/README.md", "wirework prune"): _STUDY,
    ("studies/results/binarise/README.md", "wirework study"): _STUDY,
    ("studies/results/blind_test/README.md", "wirework train"): _STUDY,
    ("studies/results/blind_test/README.md", "python -m benchmarks"): "minutes: "
    "tests/test_blind_test.py",
    **{
        ("studies/results/bridges/README.md", f"wirework {verb}"): _STUDY
        for verb in ("train", "bridge", "measure", "prune", "steer")
    },
    ("studies/results/contamination/README.md", "wirework tasks --contamination runs/twenty"):
    _STUDY,
    ("studies/results/demo/README.md", "wirework demo"): "minutes of training: tests/test_demo.py",
    ("studies/results/demo/README.md", "wirework validate"): "needs the demo's circuit: "
    "tests/circuits/validation",
    ("studies/results/exhaust/README.md", "wirework prune"): _STUDY,
    ("studies/results/explained/README.md", "wirework attack"): "needs that circuit: "
    "tests/circuits/adversarial",
    ("studies/results/explained/README.md", "wirework validate"): "needs that circuit: "
    "tests/circuits/validation",
    ("studies/results/explained/README.md", "wirework tasks"): _STUDY,
    ("studies/results/explained/README.md", "wirework train"): _STUDY,
    ("studies/results/explained/README.md", "wirework prune"): _STUDY,
    ("studies/results/explained/README.md", "wirework explain-circuit"): "needs the circuits of "
    "that model: tests/circuits/reading",
    ("studies/results/faithful/README.md", "wirework train"): _STUDY,
    ("studies/results/faithful/README.md", "wirework prune"): _STUDY,
    ("studies/results/finders/README.md", "wirework study"): _STUDY,
    ("studies/results/frontier/README.md", "wirework study"): _STUDY,
    ("studies/results/self_ablation/README.md", "wirework study"): _STUDY,
    ("studies/results/twenty/README.md", "wirework train"): _STUDY,
    ("studies/results/twenty/README.md", "wirework prune"): _STUDY,
    ("studies/results/twenty/README.md", "wirework tasks"): _STUDY,
}  # fmt: skip
"""Shell lines that do not run here, by page and beginning, with the reason and what runs them."""

_SHAPE = {
    "model.n_layer": 2, "model.d_model": 32, "model.n_ctx": 64, "model.vocab_size": 800,
    "data.vocab_size": 800, "data.workers": 1, "data.max_bytes": 600_000,
    "data.tokenizer_bytes": 600_000, "steps": 2, "batch_size": 4, "eval_batches": 1,
    "precision": "float32",
}  # fmt: skip
_PRUNE = {"steps": 1, "trials": 1, "eval_pairs": 8, "batch_pairs": 4, "allow_unreached": True}
_SAE = {"tokens": 5120, "eval_tokens": 512, "buffer": 2048}
_EXCERPTS = {"neurons": 2, "explain_excerpts": 64, "score_excerpts": 64}
SMALL: dict[str, dict[str, Any]] = {
    "train": _SHAPE,
    "tasks": {"task": "single_double_quote"},
    "prune": _PRUNE,
    "validate": {"short": True},
    "attack": {"pairs": 8},
    "explain-circuit": {"pairs": 8},
    "acdc": {"pairs": 4},
    "sae": _SAE,
    "explain": _EXCERPTS,
    "measure": {
        "n_tokens": 512, "acdc.pairs": 4,
        **{f"sae.{name}": value for name, value in _SAE.items()},
        **{f"explain.{name}": value for name, value in _EXCERPTS.items()},
    },
}  # fmt: skip
"""Settings of each command, and of the function of its name, that make it quick."""


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a page in a language (`sh`, `python`; empty: none is named)."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def shell_lines(page: str) -> list[str]:
    """Return the lines of the shell blocks of a page, without comments."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", "").splitlines()
    return [line for line in (re.sub(r"(^|\s+)#.*", "", line) for line in lines) if line]


def is_run(page: str, line: str) -> bool:
    """Return whether a shell line of a page is not among `NOT_RUN`."""
    return not any(page == named and line.startswith(start) for named, start in NOT_RUN)


def small_words(line: str) -> list[str]:
    """Return the words of a command, with lesser numbers where they decide its time."""
    words = shlex.split(line)[1:]
    for name, value in SMALL.get(words[0], {}).items():
        flag = f"--{name.replace('_', '-')}"
        if flag in words:
            words[words.index(flag) + 1] = str(value)
        elif flag != "--neurons" or "--only" not in words:
            words += [flag] if value is True else [flag, str(value)]
    return words


@contextmanager
def small_settings() -> Iterator[None]:
    """Give functions of the library the settings of `SMALL` in the block."""

    def load(path: str, overrides: Mapping[str, Any] | None = None) -> ww.TrainConfig:
        return read(path, {**(overrides or {}), **SMALL["train"]})

    def explain(model: ww.Model, config: ww.ExplainConfig, **more: Any) -> measures.Explanations:
        return explain_neurons(model, config.model_copy(update=SMALL["explain"]), **more)

    def small(function: Callable[..., Any], settings: Mapping[str, Any]) -> Callable[..., Any]:
        return lambda *given, **named: function(*given, **{**named, **settings})

    read, explain_neurons = ww.TrainConfig.load, measures.explain_neurons
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ww.TrainConfig, "load", load)
        patch.setattr(measures, "explain_neurons", explain)
        for name in ("prune", "validate", "acdc"):
            patch.setattr(ww, name, small(getattr(ww, name), SMALL[name]))
        yield


def add_files_of_a_reader(folder: Path) -> None:
    """Write the files that pages name: text, pairs, a function that makes pairs."""
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    (folder / "notes.txt").write_text("".join(pages), encoding="utf-8")
    (folder / "notes").mkdir()
    for number, text in enumerate(pages):
        (folder / "notes" / f"{number}.md").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "tests/golden/quotes.jsonl", folder / "mine.jsonl")
    (maker,) = (block for block in blocks("docs/circuits.md", "python") if "def make_pair" in block)
    (folder / "my_tasks.py").write_text(maker, encoding="utf-8")


def names_of_a_reader(model: ww.Model) -> dict[str, Any]:
    """Return what pages after README take for granted; in the folder of a reader."""
    tokens = torch.zeros(2, 8, dtype=torch.int64)
    return {
        "ww": ww, "model": model, "task": ww.task("single_double_quote", n=64),
        "tokens": tokens, "targets": tokens, "prepare": prepare,
        "config": ww.TrainConfig.load("runs/demo/config.yaml"),
    }  # fmt: skip


def run_python(page: str, names: dict[str, Any]) -> None:
    """Run the Python blocks of a page, one after the other, with these names at its beginning."""
    for number, block in enumerate(blocks(page, "python"), 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
