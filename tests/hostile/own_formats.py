"""Loaders of the formats that wirework writes itself."""

import hashlib
import json
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from loader import Loader, Nonsense, check_finite, of_model, seal_folder, seal_record

_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS / "view"), str(_TESTS / "view" / "neurons")]

TEXT = "def f(x):\n    return 'a' + \"b\"\n\nfor i in range(3):\n    print(i, f(i))\n" * 4
_SHAPE = {"vocab_size": 300, "n_ctx": 16, "n_layer": 1, "d_model": 8, "d_head": 4, "d_mlp": 16}


def make_tokenizer() -> Any:
    """Return a tokeniser of 300 tokens."""
    from wirework.data import train_tokenizer

    return train_tokenizer([TEXT, TEXT.upper(), _words()], 300, ())


def _words() -> str:
    return " ".join(
        f"{a}{b}" for a in ("load", "save", "open", "close") for b in ("er", "ing", "ed")
    )


def make_model(**changes: Any) -> Any:
    """Return a model small enough to be loaded in milliseconds, half of its weights 0."""
    import torch

    from wirework.config import ModelConfig
    from wirework.model import Model
    from wirework.nn import Transformer

    transformer = Transformer(ModelConfig(**{**_SHAPE, "act_fraction": 0.5, **changes}), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in transformer.parameters():
            weight.normal_(0, 0.5, generator=generator)
            if weight.dim() == 2:
                weight.mul_(torch.rand(weight.shape, generator=generator) < 0.1)
    return Model(transformer, make_tokenizer())


def _build_model(folder: Path) -> None:
    from wirework.config import GatingConfig
    from wirework.nn.gates import Gates

    model = make_model(act_fraction=None)
    gating = GatingConfig(k_attention=2, k_neurons=2)
    model.gates = Gates(model.config, gating)
    model.save(folder / "model")


def _load_model(folder: Path) -> Any:
    import wirework as ww

    return of_model(ww.load(folder / "model"))


def _build_bridges(folder: Path) -> None:
    from wirework.model import load
    from wirework.nn.bridges import Bridges
    from wirework.training.bridge_files import save_bridges

    make_model(d_model=12).save(folder / "dense")
    make_model().save(folder / "run" / "model")
    dense, sparse = load(folder / "dense"), load(folder / "run" / "model")
    save_bridges(folder / "run" / "bridges", Bridges(3, 12, 8, 0.5), dense, sparse)


def _load_bridges(folder: Path) -> Any:
    import wirework as ww

    bridged = ww.load_bridged(folder / "run")
    tensors = dict(bridged.bridges.state_dict())
    check_finite(tensors)
    return [of_model(bridged.dense), of_model(bridged.sparse), tensors, bridged.bridges.k]


def _seal_bridges(folder: Path) -> None:
    seal_record(folder / "run" / "bridges" / "bridges.json")
    seal_folder(folder / "run" / "bridges")


def _build_means(folder: Path) -> None:
    import torch

    from wirework.circuits.masking.node_statistics import node_means
    from wirework.circuits.masking.saved_means import save_means

    model = make_model()
    model.save(folder / "model")
    tokens = torch.arange(64).view(4, 16) % 300
    save_means(folder / "model", node_means(model.transformer, [tokens]), model)


def _load_means(folder: Path) -> Any:
    import wirework as ww
    from wirework.circuits.masking.saved_means import load_means

    means = load_means(folder / "model" / "means.safetensors", ww.load(folder / "model"))
    check_finite(means)
    return means


def _seal_means(folder: Path) -> None:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    from wirework.files import tensors_checksum

    path = folder / "model" / "means.safetensors"
    try:
        with safe_open(path, "pt") as file:
            header = dict(file.metadata() or {})
            means = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header.pop("sha256", None)
        save_file(means, path, {**header, "sha256": tensors_checksum(means, header)})
    except (SafetensorError, OSError, TypeError, UnicodeError):
        return  # nothing that a checksum could be made of


def _write_corpus(path: Path) -> Path:
    lines = (f"def f{i}(x):\n    return '{i}' + \"{i * 7}\"\n\n" for i in range(3000))
    path.write_text("".join(lines))
    return path


def _train_config(folder: Path) -> Any:
    from wirework.config import TrainConfig

    return TrainConfig.of(
        {
            "name": "run", "runs": str(folder), "steps": 4, "batch_size": 2,
            "model": _SHAPE, "weight_sparsity": None, "precision": "float32", "device": "cpu",
            "data": {"corpus": str(_shared() / "corpus.txt"), "cache": str(_shared() / "cache"),
                     "vocab_size": 300, "answers": "none", "workers": 1},
            "eval_batches": 1, "eval_every": 2, "checkpoint_every": 2,
        }
    )  # fmt: skip


@cache
def _shared() -> Path:
    """Return the folder of what is never mutated, which `make_shared` has filled."""
    import os

    return Path(os.environ["HOSTILE_SHARED"])


def make_shared() -> None:
    """Fill the folder of what is never mutated."""
    from wirework.training import train

    _write_corpus(_shared() / "corpus.txt")
    train(_train_config(_shared()), progress=False)


def _build_finished(folder: Path) -> None:
    shutil.copytree(_shared() / "run", folder / "run")


def _build_unfinished(folder: Path) -> None:
    """A run that was killed after its newest checkpoint."""
    _build_finished(folder)
    run = folder / "run"
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step-4")
    state = json.loads((run / "checkpoints" / "step-2" / "state.json").read_text())
    kept = (run / "metrics.jsonl").read_bytes()[: state["metrics_bytes"]]
    (run / "metrics.jsonl").write_bytes(kept)


def _resume(folder: Path) -> Any:
    from wirework.training import train

    run = train(_train_config(folder), resume=True, progress=False)
    lines = run.history()
    if not all(isinstance(line, dict) for line in lines):
        raise Nonsense("a line of metrics.jsonl that is no object")
    history = [{k: v for k, v in line.items() if k != "timing"} for line in lines]
    metrics = {name: value for name, value in run.metrics.items() if name != "seconds"}
    return [of_model(run.model), history, {k: metrics[k] for k in ("step", "val_loss")}]


def _seal_run(folder: Path) -> None:
    for sums in (folder / "run").rglob("checksums.json"):
        seal_folder(sums.parent)


def _build_prepared(folder: Path) -> None:
    source = next(path for path in (_shared() / "cache").iterdir() if path.is_dir())
    shutil.copytree(source, folder / "data")


def _open_prepared(folder: Path) -> Any:
    from wirework.data import open_prepared

    found = open_prepared(folder / "data")
    for split in (found.train, found.val):
        if len(split) and split.slice(0, len(split)).max() >= found.tokenizer.vocab_size:
            raise Nonsense("ids that the tokeniser does not have")
    return [
        found.tokenizer.fingerprint,
        *([split.n_documents, split.slice(0, len(split))] for split in (found.train, found.val)),
    ]


def _seal_prepared(folder: Path) -> None:
    for index in (folder / "data").glob("*/index.json"):
        try:
            values = json.loads(index.read_text())
            for shard in values["shards"]:
                content = (index.parent / shard["name"]).read_bytes()
                shard["sha256"] = hashlib.sha256(content).hexdigest()
        except (ValueError, LookupError, TypeError, OSError, AttributeError):
            continue
        index.write_text(json.dumps(values))
    sums = folder / "data" / "checksums.json"
    kept = {
        name: hashlib.sha256((folder / "data" / name).read_bytes()).hexdigest()
        for name in json.loads(sums.read_text())
        if (folder / "data" / name).is_file()
    }
    sums.write_text(json.dumps(kept))


def _build_circuit(folder: Path) -> None:
    from circuit_maker import make_circuit

    make_circuit(folder / "circuit", n_nodes=12, n_edges=20, n_io=8, n_prompts=4)


def _build_paths(folder: Path) -> None:
    from circuit_maker import make_paths

    make_paths(folder / "circuit")
    seal_folder(folder / "circuit")


def _load_circuit(folder: Path) -> Any:
    from wirework.circuits import Circuit

    circuit = Circuit.load(folder / "circuit")
    check_finite(circuit.tensors())
    return [circuit.document, circuit.tensors()]


def _view_circuit(folder: Path) -> Any:
    from wirework.view import load_page_data, render_page

    page = render_page(load_page_data(folder / "circuit"))
    page.encode()
    return page


def _seal_circuit(folder: Path) -> None:
    seal_folder(folder / "circuit")


def _build_neurons(folder: Path) -> None:
    from test_neuron_page import make_neurons

    made = make_neurons(folder / "explained")
    failures = [{"neuron": "0.mlp.post_act.3", "reason": "no"}]
    summary = {"format": "wirework-explain", "stopped": "over quota", "left": 3}
    (made / "explain.json").write_text(json.dumps(summary | {"failures": failures}))


def _view_neurons(folder: Path) -> Any:
    from wirework.view import write_neuron_page

    return write_neuron_page(folder / "explained", folder / "page.html").read_text()


def _build_measures(folder: Path) -> None:
    from wirework.measures import COLUMNS

    headline = {name: float(i) for i, name in enumerate(COLUMNS)}
    for place in ("measures", "plain"):
        reports = {name: {"headline": headline, "language": {"loss": 2.5}} for name in ("a", "b")}
        (folder / place).mkdir()
        (folder / place / "measures.json").write_text(json.dumps(reports))


def _draw_measures(folder: Path) -> Any:
    from wirework.view import write_measures_figure

    return write_measures_figure(folder / "measures").read_bytes()


_STUDIES = _TESTS.parent / "studies" / "results"


def _build_self_ablation(folder: Path) -> None:
    shutil.copy(_STUDIES / "self_ablation" / "results.json", folder)


def _draw_self_ablation(folder: Path) -> Any:
    from wirework.view import write_self_ablation_figure

    return write_self_ablation_figure(folder).read_bytes()


def _build_frontier(folder: Path) -> None:
    for name in ("results.json", "token_losses.json"):
        if (_STUDIES / "frontier" / name).is_file():
            shutil.copy(_STUDIES / "frontier" / name, folder)


def _draw_frontier(folder: Path) -> Any:
    from wirework.view import write_study_figures

    return [path.read_bytes() for path in write_study_figures(folder)]


def _build_finders(folder: Path) -> None:
    shutil.copy(_STUDIES / "finders" / "finders.json", folder)


def _draw_finders(folder: Path) -> Any:
    from wirework.view import write_finders_figure

    return write_finders_figure(folder).read_bytes()


def _build_cell(folder: Path) -> None:
    from wirework.files import write_record

    rows = [{"task": "a", "nodes": 3, "edges": 4, "loss": 0.1}]
    write_record(
        folder / "cells" / "one" / "cell.json",
        {"name": "one", "width": 1.0, "metrics": {"val_loss": 2.0}, "tasks": rows, "settings": {}},
    )


def _read_cell(folder: Path) -> Any:
    from wirework.studies.cell import read_cell

    return read_cell(folder, "one")


def _seal_cell(folder: Path) -> None:
    seal_record(folder / "cells" / "one" / "cell.json")


def _build_search(folder: Path) -> None:
    import torch

    from wirework.circuits.pruning.search_folder import Candidate, write_candidates

    write_candidates(folder, [Candidate(5, 3, torch.arange(6.0)), Candidate(7, 4, torch.ones(6))])
    _study_of(folder)


def _study_of(folder: Path) -> Any:
    """Write or go on with the journal of a search."""
    from wirework.circuits.pruning import hyperparameter_search as search

    study = search._study(folder)
    while len(study.trials) < 3:
        trial = study.ask()
        study.tell(trial, trial.suggest_float("lr", 0.1, 1.0))
    return study


def _read_search(folder: Path) -> Any:
    from wirework.circuits.pruning.search_folder import read_candidates

    best = read_candidates(folder)
    check_finite({str(i): one.tau for i, one in enumerate(best)})
    trials = [(t.number, t.values, t.params) for t in _study_of(folder).trials]
    return [best, [trial for trial in trials if trial[1] is not None]]


def _build_pairs(folder: Path) -> None:
    lines = [
        {"prompts": [f"x{i} = ('a", f'x{i} = ("a'], "answers": ["')", '")']} for i in range(24)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _read_pairs(folder: Path) -> Any:
    from wirework.tasks import load_task

    return load_task(folder / "pairs.jsonl").pairs


def _build_settings(folder: Path) -> None:
    from wirework.config import PruneConfig, TrainConfig

    (folder / "train.yaml").write_text(TrainConfig(name="a", steps=10).to_yaml())
    (folder / "prune.yaml").write_text(PruneConfig().to_yaml())


def _read_settings(folder: Path) -> Any:
    from wirework.config import PruneConfig, TrainConfig

    found = [TrainConfig.load(folder / "train.yaml"), PruneConfig.load(folder / "prune.yaml")]
    for config in found:
        if config != type(config).of(yaml.safe_load(config.to_yaml())):
            raise Nonsense("settings that do not survive being written and read")
    return found


_CORPORA = ("plain.txt", "marked.txt", "records.jsonl", "table.parquet", "folder/a.py",
            "folder/b.jsonl")  # fmt: skip


def _build_corpora(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    documents = [f'Document {i}\nwith two lines, é and "quotes".\n' for i in range(20)]
    plain = "".join(documents)
    records = "".join(json.dumps({"text": text}) + "\n" for text in documents)
    (folder / "folder").mkdir()
    (folder / "plain.txt").write_text(plain)
    (folder / "marked.txt").write_text("<|endoftext|>\n".join(documents))
    (folder / "records.jsonl").write_text(records)
    (folder / "folder" / "a.py").write_text(TEXT)
    (folder / "folder" / "b.jsonl").write_text(records)
    pyarrow.parquet.write_table(pyarrow.table({"text": documents}), folder / "table.parquet")


def _read_corpus(name: str, folder: Path) -> Any:
    from wirework.config import DataConfig
    from wirework.data.corpora import documents

    corpus = folder / name if not name.startswith("folder/") else folder / "folder"
    texts = list(documents(DataConfig(corpus=str(corpus))))
    for text in texts:
        text.encode()
    return texts


def _corpus_loader(name: str) -> Loader:
    return Loader(
        f"corpus {name}",
        _build_corpora,
        lambda folder: _read_corpus(name, folder),
        (name,),
        held_out=("*",),
    )


def _build_tokenizer(folder: Path) -> None:
    make_tokenizer().save(folder / "tokenizer.json")


def _read_tokenizer(folder: Path) -> Any:
    from wirework.data import Tokenizer

    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    ids = tokenizer.encode(TEXT)
    if any(not 0 <= i < tokenizer.vocab_size for i in ids):
        raise Nonsense("ids outside of the vocabulary")
    tokenizer.decode(ids)
    return tokenizer.fingerprint


LOADERS = (
    Loader("model", _build_model, _load_model, ("model/*",), protected=True,
           seal=lambda folder: seal_folder(folder / "model")),
    Loader("means", _build_means, _load_means, ("model/means.safetensors",), protected=True,
           seal=_seal_means),
    Loader("bridges", _build_bridges, _load_bridges, ("run/bridges/*",), protected=True,
           seal=_seal_bridges),
    Loader("finished run", _build_finished, _resume,
           ("run/config.yaml", "run/metrics.jsonl", "run/tokenizer.json", "run/model/config.json",
            "run/model/checksums.json"),
           protected=True, seal=_seal_run),
    Loader("checkpoint", _build_unfinished, _resume,
           ("run/config.yaml", "run/metrics.jsonl", "run/checkpoints/step-2/*"),
           protected=True, seal=_seal_run),
    Loader("prepared text", _build_prepared, _open_prepared,
           ("data/*.json", "data/*/index.json", "data/*/shard-00000.bin"),
           protected=True, seal=_seal_prepared),
    Loader("circuit", _build_circuit, _load_circuit, ("circuit/*",), protected=True,
           seal=_seal_circuit),
    Loader("circuit page", _build_circuit, _view_circuit, ("circuit/*",), protected=True,
           seal=_seal_circuit),
    Loader("path circuit page", _build_paths, _view_circuit, ("circuit/circuit.json",),
           protected=True, seal=_seal_circuit),
    Loader("neurons' page", _build_neurons, _view_neurons,
           ("explained/explain.json", "explained/neurons/0.mlp.post_act.7.json"),
           held_out=("removed",)),
    Loader("measures figure", _build_measures, _draw_measures, ("measures/measures.json",)),
    Loader("self-ablation figure", _build_self_ablation, _draw_self_ablation, ("results.json",)),
    Loader("frontier figures", _build_frontier, _draw_frontier, ("*.json",)),
    Loader("finders figure", _build_finders, _draw_finders, ("finders.json",)),
    Loader("study cell", _build_cell, _read_cell, ("cells/one/cell.json",), protected=True,
           seal=_seal_cell, held_out=("json_duplicate_key",)),  # sealing leaves one of the two
    Loader("search", _build_search, _read_search, ("best.safetensors", "study.log"),
           protected=True, held_out=("removed", "cut", "empty", "one_line_end")),
    Loader("pairs", _build_pairs, _read_pairs, ("pairs.jsonl",),
           held_out=("cut", "bit", "line_dropped", "swapped", "byte_order_mark")),
    Loader("settings", _build_settings, _read_settings, ("*.yaml",),
           held_out=("cut", "bit", "swapped", "empty", "one_line_end", "extended")),
    *map(_corpus_loader, _CORPORA),
    Loader("tokeniser", _build_tokenizer, _read_tokenizer, ("tokenizer.json",)),
)  # fmt: skip
