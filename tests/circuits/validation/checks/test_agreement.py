import pytest
import torch
from present import present

from wirework.circuits.validation.checks import MaskedCircuit, agreement, last_pattern
from wirework.nn import causal_attention
from wirework.tasks import TokenizedPairs


@pytest.mark.parametrize("window", [None, 3, 50])
@pytest.mark.parametrize("sink", [None, torch.tensor([0.3, -2.0])])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_the_pattern_times_v_is_what_attention_gives(window, sink, scale) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(3, 4, 2, 7, 5, generator=generator)
    at = torch.tensor([6, 0, 3, 5])
    pattern = last_pattern(q, k, at, sink=sink, scale=scale, window=window)
    expected = causal_attention(q, k, v, sink=sink, scale=scale, window=window)
    found = torch.einsum("bht,bhtk->bhk", pattern[..., :7], v)
    assert torch.allclose(found, expected[torch.arange(4), :, at], atol=1e-5)
    assert torch.allclose(pattern.sum(-1), torch.ones(4, 2))
    assert pattern.shape == (4, 2, 7 if sink is None else 8)


def test_all_nodes_agree_with_the_model(everything: MaskedCircuit, rows: TokenizedPairs) -> None:
    found = agreement(everything, rows)
    assert found.kl == pytest.approx(0, abs=1e-9)
    assert found.top1 == 1
    assert found.attention == pytest.approx(0, abs=1e-6)
    assert [(head.layer, head.head) for head in found.heads] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_numbers_are_those_of_plain_definitions(some: MaskedCircuit, rows: TokenizedPairs) -> None:
    transformer = some.transformer
    sites = ["1.attn.q", "1.attn.k"]
    with torch.no_grad():
        whole, before = transformer.record(rows.tokens, sites)
        with some.on():
            cut, after = transformer.record(rows.tokens, sites)
    ends = torch.arange(len(rows.last_positions)), rows.last_positions
    p, q = whole[ends].double().softmax(-1), cut[ends].double().softmax(-1)
    found = agreement(some, rows)
    assert found.kl == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-5)
    assert found.top1 == float((p.argmax(1) == q.argmax(1)).double().mean())
    total = 0.0
    for row, end in enumerate(rows.last_positions.tolist()):
        looks = []
        for values in (before, after):
            query = values["1.attn.q"][row, end, 8:]
            scores = [
                float(query @ values["1.attn.k"][row, t, 8:]) / 8**0.5 for t in range(end + 1)
            ]
            scores.append(float(present(transformer.blocks[1].attn.sink)[1].detach()))
            looks.append(torch.tensor(scores, dtype=torch.float64).softmax(0))
        total += float((looks[0] - looks[1]).abs().sum()) / 2
    head = next(head for head in found.heads if (head.layer, head.head) == (1, 1))
    assert head.distance == pytest.approx(total / len(rows.last_positions), abs=1e-5)


def test_heads_are_those_with_a_kept_channel(
    planted: MaskedCircuit, wired_ablation, quotes: TokenizedPairs
) -> None:
    found = agreement(planted, quotes)
    # The planted query rests at its mean, which is its value, and the key is kept.
    assert [(head.layer, head.head) for head in found.heads] == [(0, 0)]
    assert present(found.attention) < 0.05
    assert found.kl > 0.01  # wires beside the circuit move other tokens' logits
    nothing = MaskedCircuit.of(wired_ablation, torch.zeros(wired_ablation.space.size))
    assert agreement(nothing, quotes).attention is None
