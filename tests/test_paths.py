"""Public functions take what stands for a file, model, circuit or task as text and as a Path."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_world import QUICK, text_of, text_settings

import wirework as ww
from wirework import circuits, data, measures, studies, tasks, view
from wirework.circuits.path_patching.acdc import read_order
from wirework.config import (
    ExplainConfig,
    FrontierConfig,
    PruneConfig,
    TrainConfig,
)
from wirework.data import Tokenizer
from wirework.demo import demo
from wirework.errors import InputError
from wirework.measures.explain import estimate_cost

pytestmark = pytest.mark.usefixtures("few_random_circuits")

PACKAGES = ("circuits", "data", "interop", "measures", "model", "studies", "tasks", "training",
            "view")  # fmt: skip
PARTS = {"assemble", "check_fit", "save_beside", "tokenizer_of"}
"""Exported for those who build finders or priors of their own: they take models and tasks, and the
folder of a run, as values."""


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, and every public method of a public class."""
    for name in PACKAGES:
        module = importlib.import_module(f"wirework.{name}")
        for inner in getattr(module, "__all__", ("Model", "load")):
            value = getattr(module, inner)
            if inspect.isfunction(value):
                yield f"{name}.{inner}", value
            elif inspect.isclass(value):
                for method, function in inspect.getmembers(value, inspect.isroutine):
                    own = inspect.isfunction(function) or inspect.ismethod(function)
                    if own and not method.startswith("_") and method in vars(value):
                        yield f"{name}.{inner}.{method}", function


def test_what_takes_a_path_or_what_it_stands_for_says_that_it_takes_text():
    found = {}
    for name, function in public():
        for parameter in inspect.signature(function).parameters.values():
            kind = inspect.formatannotation(parameter.annotation)
            stands_for = re.search(r"\b(Path|Model|Circuit|Task)\b(?!\w)", kind)
            if stands_for and "str" not in re.findall(r"\w+", kind):
                found[f"{name}({parameter.name})"] = kind
    left = {
        name: kind for name, kind in found.items() if name.split(".")[-1].split("(")[0] not in PARTS
    }
    assert not left


As = Callable[[str], str | Path]
"""From a name below the folder to what is passed."""

