"""Save the model of a run's checkpoint as a folder that `wirework.load` opens.

python -m benchmarks.blind_test.model_of_checkpoint runs/demo 3000 runs/demo-3000
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from wirework.config import TrainConfig
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.nn import Transformer

DENSE, PLACES, VALUES = "model/", "live/places/", "live/values/"


def main() -> None:
    run, step, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    config = TrainConfig.load(run / "config.yaml").model
    transformer = Transformer(config.model_copy(update={"vocab_size": tokenizer.vocab_size}))
    tensors = load_file(run / "checkpoints" / f"step-{step}" / "tensors.safetensors")
    transformer.load_state_dict(weights_of(transformer.state_dict(), tensors))
    out.mkdir(parents=True)
    for name in ("config.yaml", "data.json", "tokenizer.json"):
        shutil.copy(run / name, out / name)
    Model(transformer, tokenizer).save(out / "model")


def weights_of(shapes: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights in the tensors of a checkpoint, also of one with live gradients.

    Args:
        shapes: a tensor of the right shape for each weight.
        tensors: dense weights, or values and flat indices of the entries that were trained.
    """
    weights = {
        name.removeprefix(DENSE): tensor
        for name, tensor in tensors.items()
        if name.startswith(DENSE)
    }
    for key, places in tensors.items():
        if key.startswith(PLACES):
            name = key.removeprefix(PLACES)
            flat = torch.zeros_like(shapes[name]).flatten()
            weights[name] = flat.index_copy(0, places, tensors[VALUES + name]).view_as(shapes[name])
    return weights


if __name__ == "__main__":
    main()
