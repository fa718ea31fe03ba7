import math

import pytest
import torch
from present import present

from wirework.circuits.masking.node_statistics import NodeSums, means_error, node_sums
from wirework.errors import InputError
from wirework.model import Model


def sums_of(windows: list[list[float]]) -> NodeSums:
    """The sums over windows of one node, as a plain loop."""
    totals = [sum(window) for window in windows]
    rows = [
        sum(totals),
        sum(total**2 for total in totals),
        sum(x**2 for window in windows for x in window),
    ]
    weighted = sum(len(window) * total for window, total in zip(windows, totals, strict=True))
    lengths = [len(window) for window in windows]
    return NodeSums(
        {"site": torch.tensor([rows], dtype=torch.float64).T},
        {"site": torch.tensor([weighted], dtype=torch.float64)},
        sum(lengths),
        len(windows),
        sum(length**2 for length in lengths),
    )


class TestNodeSums:
    def test_numbers_by_hand(self) -> None:
        # Windows with the means 2, 4 and 6: mean 4, variance of the means 4, error sqrt(4 / 3).
        # Squared distances of the six values from 4: 9 1 1 1 4 4, so variance 20 / 6.
        sums = sums_of([[1, 3], [3, 5], [6, 6]])
        assert float(sums.means()["site"]) == 4
        assert float(present(sums.errors())["site"]) == pytest.approx(math.sqrt(4 / 3))
        assert float(sums.deviations()["site"]) == pytest.approx(math.sqrt(20 / 6))

    def test_windows_of_other_lengths_count_by_their_tokens(self) -> None:
        # Mean 2 of four tokens; sums of the windows less 2 per token: (5 - 2), (3 - 6).
        sums = sums_of([[5], [1, 1, 1]])
        assert float(sums.means()["site"]) == 2
        assert float(present(sums.errors())["site"]) == pytest.approx(math.sqrt((9 + 9) * 2) / 4)

    def test_parts_add_up(self) -> None:
        whole, parts = (
            sums_of([[1, 3], [3, 5], [6, 6]]),
            sums_of([[1, 3]]) + sums_of([[3, 5], [6, 6]]),
        )
        assert torch.equal(present(whole.errors())["site"], present(parts.errors())["site"])
        assert (parts.n_tokens, parts.n_windows) == (6, 3)

    def test_a_single_window_has_no_error_and_a_constant_no_spread(self) -> None:
        assert sums_of([[1, 3]]).errors() is None
        constant = sums_of([[0.1, 0.1], [0.1, 0.1]])
        assert float(constant.deviations()["site"]) == 0
        assert float(present(constant.errors())["site"]) == pytest.approx(0, abs=1e-8)


def test_sums_over_a_model_are_those_of_its_activations(random_model: Model) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 512, (3, 10), generator=generator) for _ in range(2)]
    sums = node_sums(random_model.transformer, batches)
    _, cache = random_model.run_with_cache(torch.cat(batches), ["1.mlp.post_act"])
    values = cache["1.mlp.post_act"].detach().double()
    of_windows = values.mean(1)  # (6, N)
    errors, deviations = present(sums.errors()), sums.deviations()
    assert torch.allclose(
        errors["1.mlp.post_act"].double(), of_windows.std(0) / math.sqrt(6), atol=1e-6
    )
    deviation = values.flatten(0, 1).std(0, unbiased=False)
    assert torch.allclose(deviations["1.mlp.post_act"].double(), deviation, atol=1e-5)
    assert (sums.n_windows, sums.n_tokens) == (6, 60)
    with pytest.raises(InputError, match="at least one batch"):
        node_sums(random_model.transformer, [])


def test_relative_errors_are_of_channels_that_vary() -> None:
    errors = {"a": torch.tensor([0.1, 0.4]), "b": torch.tensor([0.3, 0.0])}
    deviations = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([1.0, 0.0])}
    found = present(means_error(errors, deviations))
    assert (found.median, found.largest) == (pytest.approx(0.2), pytest.approx(0.3))
    assert found.n_channels == 3
    assert means_error({"b": torch.zeros(2)}, {"b": torch.zeros(2)}) is None
