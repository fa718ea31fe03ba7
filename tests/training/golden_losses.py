"""Losses of 100 steps of a tiny run, by every way in which a step can be computed.

`golden_losses.json` has the losses of the plainest way: dense products and torch's operations. Live
gradients exist in compiled kernels only, so their own losses are stored. To write the file anew,
on purpose:

    OMP_NUM_THREADS=1 python tests/training/golden_losses.py --replace
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from wirework import fastest
from wirework.config import TrainConfig
from wirework.nn.kernels import compiled, products, sparse_linear, top_k
from wirework.training import train
from wirework.training.metrics import read_metrics

FILE = Path(__file__).with_suffix(".json")
TEXT = Path(__file__).parent.parent / "golden" / "text.jsonl"
STEPS = 100

SETTINGS: dict[str, Any] = {
    "name": "run",
    "seed": 4,  # without near ties between kept and dropped weights or activations
    "steps": STEPS,
    "batch_size": 2,
    "model": {
        "vocab_size": 352, "n_ctx": 64, "n_layer": 2, "d_model": 32, "d_head": 8,
        "act_fraction": None, "bigram": False,
    },
    "data": {"corpus": str(TEXT), "vocab_size": 352, "val_fraction": 0.2, "workers": 1},
    "weight_sparsity": {"l0_fraction": 0.1, "floor": 1},
    "optimizer": {"lr": 0.003},
    "device": "cpu",
    "precision": "float32",
    "eval_every": STEPS,
    "eval_batches": 2,
    "log_every": 1,
    "checkpoint_every": STEPS,
}  # fmt: skip

LIVE = {"weight_sparsity": {"gradient": "live", "live_below": 0.5, "dense_every": 4}}
ALL_LIVE = {"weight_sparsity": {"gradient": "live", "live_below": 1.0, "candidates": 1e6}}
TOP_K = {"model": {"act_fraction": 0.25}}


class Way(NamedTuple):
    """A way to compute the steps."""

    stored: str
    """Name of the losses in the file that it must give."""
    settings: dict[str, dict[str, Any]]
    sparse: bool = False
    """Whether products come from compressed rows, however small or dense a matrix is."""
    compiled: bool = True
    """Whether numba's kernels are used: AbsTopK, attention and RMSNorm."""
    top_k_by_torch: bool = False


REFERENCES = {
    "exact": Way("exact", {}, compiled=False),
    "AbsTopK": Way("AbsTopK", TOP_K, compiled=False),
    "live": Way("live", LIVE, sparse=True),
}
WAYS = {
    "dense products, nothing compiled": REFERENCES["exact"],
    "dense products": Way("exact", {}),
    "sparse products": Way("exact", {}, sparse=True),
    "live, every weight a candidate": Way("exact", ALL_LIVE, sparse=True),
    "live, dense_every 4": REFERENCES["live"],
    "AbsTopK, nothing compiled": REFERENCES["AbsTopK"],
    "AbsTopK": Way("AbsTopK", TOP_K),
    "AbsTopK by torch": Way("AbsTopK", TOP_K, top_k_by_torch=True),
}


def losses(way: Way, folder: Path) -> list[float]:
    """Return the loss of each step, of a run in a folder; prepared text there is used again."""
    values = SETTINGS | {name: SETTINGS[name] | changes for name, changes in way.settings.items()}
    values |= {"runs": Path(tempfile.mkdtemp(dir=folder))}
    values["data"] = values["data"] | {"cache": folder / "data"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiled.VARIABLE, "1" if way.compiled else "0")
        patch.setenv(products.VARIABLE, "torch")
        patch.setenv(sparse_linear.VARIABLE, "1" if way.sparse else "0")
        patch.setattr(sparse_linear, "_MIN_SIZE", 0)
        patch.setattr(fastest, "choose", _compiled_where_possible)
        if way.top_k_by_torch:
            patch.setattr(top_k, "_by_torch", lambda _: True)
        compiled.why_not.cache_clear()
        run = train(TrainConfig.of(values), progress=False)
    compiled.why_not.cache_clear()
    lines = read_metrics(run.path / "metrics.jsonl")
    return [line["loss"] for line in lines if line["kind"] == "train"]


def _compiled_where_possible(question: str, default: str, *_: object) -> str:
    """Stand in for a measurement: take compiled attention."""
    return "compiled" if question.startswith("attention") else default


def main() -> None:
    """Write the losses of the references."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stored = {name: losses(way, Path(folder)) for name, way in REFERENCES.items()}
    lines = (f'"{name}": {json.dumps([round(x, 6) for x in row])}' for name, row in stored.items())
    FILE.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__" and sys.argv[1:] == ["--replace"]:
    main()
