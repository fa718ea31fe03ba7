"""Save the model of a run's checkpoint as a folder that `wirework.load` opens.

python -m benchmarks.blind_test.model_of_checkpoint runs/demo 3000 runs/demo-3000
"""

import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file

from wirework.config import TrainConfig
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.nn import Transformer
from wirework.training.checkpoint import model_weights


def main() -> None:
    run, step, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    tokenizer = Tokenizer.load(run / "tokenizer.json")
    config = TrainConfig.load(run / "config.yaml").model
    transformer = Transformer(config.model_copy(update={"vocab_size": tokenizer.vocab_size}))
    tensors = load_file(run / "checkpoints" / f"step-{step}" / "tensors.safetensors")
    transformer.load_state_dict(model_weights(tensors, transformer.state_dict()))
    out.mkdir(parents=True)
    for name in ("config.yaml", "data.json", "tokenizer.json"):
        shutil.copy(run / name, out / name)
    Model(transformer, tokenizer).save(out / "model")


if __name__ == "__main__":
    main()
