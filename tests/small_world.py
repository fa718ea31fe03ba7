"""All kinds of things in one folder, as small as they can be."""

import json
from pathlib import Path

import wirework as ww
from wirework import circuits, data
from wirework.config import DataConfig, ModelConfig, PruneConfig
from wirework.data import Tokenizer
from wirework.nn import Transformer

QUICK = PruneConfig(
    finder="attribution", allow_unreached=True, target_loss=0.7, clean_up=False, prune_edges=False,
    batch_pairs=4, eval_pairs=8,
)  # fmt: skip


def make_world(folder: Path, tokenizer: Tokenizer) -> None:
    """Write a model, its means, a task, circuits of both levels and prepared text to a folder."""
    config = ModelConfig(vocab_size=tokenizer.vocab_size, d_model=16, d_head=8, n_layer=1)
    model = ww.Model(Transformer(config), tokenizer)
    model.save(folder / "model")
    model = ww.load(folder / "model")
    (folder / "pairs.jsonl").write_text(
        "".join(
            json.dumps({"prompts": pair.prompts, "answers": pair.answers}) + "\n"
            for pair in ww.task("single_double_quote", n=60).pairs
            if len({len(tokenizer.encode(prompt)) for prompt in pair.prompts}) == 1
        )
    )
    (folder / "text").mkdir()
    for i in range(8):
        (folder / "text" / f"{i}.py").write_text(f"# {i}\n" + "a = (1, [2])\n" * 200)
    text = data.prepare(text_settings(folder), folder / "data", progress=False)
    task = ww.task(folder / "pairs.jsonl")
    circuits.prune(model, task, QUICK, data=text.train, progress=False).save(folder / "circuit")
    ww.acdc(model, task, progress=False).save(folder / "paths")


def text_settings(folder: Path) -> DataConfig:
    return DataConfig(
        corpus=str(folder / "text"), tokenizer=folder / "model" / "tokenizer.json",
        val_fraction=0.3, workers=1,
    )  # fmt: skip


def text_of(folder: Path) -> data.Prepared:
    return data.prepare(text_settings(folder), folder / "data", progress=False)
