"""Hyperparameter search for pruning: rounds of trials drawn around the paper's settings.

An optuna study records the trials, on disk if a folder is given, so that an interrupted search
resumes after its last complete round. Source: Gao et al. 2025, App. A.5 (central values; 256 trials
in rounds of 8). Stopping the worse half of the trials early is ours.
"""

import math
import warnings
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
"""Each setting is drawn log-uniformly from its centre / factor to its centre x factor."""

_BELOW_ONE = {"inv_beta2": 0.99, "lr_warmup": 0.9}
"""Upper limits of settings that are fractions; a larger centre replaces the limit."""

STUDY_FILE = "study.log"
"""Journal of the study in the folder of a search."""

_LAST_SIZES = "told.json"
"""Sizes of the last round's trials. The study takes them one trial at a time; if this is
interrupted, the file has those that are missing."""


def centre(config: PruneConfig) -> MaskSettings:
    """Return the central settings of the search."""
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
    """Trials that are trained together."""

    first: int
    """Number of trials before this round."""
    study: "optuna.Study"
    folder: Path | None
    """Folder of the study; None if it is kept in memory."""
    trials: "list[optuna.Trial]"
    settings: list[MaskSettings]
    """Hyperparameters of each trial."""

    def in_better_half(
        self, step: int, running: Sequence[int], sizes: Sequence[float]
    ) -> list[bool]:
        """Report sizes at a rung; return which trials are in the better half of all at this rung.

        Args:
            step: training steps done.
            running: indices in this round of the trials that are still training.
            sizes: size of the circuit that each of them gives now; lower is better.
        """
        from optuna.trial import TrialState

        for index, size in zip(running, sizes, strict=True):
            self.trials[index].report(size, step)
        trials = [t for t in self.study.get_trials(False) if t.state != TrialState.FAIL]
        reported = [t.intermediate_values[step] for t in trials if step in t.intermediate_values]
        return [size <= median(reported) for size in sizes]

    def tell(self, sizes: Sequence[float | None]) -> None:
        """End the round.

        If this is interrupted, the resumed search completes the round from the saved sizes.

        Args:
            sizes: size of each trial's circuit; None for a trial that was stopped early.
        """
        by_number = {trial.number: size for trial, size in zip(self.trials, sizes, strict=True)}
        if self.folder is not None:
            write_record(self.folder / _LAST_SIZES, {"sizes": by_number})
        for number, size in by_number.items():
            _tell(self.study, number, size)


def n_finished(folder: Path) -> int:
    """Return how many trials of the study in a folder were fully trained; 0 without a study.

    Raises:
        InputError: the study is damaged.
    """
    if not is_file(folder / STUDY_FILE):
        return 0
    study = _study(folder)  # imports optuna first, quietly
    from optuna.trial import TrialState

    _end_last_round(study, folder)
    return len(study.get_trials(False, (TrialState.COMPLETE,)))


def rounds(config: PruneConfig, folder: Path | None = None) -> Iterator[Round]:
    """Yield `config.trials` trials, `config.parallel` at a time, the first one at the centre.

    Each round must be told its sizes before the next one is drawn. The draws are a pure function of
    the config and these sizes.

    Args:
        config: number of trials and central settings.
        folder: folder of the study; None to keep it in memory. Complete rounds in it are not
            yielded again.

    Raises:
        InputError: the study is damaged.
    """
    study = _study(folder)  # imports optuna first, quietly
    from optuna.trial import TrialState

    _end_last_round(study, folder)
    first = _n_done(study)
    while first < config.trials:
        count = min(config.parallel, config.trials - first)
        # A new sampler per round, so that a resumed search draws the same.
        study.sampler = _sampler(config, first)
        if not first and not study.get_trials(False, (TrialState.WAITING,)):
            study.enqueue_trial(asdict(centre(config)))
        trials = [study.ask() for _ in range(count)]
        yield Round(first, study, folder, trials, [_draw(trial, config) for trial in trials])
        first += count


def _sampler(config: PruneConfig, first: int) -> "optuna.samplers.BaseSampler":
    """Return the sampler of a round that `first` trials precede."""
    import optuna

    seed = (config.seed * 100_003 + first) % 2**32  # numpy takes no larger one
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.parallel)


def _study(folder: Path | None) -> "optuna.Study":
    """Return the study saved in a folder, or a new one; None keeps it in memory."""
    with warnings.catch_warnings():
        # tqdm, which optuna imports, asks for ipywidgets in a notebook; no bar of its is shown.
        warnings.filterwarnings("ignore", message="IProgress not found")
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
    # Raised by optuna for a damaged line of an older version, which wrote no checksums.
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise DamagedError(f"{path} is damaged ({error}): delete {folder} to search anew") from None


def _n_done(study: "optuna.Study") -> int:
    """Return how many trials have ended, completely or early."""
    from optuna.trial import TrialState

    return len(study.get_trials(False, (TrialState.COMPLETE, TrialState.PRUNED)))


def _end_last_round(study: "optuna.Study", folder: Path | None) -> None:
    """End an interrupted round: with its saved sizes, or else by marking its trials as failed."""
    from optuna.trial import TrialState

    path = None if folder is None else folder / _LAST_SIZES
    sizes = (
        read_record(path, {"sizes": dict})["sizes"] if path is not None and is_file(path) else {}
    )
    for trial in study.get_trials(False, (TrialState.RUNNING,)):
        if str(trial.number) in sizes:
            _tell(study, trial.number, sizes[str(trial.number)])
        else:
            study.tell(trial.number, state=TrialState.FAIL)


def _tell(study: "optuna.Study", number: int, size: float | None) -> None:
    """End one trial of the study; without a size it was stopped early."""
    from optuna.trial import TrialState

    study.tell(number, size, TrialState.PRUNED if size is None else TrialState.COMPLETE)


def _draw(trial: "optuna.Trial", config: PruneConfig) -> MaskSettings:
    """Draw one trial's settings; a setting with a centre of 0 stays 0."""
    base = centre(config)
    drawn = {
        name: trial.suggest_float(name, value / factor, _highest(name, value, factor), log=True)
        for name, factor in _RANGES.items()
        if (value := getattr(base, name)) > 0
    }
    return replace(base, **drawn)


def _highest(name: str, value: float, factor: float) -> float:
    """Return the upper limit of a setting with this centre."""
    return min(value * factor, max(value, _BELOW_ONE.get(name, math.inf)))
