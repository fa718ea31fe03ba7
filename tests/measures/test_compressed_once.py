"""Passes over text compress each sparse weight once, not once a batch."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from wirework.config import ModelConfig, SaeConfig
from wirework.data import Batch, Prepared, Tokenizer, eval_batches
from wirework.measures import evaluate_sae, train_sae
from wirework.measures.explain.collect import distinct_starts, stream
from wirework.measures.explain.record import Neuron
from wirework.measures.sae import sae_lens
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.kernels import sparse_linear
from wirework.studies.token_losses import token_losses

# sae-lens imports a module that transformer-lens has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated")

SITE = "1.mlp.post_act"
BEFORE_SITE = ["0.attn.qkv", "0.attn.out", "0.mlp.up", "0.mlp.down", "1.attn.qkv", "1.attn.out",
               "1.mlp.up"]  # fmt: skip
ALL = [*BEFORE_SITE, "1.mlp.down"]


@pytest.fixture
def sparse_model(tokenizer: Tokenizer) -> Model:
    config = ModelConfig(
        vocab_size=512, n_ctx=32, n_layer=2, d_model=16, d_head=8, bigram=False, act_fraction=None
    )
    transformer = Transformer(config)
    with torch.no_grad():
        for _, weight, _ in transformer.prunable():
            weight.mul_(torch.rand(weight.shape) < 0.2)
    return Model(transformer.requires_grad_(False), tokenizer)


@pytest.fixture
def compressions(sparse_model: Model, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return how often each weight of the model has been compressed, by name."""
    counts: Counter[str] = Counter()
    names = {
        weight.data_ptr(): name.removeprefix("blocks.").removesuffix(".weight")
        for name, weight, _ in sparse_model.transformer.prunable()
    }
    compress = sparse_linear.compressed_rows

    def counted(weight: Tensor, n_entries: int) -> sparse_linear.CompressedRows:
        counts[names[weight.data_ptr()]] += 1
        return compress(weight, n_entries)

    monkeypatch.setenv(sparse_linear.VARIABLE, "1")
    monkeypatch.setattr(sparse_linear, "_MIN_SIZE", 0)
    monkeypatch.setattr(sparse_linear, "compressed_rows", counted)
    return counts


def once(names: list[str]) -> dict[str, int]:
    return dict.fromkeys(names, 1)


def test_while_an_autoencoder_trains(
    sparse_model: Model, text: Prepared, compressions: Counter[str]
) -> None:
    config = SaeConfig(
        site=SITE, tokens=12_800, batch_size=128, expansion=4, buffer=2048, architecture="standard"
    )
    train_sae(sparse_model, config, text)
    assert compressions == once(BEFORE_SITE)


def test_while_an_autoencoder_is_measured(
    sparse_model: Model, text: Prepared, compressions: Counter[str]
) -> None:
    lens = sae_lens()
    width = sparse_model.config.d_mlp
    sae = lens.StandardSAE(lens.StandardSAEConfig(d_in=width, d_sae=8, apply_b_dec_to_input=False))
    evaluate_sae(sparse_model, sae, text.val, site=SITE, n_tokens=8192)
    assert compressions == once([*ALL, "unembed"])


def test_while_excerpts_are_collected(
    sparse_model: Model, text: Prepared, compressions: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wirework.measures.explain.collect._BATCH", 8)
    starts = distinct_starts(text.val, 16, 40, set())
    stream(
        sparse_model.transformer, [Neuron(SITE, 1)], text.val, starts, 16,
        n_top=2, n_random=2, seed=0,
    )  # fmt: skip
    assert compressions == once(BEFORE_SITE)


def test_while_losses_of_tokens_are_computed(
    sparse_model: Model, text: Prepared, compressions: Counter[str]
) -> None:
    batches: list[Batch] = eval_batches(text.val, 32, 2, 3)
    token_losses(sparse_model, batches)
    assert compressions == once([*ALL, "unembed"])
