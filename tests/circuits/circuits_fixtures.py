import pytest
import torch
from hand_wired import Corpus
from hand_wired.quote_closer import quote_closer

from wirework.circuits import Ablation, node_means
from wirework.config import ModelConfig
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.nn import Transformer
from wirework.tasks import Task, TokenizedPairs, load_task


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def task() -> Task:
    return load_task("single_double_quote", n=96)


@pytest.fixture(scope="session")
def wired(tokenizer: Tokenizer, task: Task) -> Model:
    return quote_closer(tokenizer, task)


@pytest.fixture(scope="session")
def corpus(tokenizer: Tokenizer, task: Task) -> Corpus:
    return Corpus(tokenizer, task)


@pytest.fixture(scope="session")
def random_model(tokenizer: Tokenizer) -> Model:
    """Two layers of random sparse weights, with AbsTopK, sinks and concatenated positions."""
    config = ModelConfig(
        vocab_size=512, n_ctx=80, n_layer=2, d_model=16, d_head=8, d_mlp=24, act_fraction=0.5,
        positions="concat", d_pos=4,
    )  # fmt: skip
    transformer = Transformer(config, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if weight.dim() == 2 and name != "bigram":
                weight.normal_(0, 0.5, generator=generator)
                weight.mul_(torch.rand(weight.shape, generator=generator) < 0.3)
    return Model(transformer, tokenizer)


@pytest.fixture(scope="session")
def rows(random_model: Model, task: Task) -> TokenizedPairs:
    return task.take(task.pairs[:12]).encode(random_model.tokenizer, 80)


@pytest.fixture(scope="session")
def ablation(random_model: Model, rows: TokenizedPairs) -> Ablation:
    means = node_means(random_model.transformer, [rows.tokens])
    return Ablation.of(random_model.transformer, means)
