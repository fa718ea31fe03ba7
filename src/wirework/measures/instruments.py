"""Measure one model with all instruments.

An instrument that does not fit a model (a task that its tokeniser cannot encode) gives a reason
instead of numbers; the others are not affected.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework.circuits.path_patching import acdc_sweep, corruption_of, sweep_row
from wirework.config import Instrument, MeasureConfig
from wirework.console import Progress, counted
from wirework.errors import InputError
from wirework.measures.explain import ExplainReport, explain_neurons
from wirework.measures.language import Language
from wirework.measures.measured_text import fixed_windows, prepared_text
from wirework.measures.report import AcdcMeasures, MeasureReport, TaskSkill
from wirework.measures.sae import SaeQuality
from wirework.measures.sae_training import measure_sae
from wirework.measures.sparsity import Sparsity, gate_masks, gate_use
from wirework.measures.text_evaluation import TextStats, evaluate_text
from wirework.renamed_names import old_arguments
from wirework.summaries import NotMeasured, Report
from wirework.tasks import load_task, task_accuracy

if TYPE_CHECKING:
    from wirework.data import Prepared
    from wirework.model import Model


@old_arguments(which="instruments")
def measure(
    model: "Model | str | Path",
    instruments: Sequence[Instrument] | None = None,
    config: MeasureConfig | None = None,
    *,
    data: "Prepared | None" = None,
    progress: bool = True,
) -> MeasureReport:
    """Measure a model.

    Args:
        model: with a tokeniser, for `acdc` and `explain`; a path is loaded.
        instruments: their names; None: those of `config`.
        config: settings of the instruments; None: the defaults.
        data: text prepared with the model's tokeniser; None: the text of the run that the model
            lies in.
        progress: show progress on standard error.

    Returns:
        The numbers of each instrument, or the reason why it does not fit the model; `headline` has
        the numbers of the table.

    Raises:
        InputError: there is no such instrument or task, the task lacks the corruption, or a preset
            is for other models.

    Source: Ferrao et al. 2025 (the table of ablations).
    """
    from wirework.model import load

    config = config or MeasureConfig()
    if instruments is not None:
        config = MeasureConfig.of({**config.model_dump(), "instruments": tuple(instruments)})
    if "acdc" in config.instruments:
        # An unknown task or one without the corruption is an error, one that does not fit is not.
        corruption_of(load_task(config.task), config.acdc)
    measured = _MeasuredModel(load(model), config, data, progress)
    config.check_fits(measured.model.config)
    for name, instrument in (("sae", config.sae), ("explain", config.explain)):
        if name in config.instruments:
            instrument.check_fits(measured.model.config)
    entries: dict[Instrument, Report] = {}
    with Progress("instruments", len(config.instruments), shown=progress, count=counted) as bar:
        for n_measured, name in enumerate(config.instruments):
            bar.update(n_measured, name)
            try:
                entries[name] = _INSTRUMENTS[name](measured)
            except InputError as error:
                entries[name] = NotMeasured(str(error))
    return MeasureReport.of(entries)


@dataclass(frozen=True)
class _MeasuredModel:
    """A model, the settings and the text that it is measured with."""

    model: "Model"
    config: MeasureConfig
    data: "Prepared | None"
    progress: bool

    @cached_property
    def text_stats(self) -> TextStats:
        """Result of one pass over held-out text, shared by the instruments."""
        text = prepared_text(self.model, self.data)
        return evaluate_text(self.model, text.val, self.config.n_tokens)


def _language(measured: _MeasuredModel) -> Language:
    return Language.of(measured.text_stats)


def _sparsity(measured: _MeasuredModel) -> Sparsity:
    model, config = measured.model, measured.config
    sparsity = Sparsity.of(model.transformer, measured.text_stats)
    if model.gates is None:
        return sparsity
    text = prepared_text(model, measured.data).val
    windows = fixed_windows(text, model.config.n_ctx, config.n_tokens)
    masks = gate_masks(model.transformer, model.gates, (inputs for inputs, _ in windows))
    return replace(sparsity, gates=gate_use(masks))


def _acdc(measured: _MeasuredModel) -> AcdcMeasures:
    task, settings = load_task(measured.config.task), measured.config.acdc
    (circuit,) = acdc_sweep(measured.model, task, settings, progress=measured.progress)
    on_task = task_accuracy(measured.model, task)
    skill = TaskSkill(on_task.accuracy, on_task.loss, on_task.logit_difference)
    row: dict[str, Any] = dict(sweep_row(circuit))
    n_all = row.pop("of")
    row["corruption"] = circuit.patching.corruption
    return AcdcMeasures(task=measured.config.task, skill=skill, n_all=n_all, **row)


def _sae(measured: _MeasuredModel) -> SaeQuality:
    settings, text = measured.config.sae, measured.data
    return measure_sae(measured.model, settings, text, measured.progress)[1]


def _explain(measured: _MeasuredModel) -> ExplainReport:
    settings, text = measured.config.explain, measured.data
    return explain_neurons(measured.model, settings, text=text, progress=measured.progress).report


_INSTRUMENTS: dict[Instrument, Callable[[_MeasuredModel], Report]] = {
    "language": _language,
    "sparsity": _sparsity,
    "acdc": _acdc,
    "sae": _sae,
    "explain": _explain,
}
