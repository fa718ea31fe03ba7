import json
from collections.abc import Iterator
from dataclasses import asdict

import pytest
import torch
from present import present
from torch import Tensor

from wirework.config import GatingConfig, ModelConfig
from wirework.data import Prepared, Tokenizer
from wirework.errors import InputError
from wirework.measures import gate_masks, gate_use, sparsity
from wirework.measures.sparsity import mean_abs_weight
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.nn.streams import two_streams


def test_the_mean_weight_leaves_embeddings_out(model: Model, text: Prepared) -> None:
    total = count = everything = entries = 0.0
    for name, weight in model.transformer.state_dict().items():  # tied: the embedding twice
        for value in weight.flatten().tolist():
            everything, entries = everything + abs(value), entries + 1
            if name not in ("embed.weight", "positions.weight", "unembed.weight"):
                total, count = total + abs(value), count + 1
    found = sparsity(model, text.val, 320)
    assert found.mean_abs_weight == pytest.approx(total / count, rel=1e-6)
    assert found.mean_abs_weight_embedded == pytest.approx(everything / entries, rel=1e-6)
    assert found.n_tokens == 320
    assert present(found.log_kurtosis) > 0
    assert json.loads(json.dumps(asdict(found)))["weight_l0"] == found.weight_l0


def test_an_untied_unembedding_and_the_bigram_table_are_left_out_too() -> None:
    config = ModelConfig(vocab_size=8, d_model=4, d_head=4, n_layer=1, act_fraction=None)
    transformer = Transformer(config)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.fill_(-2)
        for left_out in (transformer.embed.weight, transformer.unembed.weight, transformer.bigram):
            present(left_out).fill_(100)
    assert mean_abs_weight(transformer) == 2


def test_weights_and_neurons_are_counted(text: Prepared, tokenizer: Tokenizer) -> None:
    config = ModelConfig(
        vocab_size=512, n_ctx=32, n_layer=2, d_model=16, d_head=8, activation="relu",
        act_fraction=None,
    )  # fmt: skip
    transformer = Transformer(config, seed=1)
    down = transformer.blocks[1].mlp.up
    with torch.no_grad():
        down.weight[5:8] = 0
        down.bias[5:8] = -1  # never on
    found = sparsity(Model(transformer, tokenizer), text.val, 320)
    assert found.dead_neurons_by_layer == (0, 3)
    assert found.dead_neurons == 3
    entries = [p.parameter for p in transformer.prunable()]
    assert found.weight_l0 == sum(int((entry != 0).sum()) for entry in entries)
    assert found.weight_l0_fraction == found.weight_l0 / sum(entry.numel() for entry in entries)


def test_gate_use_by_hand() -> None:
    def masks() -> Iterator[tuple[Tensor, Tensor]]:
        # Two batches of one sequence of two tokens, one layer, two attention units, three neurons.
        yield (
            torch.tensor([[[[1.0, 0.0]], [[1.0, 0.0]]]]),
            torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]]),
        )
        yield (
            torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]]),
            torch.tensor([[[[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]]]),
        )

    found = gate_use(masks())
    assert found.attention_live_fraction == ((0.75, 0.0),)
    assert found.neuron_live_fraction == ((0.75, 0.25, 0.0),)
    assert found.live_fraction == pytest.approx((0.75 + 0.75 + 0.25) / 5)
    assert found.dead_attention_units == (1,)
    assert found.dead_neurons == (1,)
    assert found.dead_units == 2
    assert found.n_tokens == 4
    with pytest.raises(InputError, match="at least one batch"):
        gate_use([])


@pytest.mark.parametrize("level", ["local", "global", "both"])
def test_masks_are_those_of_both_streams(model: Model, level: str) -> None:
    gates = Gates(model.config, GatingConfig(level=level, k_attention=2, k_neurons=3), seed=5)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 512, (2, 10), generator=generator) for _ in range(2)]
    for (attention, neurons), tokens in zip(
        gate_masks(model.transformer, gates, batches), batches, strict=True
    ):
        streams = two_streams(model.transformer, gates, tokens)
        assert torch.equal(attention, streams.attention_masks)
        assert torch.equal(neurons, streams.neuron_masks)
    found = gate_use(gate_masks(model.transformer, gates, batches))
    assert found.live_fraction == pytest.approx((2 + 3) / (16 + 24))
    assert found.n_tokens == 40
