"""One model, all instruments: the numbers that are set side by side.

An instrument that a model does not fit, such as a behaviour that its tokeniser cannot carry, gives
a reason and leaves the others alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework import summaries
from wirework.circuits.path_patching import acdc_sweep, sweep_row
from wirework.config import Instrument, MeasureConfig
from wirework.console import Progress, counted
from wirework.errors import InputError
from wirework.measures.explain import explain_neurons
from wirework.measures.language import Language
from wirework.measures.sae_training import measure_sae
from wirework.measures.sparsity import Sparsity, gate_masks, gate_use
from wirework.measures.text import fixed_windows, prepared_text
from wirework.measures.text_evaluation import TextStats, evaluate_text
from wirework.tasks import load_task, task_accuracy

if TYPE_CHECKING:
    from wirework.data import Prepared
    from wirework.model import Model

Report = dict[str, Any]


class MeasureReport(summaries.DictReport):
    """The numbers of every instrument by its name, as `measure` returns them."""

    kind = "MeasureReport"

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the table that there are, and why an instrument has none."""
        numbers = {name: value for name, value in self["headline"].items() if value is not None}
        return {**numbers, **{f"no {name}": why for name, why in reasons(self).items()}}


COLUMNS: dict[str, tuple[str, ...]] = {
    "perplexity": ("language", "perplexity"),
    "path_edges": ("acdc", "n_path_edges"),
    "task_accuracy": ("acdc", "skill", "accuracy"),
    "sae_l0": ("sae", "sae_l0"),
    "ce_score": ("sae", "ce_score"),
    "explanation_score": ("explain", "scores", "top_and_random", "mean"),
    "mean_abs_weight": ("sparsity", "mean_abs_weight"),
    "mean_abs_weight_embedded": ("sparsity", "mean_abs_weight_embedded"),
    "weight_l0": ("sparsity", "weight_l0"),
    "gate_live_fraction": ("sparsity", "gates", "live_fraction"),
    "dead_units": ("sparsity", "gates", "dead_units"),
}
"""The numbers of the table, and where a report holds each."""


def measure(
    model: "Model | str | Path",
    which: Sequence[Instrument] | None = None,
    config: MeasureConfig | None = None,
    *,
    data: "Prepared | None" = None,
    progress: bool = True,
) -> MeasureReport:
    """Measure a model.

    Args:
        model: with a tokeniser, for `acdc` and `explain`; a path is loaded.
        which: instruments; None: those of `config`.
        config: their settings; None for the defaults.
        data: text that its tokeniser prepared; None: that of the run which the model lies in.
        progress: show progress on standard error.

    Returns:
        JSON: of each instrument its numbers, or a `reason` where the model cannot be measured so;
        `headline`, the numbers of the table by their names in `COLUMNS`, None where there is none.

    Raises:
        InputError: an instrument or a behaviour that does not exist.

    Source: Ferrao et al. 2025 (the table of ablations).
    """
    from wirework.model import load

    config = config or MeasureConfig()
    if which is not None:
        config = MeasureConfig.of({**config.model_dump(), "which": tuple(which)})
    if "acdc" in config.which:
        load_task(config.task)  # one that does not exist is a mistake, one that does not fit is not
    measured = _MeasuredModel(load(model), config, data, progress)
    report: Report = {}
    with Progress("instruments", len(config.which), shown=progress, count=counted) as bar:
        for n_measured, name in enumerate(config.which):
            bar.update(n_measured, name)
            try:
                report[name] = _INSTRUMENTS[name](measured)
            except InputError as error:
                report[name] = {"reason": str(error)}
    return MeasureReport({"headline": headline(report), **report})


def reasons(report: Mapping[str, Any]) -> dict[Instrument, str]:
    """Return why instruments of a report have no numbers, of those that have none."""
    return {
        name: report[name]["reason"] for name in _INSTRUMENTS if "reason" in report.get(name, {})
    }


def headline(report: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers of the table; None where a report has none."""
    return {name: _at(report, path) for name, path in COLUMNS.items()}


def _at(values: Any, path: Sequence[str]) -> float | None:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values if isinstance(values, int | float) and math.isfinite(values) else None


@dataclass(frozen=True)
class _MeasuredModel:
    """A model and what it is measured with."""

    model: "Model"
    config: MeasureConfig
    data: "Prepared | None"
    progress: bool

    @cached_property
    def seen(self) -> TextStats:
        """What a pass over held-out text saw, the same one for all who ask."""
        return evaluate_text(
            self.model, prepared_text(self.model, self.data).val, self.config.n_tokens
        )


def _language(measured: _MeasuredModel) -> Report:
    return asdict(Language.of(measured.seen))


def _sparsity(measured: _MeasuredModel) -> Report:
    model, config = measured.model, measured.config
    found = asdict(Sparsity.of(model.transformer, measured.seen))
    if model.gates is None:
        return found
    batches = fixed_windows(
        prepared_text(model, measured.data).val, model.config.n_ctx, config.n_tokens
    )
    masks = gate_masks(model.transformer, model.gates, (inputs for inputs, _ in batches))
    return {**found, "gates": asdict(gate_use(masks))}


def _acdc(measured: _MeasuredModel) -> Report:
    task, settings = load_task(measured.config.task), measured.config.acdc
    (circuit,) = acdc_sweep(measured.model, task, settings, progress=measured.progress)
    known = task_accuracy(measured.model, task)
    return {
        "task": measured.config.task,
        "skill": {name: getattr(known, name) for name in ("accuracy", "loss", "logit_difference")},
        **sweep_row(circuit),
    }


def _sae(measured: _MeasuredModel) -> Report:
    found = measure_sae(measured.model, measured.config.sae, measured.data, measured.progress)
    return asdict(found[1])


def _explain(measured: _MeasuredModel) -> Report:
    settings, text = measured.config.explain, measured.data
    return explain_neurons(
        measured.model, settings, text=text, progress=measured.progress
    ).summary()


_INSTRUMENTS: dict[Instrument, Callable[[_MeasuredModel], Report]] = {
    "language": _language,
    "sparsity": _sparsity,
    "acdc": _acdc,
    "sae": _sae,
    "explain": _explain,
}
