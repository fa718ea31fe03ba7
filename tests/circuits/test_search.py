import optuna
import pytest

from wirework.circuits.masks import MaskSettings
from wirework.circuits.search import centre, search
from wirework.config import PruneConfig


def tried(config: PruneConfig) -> list[MaskSettings]:
    """Return what a search tries where later trials are the smaller ones."""
    seen: list[MaskSettings] = []

    def try_all(numbers, settings):
        assert list(numbers) == list(range(len(seen), len(seen) + len(settings)))
        seen.extend(settings)
        return [-float(number) for number in numbers]

    search(config, try_all)
    return seen


def test_the_first_trial_is_the_centre_and_every_trial_counts(monkeypatch) -> None:
    told = []
    tell = optuna.Study.tell

    def note(study, trial, size):
        told.append((trial.number, size))
        return tell(study, trial, size)

    monkeypatch.setattr(optuna.Study, "tell", note)
    config = PruneConfig(trials=7, parallel=3)
    seen = tried(config)
    assert seen[0] == centre(config)
    assert told == [(number, -float(number)) for number in range(7)]
    for name in ("k_coef", "init_noise_scale", "init_noise_bias", "weight_decay", "lr"):
        assert len({getattr(one, name) for one in seen}) == 7


def test_shares_stay_below_one_and_zeros_stay_zero() -> None:
    seen = tried(PruneConfig(trials=12, inv_beta2=0.9, init_noise_bias=0, weight_decay=0))
    assert all(0 < one.inv_beta2 < 1 for one in seen)
    assert {(one.init_noise_bias, one.weight_decay) for one in seen} == {(0, 0)}


@pytest.mark.parametrize("share", [0.99, 0.999])
def test_a_centre_at_the_end_of_its_range_is_tried(share: float) -> None:
    assert tried(PruneConfig(trials=2, inv_beta2=share))[0].inv_beta2 == share
