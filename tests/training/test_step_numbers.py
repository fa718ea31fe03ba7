import pytest
import torch

from wirework.training import Prior
from wirework.training.step_numbers import EarlierNaNError, read_numbers


def prior_with(flag: bool) -> Prior:
    prior = Prior()
    prior.nan_flag = torch.tensor(flag)
    return prior


def test_tensors_and_floats_are_read_exactly_and_in_order():
    tenth = torch.tensor(0.1)
    values = {"loss": tenth, "l0": 0.3, "wide": torch.tensor([1 / 3], dtype=torch.float64)}
    numbers = read_numbers(values, [Prior(), prior_with(False)])
    assert numbers == {"loss": tenth.item(), "l0": 0.3, "wide": 1 / 3}
    assert list(numbers) == ["loss", "l0", "wide"]
    assert read_numbers({}) == {}


@pytest.mark.parametrize("bad", [torch.tensor(torch.inf), float("nan")])
def test_what_is_not_finite_is_named(bad):
    with pytest.raises(ValueError, match=r"rms is (inf|nan)"):
        read_numbers({"loss": torch.tensor(1.0), "rms": bad})


def test_a_flag_comes_before_the_losses_that_it_spoilt():
    with pytest.raises(EarlierNaNError, match="NaN"):
        read_numbers({"loss": torch.tensor(torch.nan)}, [prior_with(True)])


def test_a_nan_in_abs_top_k_is_found_with_finite_losses():
    scalars = [torch.tensor(1.0), torch.tensor(torch.nan, dtype=torch.bfloat16)]
    values = {"loss": torch.tensor(2.0)}
    assert read_numbers(values, [prior_with(False)], scalars[:1]) == {"loss": 2.0}
    with pytest.raises(ValueError, match="AbsTopK got NaN") as caught:
        read_numbers(values, [prior_with(False)], scalars)
    assert not isinstance(caught.value, EarlierNaNError)
