"""The quality of bridges, on a pair of models between which the exact bridges are known."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hand_wired import quote_closer
from hand_wired.edge_masks import Corpus, Planted
from hand_wired.rotated import exact_pair
from present import present

from wirework.bridges import Bridged, bridge_quality
from wirework.bridges.bridge_quality import BridgeQuality, fitted_maps, map_quality
from wirework.config import ModelConfig
from wirework.errors import InputError
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.bridges import Bridges
from wirework.nn.residual_locations import record_streams


@pytest.fixture(scope="module")
def planted() -> Planted:
    return quote_closer.plant()


@pytest.fixture(scope="module")
def pair(planted: Planted) -> Bridged:
    return exact_pair(planted.model)


@pytest.fixture(scope="module")
def text(planted: Planted) -> Any:
    corpus = Corpus(present(planted.model.tokenizer), planted.task)
    return SimpleNamespace(train=corpus, val=corpus)


@pytest.fixture(scope="module")
def quality(pair: Bridged, planted: Planted, text: Any) -> BridgeQuality:
    return bridge_quality(pair, planted.model, data=text)


NUMBERS = ("encoder_nmse", "decoder_nmse", "kl_dense_to_sparse", "kl_sparse_to_dense")


@pytest.mark.parametrize(
    "maps", ["trained", "fitted afterwards", "fitted to a model trained alone"]
)
def test_exact_maps_lose_nothing(quality: BridgeQuality, maps: str):
    (found,) = [one for one in quality.maps if one.maps == maps]
    assert [location.location for location in found.locations] == [
        "0.attn", "0.mlp", "1.attn", "1.mlp", "unembed",
    ]  # fmt: skip
    for location in found.locations:
        for number in NUMBERS:
            assert getattr(location, number) == pytest.approx(0, abs=1e-3), number
        assert location.loss_dense_to_sparse == pytest.approx(quality.loss_dense, abs=1e-3)
        assert location.loss_sparse_to_dense == pytest.approx(quality.loss_sparse, abs=1e-3)
    assert found.kl_twice_through_sparse == pytest.approx(0, abs=1e-3)
    assert found.kl_twice_through_dense == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("maps", ["untrained", "random orthogonal"])
def test_maps_that_know_nothing_lose_the_stream(quality: BridgeQuality, maps: str):
    (found,) = [one for one in quality.maps if one.maps == maps]
    assert found.mean("encoder_nmse") > 0.5
    assert found.mean("decoder_nmse") > 0.5
    assert found.mean("kl_dense_to_sparse") > 0.01


def test_the_models_own_numbers(quality: BridgeQuality):
    assert quality.loss_sparse == pytest.approx(quality.loss_dense, abs=1e-4)
    assert quality.loss_alone == pytest.approx(quality.loss_sparse)
    assert quality.kl_sparse == pytest.approx(0, abs=1e-4)


def test_the_normalised_mse_is_one_minus_the_explained_variance(pair: Bridged, text: Any):
    """Maps to the mean of each channel explain nothing: 1 at locations with any variance."""
    tokens = torch.from_numpy(text.val.slice(0, 80))[None]
    batches = [(tokens[:, :-1], tokens[:, 1:])]
    maps = Bridges(5, 8, 8)
    _, streams = record_streams(pair.sparse.transformer, batches[0][0])
    with torch.no_grad():
        for encoder, stream in zip(maps.encoders, streams, strict=True):
            encoder.weight.zero_()
            encoder.bias.copy_(stream.mean((0, 1)))
    found = map_quality("means", pair.dense, pair.sparse, maps, batches)
    assert [location.encoder_nmse for location in found.locations] == pytest.approx([1.0] * 5)


def test_fitted_maps_are_those_of_least_squares(pair: Bridged, text: Any):
    tokens = [torch.from_numpy(text.val.slice(80 * i, 80))[None] for i in range(4)]
    maps = fitted_maps(pair.dense.transformer, pair.sparse.transformer, tokens)
    dense, sparse = (
        torch.cat([record_streams(model.transformer, one)[1][2] for one in tokens], 1)[0]
        for model in (pair.dense, pair.sparse)
    )
    with_ones = torch.cat([dense, torch.ones(len(dense), 1)], 1)
    expected = torch.linalg.lstsq(with_ones, sparse, driver="gelsd").solution
    found = maps.encode(2, dense)
    assert torch.allclose(found, with_ones @ expected, atol=0.01)


def test_a_model_that_cannot_stand_in_is_refused(pair: Bridged, text: Any):
    config = ModelConfig(vocab_size=pair.dense.config.vocab_size, n_ctx=80, n_layer=1, d_model=16)
    other = Model(Transformer(config), pair.dense.tokenizer)
    with pytest.raises(InputError, match="2"):
        bridge_quality(pair, other, data=text)
    two = ModelConfig(vocab_size=pair.dense.config.vocab_size, n_ctx=80, n_layer=2, d_model=16)
    without = Model(Transformer(two))
    with pytest.raises(InputError, match="tokeniser"):
        bridge_quality(pair, without, data=text)
