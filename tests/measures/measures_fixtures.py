from pathlib import Path

import pytest
import torch

from wirework.config import DataConfig, ModelConfig
from wirework.data import Prepared, Tokenizer, prepare
from wirework.model import Model
from wirework.nn import Transformer


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def text(corpus: Path, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A few modules of the standard library under the tests' tokeniser."""
    folder = tmp_path_factory.mktemp("text")
    tokenizer.save(folder / "tokenizer.json")
    settings = DataConfig(
        corpus=str(corpus), tokenizer=folder / "tokenizer.json", val_fraction=0.3, workers=1
    )
    return prepare(settings, folder, progress=False)


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Model:
    """Three layers of random weights, large enough that each sublayer matters."""
    config = ModelConfig(
        vocab_size=512, n_ctx=32, n_layer=3, d_model=16, d_head=8, d_mlp=24, norm="layer",
        positions="added", tied_embedding=True, sinks=False, bigram=False, act_fraction=None,
    )  # fmt: skip
    transformer = Transformer(config, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in transformer.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.5, generator=generator)
    return Model(transformer, tokenizer)
