"""Encoders and decoders of bridges."""

import pytest
import torch

from wirework.errors import InputError
from wirework.nn.bridges import Bridges


class TestEncode:
    def test_keeps_the_largest_magnitudes_of_a_linear_map(self):
        bridges = Bridges(3, 2, 4, act_fraction=0.5)
        with torch.no_grad():
            weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-2.0, 0.0]])
            bridges.encoders[1].weight.copy_(weight)
            bridges.encoders[1].bias.copy_(torch.tensor([0.5, 0.0, 0.0, 0.0]))
        # The map gives 1.5, 3, 4, -2.
        out = bridges.encode(1, torch.tensor([[[1.0, 3.0]]]))
        assert out.tolist() == [[[0.0, 3.0, 4.0, 0.0]]]

    def test_without_a_fraction_keeps_all(self):
        bridges = Bridges(1, 3, 5, act_fraction=None)
        assert bridges.encode(0, torch.randn(2, 4, 3)).count_nonzero() == 2 * 4 * 5

    def test_a_fraction_that_keeps_nothing_is_refused(self):
        with pytest.raises(InputError, match=r"act_fraction 0\.1 keeps nothing of 5 channels"):
            Bridges(1, 3, 5, act_fraction=0.1)


def test_decode_is_linear_with_a_bias():
    bridges = Bridges(2, 3, 5)
    x, layer = torch.randn(2, 4, 5), bridges.decoders[1]
    with torch.no_grad():
        layer.bias.fill_(0.5)
    torch.testing.assert_close(bridges.decode(1, x), x @ layer.weight.T + 0.5)


def test_the_seed_decides_the_initial_weights():
    first, same, other = (Bridges(3, 64, 256, seed=seed) for seed in (0, 0, 1))
    weights = [bridges.encoders[2].weight for bridges in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].std().item() == pytest.approx(0.02 / 8, rel=0.05)
    assert first.decoders[0].weight.std().item() == pytest.approx(1 / 16, rel=0.05)
    assert first.decoders[0].bias.count_nonzero() == 0