READERS: dict[str, Callable[[As, Path], object]] = {
    "load": lambda at, _: ww.load(at("model")),
    "task": lambda at, _: ww.task(at("pairs.jsonl"), at("model")),
    "Circuit.load": lambda at, _: ww.Circuit.load(at("circuit")),
    "NodeCircuit.evaluate": lambda at, home: ww.NodeCircuit.load(home / "circuit").evaluate(
        at("model"), at("pairs.jsonl")
    ),
    "NodeCircuit.edge_masks": lambda at, home: ww.NodeCircuit.load(home / "circuit").edge_masks(
        at("model")
    ),
    "Circuit.check_model": lambda at, home: ww.Circuit.load(home / "circuit").check_model(
        at("model")
    ),
    "validate": lambda at, home: ww.validate(
        at("circuit"), at("model"), at("pairs.jsonl"), data=text_of(home).train, short=True
    ),
    "validate by itself": lambda at, home: ww.validate(
        at("circuit"), data=text_of(home).train, short=True
    ),
    "held_out_losses": lambda at, _: circuits.held_out_losses(
        at("circuit"), at("model"), at("pairs.jsonl")
    ),
    "model_of": lambda at, _: circuits.model_of(at("circuit")),
    "find_attacks": lambda at, _: circuits.find_attacks(
        at("circuit"), at("model"), pairs=2, progress=False
    ),
    "prune": lambda at, home: ww.prune(
        at("model"), at("pairs.jsonl"), QUICK, data=text_of(home).train, progress=False
    ),
    "acdc": lambda at, _: ww.acdc(at("model"), at("pairs.jsonl"), progress=False),
    "acdc_sweep": lambda at, _: circuits.acdc_sweep(at("model"), at("pairs.jsonl"), progress=False),
    "sweep_row": lambda at, _: circuits.sweep_row(at("paths")),
    "edge_attribution": lambda at, _: circuits.edge_attribution(at("model"), at("pairs.jsonl")),
    "attribute": lambda at, home: ww.attribute(
        at("model"), at("pairs.jsonl"), data=text_of(home).train
    ),
    "measure": lambda at, home: ww.measure(
        at("model"), ["sparsity"], data=text_of(home), progress=False
    ),
    "language": lambda at, home: measures.language(at("model"), text_of(home).val),
    "sparsity": lambda at, home: measures.sparsity(at("model"), text_of(home).val),
    "text_of": lambda at, home: measures.text_of(at("model"), text_of(home)),
    "evaluate": lambda at, _: tasks.evaluate(at("model"), at("pairs.jsonl")),
    "skill": lambda at, _: tasks.task_accuracy(at("model"), at("pairs.jsonl")),
    "tasks_for": lambda at, _: tasks.tasks_for(at("model")),
    "all_reports": lambda at, _: tasks.all_reports(at("model"), [at("pairs.jsonl")]),
    "check_names": lambda at, _: tasks.check_names([at("pairs.jsonl")]),
    "examples": lambda at, _: tasks.examples(at("pairs.jsonl")),
    "readable": lambda at, _: tasks.readable(at("pairs.jsonl")),
    "rephrased": lambda at, _: tasks.rephrased(at("pairs.jsonl"), 0),
    "Tokenizer.load": lambda at, _: Tokenizer.load(at("model")),
    "corpus_files": lambda at, _: data.corpus_files(at("text")),
    "load_page_data": lambda at, _: view.load_page_data(at("circuit")),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", [str, Path])
def test_readers_take_text_and_paths(world: Path, name: str, kind: type):
    READERS[name](lambda below: kind(world / below), world)


WRITERS: dict[str, Callable[[str | Path, Path, As], object]] = {
    "Circuit.save": lambda out, home, _: ww.Circuit.load(home / "circuit").save(out),
    "Model.save": lambda out, home, _: ww.load(home / "model").save(out),
    "Tokenizer.save": lambda out, home, _: Tokenizer.load(home / "model").save(out),
    "check_circuit_place": lambda out, *_: circuits.check_circuit_place(out),
    "check_out": lambda out, *_: measures.check_out(out),
    "prepare": lambda out, home, _: data.prepare(text_settings(home), out, progress=False),
    "open_prepared": lambda out, home, at: data.open_prepared(at(str(text_of(home).path))),
    "save_means": lambda out, home, at: circuits.save_means(
        out, dict(ww.NodeCircuit.load(home / "circuit").means), at(str(home / "model"))
    ),
    "write_page": lambda out, home, at: view.write_page(at(str(home / "circuit")), out),
    "write_figure": lambda out, home, _: view.write_figure(
        view.load_page_data(home / "circuit"), out
    ),
    "prune_all": lambda out, home, at: circuits.prune_all(
        at(str(home / "model")), [at(str(home / "pairs.jsonl"))], out, QUICK,
        data=text_of(home).train, progress=False,
    ),
    "exhaust_circuits": lambda out, home, at: circuits.exhaust_circuits(
        at(str(home / "model")), at(str(home / "pairs.jsonl")), out, QUICK, max_circuits=1,
        data=text_of(home).train, progress=False,
    ),
    "finders and its figure": lambda out, home, at: (
        studies.finders(
            at(str(home / "model")), [at(str(home / "pairs.jsonl"))], out,
            PruneConfig(allow_unreached=True, batch_pairs=4, eval_pairs=8),
            finders=["attribution"], targets=[0.7], data=text_of(home).train, progress=False,
        ),
        view.write_finders_figure(out),
    ),
    "explain_neurons and its page": lambda out, home, at: (
        measures.explain_neurons(
            at(str(home / "model")),
            ExplainConfig(neurons=2, excerpt_tokens=8, explain_excerpts=64, score_excerpts=64),
            text=text_of(home), out=out, progress=False,
        ),
        view.write_neuron_page(out, f"{out}.html"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", [str, Path])
def test_writers_take_text_and_paths(world: Path, tmp_path: Path, name: str, kind: type):
    WRITERS[name](kind(tmp_path / "out.png"), world, kind)


REFUSED: dict[str, tuple[Callable[[str | Path], object], str]] = {
    "serve": (lambda none: view.serve(none), "circuit.json"),
    "read_order": (read_order, "cannot read"),
    "load_means": (lambda none: circuits.load_means(none, none), "no model at"),
    "load_sae": (lambda none: measures.load_sae(none), "none"),
    "measure_sae": (lambda none: measures.measure_sae(none), "no model at"),
    "train_sae": (lambda none: measures.train_sae(none), "no model at"),
    "evaluate_sae": (lambda none: measures.evaluate_sae(none, None, None), "no model at"),
    "estimate_cost": (lambda none: estimate_cost(none, ExplainConfig()), "no model at"),
    "load_openai": (lambda none: ww.interop.load_openai(none), "none"),
    "load_interpbench": (lambda none: ww.interop.load_interpbench(none), "none"),
    "load_self_ablating": (lambda none: ww.interop.load_self_ablating(none), "none"),
    "save_huggingface": (lambda none: ww.interop.save_huggingface(none, none), "no model at"),
    "TrainConfig.load": (lambda none: TrainConfig.load(none), "cannot read"),
    "frontier": (lambda none: studies.frontier(FrontierConfig(widths=()), none), "grid is empty"),
    "demo": (lambda none: demo(none, none), "cannot read"),
    "curves": (lambda none: view.write_measures_figure(none), "measures.json"),
    "self_ablation's figure": (lambda none: view.write_self_ablation_figure(none), "results.json"),
    "binarise": (lambda none: studies.binarise([none], none), "no circuit at"),
    "figure of binarise": (lambda none: view.write_binarise_figure(none), "results.json"),
    "figures of a study": (lambda none: view.write_study_figures(none), "results.json"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", [str, Path])
def test_what_is_not_there_is_refused_alike(tmp_path: Path, name: str, kind: type):
    call, says = REFUSED[name]
    with pytest.raises(InputError, match=re.escape(says)):
        call(kind(tmp_path / "none"))
