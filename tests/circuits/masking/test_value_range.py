"""Ranges of nodes against the lowest and highest of all recorded activations."""

import pytest
import torch

from wirework.circuits import Ablation
from wirework.circuits.masking.activation_cache import activation_cache
from wirework.circuits.masking.value_range import ValueRange, value_range_on
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs


class TestValueRange:
    def test_it_is_that_of_all_tokens(self, ablation: Ablation, rows: TokenizedPairs) -> None:
        found = value_range_on(ablation.transformer, rows.tokens.split(5))
        every = activation_cache(ablation.transformer, [rows.tokens], rows.tokens.numel())
        values = ablation.space.join(every)
        assert torch.allclose(found.low, values.amin(0), atol=1e-6)
        assert torch.allclose(found.high, values.amax(0), atol=1e-6)

    def test_it_is_widened_to_further_values(self) -> None:
        low, high = torch.zeros(3), torch.ones(3)
        found = ValueRange(low, high).widened(torch.tensor([-2.0, 0.5, 3.0]))
        assert found.low.tolist() == [-2, 0, 0]
        assert found.high.tolist() == [1, 1, 3]

    def test_it_needs_text(self, ablation: Ablation) -> None:
        with pytest.raises(InputError, match="needs at least one token of training text"):
            value_range_on(ablation.transformer, [])
