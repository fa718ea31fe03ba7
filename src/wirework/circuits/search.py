"""The search over pruning settings: trials drawn around the paper's centres, several at a time.

Source: Gao et al. 2025, App. A.5 (centres; 256 trials in rounds of 8 there).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from wirework.circuits.masks import MaskSettings
from wirework.config import PruneConfig

if TYPE_CHECKING:
    import optuna

_RANGES = {
    "k_coef": 10.0,
    "init_noise_scale": 3.0,
    "init_noise_bias": 3.0,
    "weight_decay": 3.0,
    "lr": 3.0,
    "inv_beta2": 2.0,
    "heaviside_temp": 2.0,
}
"""Each setting is drawn log-uniformly between its centre over and its centre times this factor."""

_BELOW_ONE = {"inv_beta2": 0.99}
"""Shares: their draws end here, or at the centre where that is larger."""


def centre(config: PruneConfig) -> MaskSettings:
    """Return the settings around which the search draws."""
    return MaskSettings(
        k_coef=config.k_coef,
        init_noise_scale=config.init_noise_scale,
        init_noise_bias=config.init_noise_bias,
        weight_decay=config.weight_decay,
        lr=config.lr,
        inv_beta2=config.inv_beta2,
        lr_warmup=config.lr_warmup,
        heaviside_temp=config.heaviside_temp,
    )


def search(
    config: PruneConfig, try_all: Callable[[Sequence[int], Sequence[MaskSettings]], list[float]]
) -> None:
    """Run `config.trials` trials, `config.parallel` at a time, the first one at the centre.

    A pure function of the config and of what `try_all` returns.

    Args:
        config: how many trials, and the centres.
        try_all: gets the numbers and the settings of some trials and returns the size of the
            circuit that each finds, lower is better.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=config.seed, n_startup_trials=config.parallel)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(asdict(centre(config)))
    for first in range(0, config.trials, config.parallel):
        numbers = range(first, min(first + config.parallel, config.trials))
        trials = [study.ask() for _ in numbers]
        sizes = try_all(numbers, [_draw(trial, config) for trial in trials])
        for trial, size in zip(trials, sizes, strict=True):
            study.tell(trial, size)


def _draw(trial: "optuna.Trial", config: PruneConfig) -> MaskSettings:
    """Draw one trial's settings; what is not above zero at the centre stays as it is."""
    base = centre(config)
    drawn = {
        name: trial.suggest_float(name, value / factor, _highest(name, value, factor), log=True)
        for name, factor in _RANGES.items()
        if (value := getattr(base, name)) > 0
    }
    return replace(base, **drawn)


def _highest(name: str, value: float, factor: float) -> float:
    return min(value * factor, max(value, _BELOW_ONE.get(name, math.inf)))
