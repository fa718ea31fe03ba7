"""The search over pruning settings: trials drawn around the paper's centres, several at a time.

A study of optuna's holds what was tried, on disk if a folder is given, so that a search that was
cut off goes on after its last whole round. Source: Gao et al. 2025, App. A.5 (centres; 256 trials
in rounds of 8 there). Stopping the worse half early is ours.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from wirework.circuits.pruning.learned_masks import MaskSettings
from wirework.config import PruneConfig
from wirework.errors import DamagedError, InputError
from wirework.files import is_file, read_record, write_record

if TYPE_CHECKING:
    import optuna

_RANGES = {
    "k_coef": 10.0,
    "init_noise_scale": 3.0,
    "init_noise_bias": 3.0,
    "weight_decay": 3.0,
    "lr": 3.0,
    "inv_beta2": 2.0,
    "lr_warmup": 3.0,
    "heaviside_temp": 2.0,
}
"""Each setting is drawn log-uniformly between its centre over and its centre times this factor."""

_BELOW_ONE = {"inv_beta2": 0.99, "lr_warmup": 0.9}
"""Shares: their draws end here, or at the centre where that is larger."""

STUDY_FILE = "study.log"

_TOLD = "told.json"
"""The sizes of the last round, by trial, written at once: the study is told of one at a time."""


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


@dataclass(frozen=True)
class Round:
    """Some trials that share each forward pass."""

    first: int
    """How many trials came before."""
    study: "optuna.Study"
    folder: Path | None
    trials: "list[optuna.Trial]"
    settings: list[MaskSettings]

    def promising(self, step: int, which: Sequence[int], sizes: Sequence[float]) -> list[bool]:
        """Note sizes at a rung; return which trials are in the better half of all that came there.

        Args:
            step: how far the trials are trained.
            which: places of the trials in this round.
            sizes: of the circuit that each would give now, lower is better.
        """
        from optuna.trial import TrialState

        for place, size in zip(which, sizes, strict=True):
            self.trials[place].report(size, step)
        seen = [t for t in self.study.get_trials(False) if t.state != TrialState.FAIL]
        values = [t.intermediate_values[step] for t in seen if step in t.intermediate_values]
        return [size <= median(values) for size in sizes]

    def tell(self, sizes: Sequence[float | None]) -> None:
        """End the round with the size of each trial's circuit, None for those that were stopped.

        Cut off here, the round is told to its end when the search goes on.
        """
        told = {trial.number: size for trial, size in zip(self.trials, sizes, strict=True)}
        if self.folder is not None:
            write_record(self.folder / _TOLD, {"sizes": told})
        for number, size in told.items():
            _tell(self.study, number, size)


def n_finished(folder: Path) -> int:
    """Return how many trials of the study in a folder were trained to their end; 0 of no study.

    Raises:
        InputError: the study is damaged.
    """
    from optuna.trial import TrialState

    if not is_file(folder / STUDY_FILE):
        return 0
    study = _study(folder)
    _end_last_round(study, folder)
    return len(study.get_trials(False, (TrialState.COMPLETE,)))


def rounds(config: PruneConfig, folder: Path | None = None) -> Iterator[Round]:
    """Yield `config.trials` trials, `config.parallel` at a time, the first one at the centre.

    Each round must be told its sizes before the next is drawn. What is drawn is a pure function of
    the config and of what was told.

    Args:
        config: how many trials, and the centres.
        folder: where the study lies; None to keep it in memory. Rounds that it holds whole are not
            yielded again.

    Raises:
        InputError: the study is damaged.
    """
    from optuna.trial import TrialState

    study = _study(folder)
    _end_last_round(study, folder)
    first = _n_done(study)
    while first < config.trials:
        count = min(config.parallel, config.trials - first)
        # A sampler of its own for each round, so that it draws the same after a restart.
        study.sampler = _sampler(config, first)
        if not first and not study.get_trials(False, (TrialState.WAITING,)):
            study.enqueue_trial(asdict(centre(config)))
        trials = [study.ask() for _ in range(count)]
        yield Round(first, study, folder, trials, [_draw(trial, config) for trial in trials])
        first += count


def _sampler(config: PruneConfig, first: int) -> "optuna.samplers.BaseSampler":
    import optuna

    seed = config.seed * 100_003 + first
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.parallel)


def _study(folder: Path | None) -> "optuna.Study":
    """Return the study that a folder holds, or a new one; None keeps it in memory."""
    import optuna
    from optuna.storages import JournalStorage

    from wirework.circuits.pruning.journal import Journal

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if folder is None:
        return optuna.create_study(study_name="prune")
    path = folder / STUDY_FILE
    journal = Journal(path)
    try:
        study = optuna.create_study(
            storage=JournalStorage(journal), study_name="prune", load_if_exists=True
        )
        study.get_trials(deepcopy=False)
        return study
    except InputError:
        raise
    # What optuna makes of a damaged line of an older version, which wrote no checksums.
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise DamagedError(f"{path} is damaged ({error}): delete {folder} to search anew") from None


def _n_done(study: "optuna.Study") -> int:
    from optuna.trial import TrialState

    return len(study.get_trials(False, (TrialState.COMPLETE, TrialState.PRUNED)))


def _end_last_round(study: "optuna.Study", folder: Path | None) -> None:
    """End a round that was cut off: by its sizes if they are known, else set its trials aside."""
    from optuna.trial import TrialState

    path = None if folder is None else folder / _TOLD
    known = (
        read_record(path, {"sizes": dict})["sizes"] if path is not None and is_file(path) else {}
    )
    for trial in study.get_trials(False, (TrialState.RUNNING,)):
        if str(trial.number) in known:
            _tell(study, trial.number, known[str(trial.number)])
        else:
            study.tell(trial.number, state=TrialState.FAIL)


def _tell(study: "optuna.Study", number: int, size: float | None) -> None:
    from optuna.trial import TrialState

    study.tell(number, size, TrialState.PRUNED if size is None else TrialState.COMPLETE)


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
