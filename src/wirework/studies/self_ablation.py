"""Does self-ablation make a model easier to read? Train plain and gated models, measure, compare.

The study's folder holds `results.json`, `table.md`, `table.csv` and `self_ablation.png` (all
small), `runs/NAME` (the training runs) and `cells/NAME.json` (the report of each model). A stopped
call is resumed; a call on a finished study only draws the figure again.
Source: Ferrao et al. 2025, the table of ablations.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from wirework.circuits.path_patching import corruption_of
from wirework.config import GatingConfig, MeasureConfig, SelfAblationConfig, TrainConfig, changes
from wirework.console import Progress, counted, say
from wirework.data import record_text, text_for_runs
from wirework.errors import DamagedError, InputError
from wirework.files import (
    check_place,
    is_file,
    locked,
    names_in,
    read_record,
    write_record,
    write_text,
)
from wirework.leftovers import clear_held
from wirework.measures import default_site, headline, measure, reasons, sae
from wirework.measures.explain import openai_client
from wirework.measures.explain.choose import choose_neurons, excerpt_length
from wirework.measures.explain.explain_job import HARMLESS as HARMLESS_TO_EXPLAIN
from wirework.measures.explain.explain_job import PRIVATE
from wirework.nn import Transformer
from wirework.nn.shapes import check_memory
from wirework.nn.sites import look_up
from wirework.parallel import parallel_map
from wirework.studies.ablation_table import (
    AblationRow,
    ClaimVerdict,
    claims,
    csv_table,
    markdown_table,
    rows_of,
)
from wirework.studies.manifest import machine_facts
from wirework.studies.points import portable
from wirework.summaries import Report
from wirework.tasks import Task, load_task
from wirework.training import train
from wirework.training.run_folder import CHANGEABLE_SETTINGS as HARMLESS_TO_TRAIN
from wirework.view import write_self_ablation_figure

_KIND = "self-ablation"
_HARMLESS = {
    *(f"train.{name}" for name in HARMLESS_TO_TRAIN if name != "data.tokenizer"),
    *(f"measure.explain.{name}" for name in HARMLESS_TO_EXPLAIN),
}
"""Settings that may change between the calls that resume a study."""


@dataclass(frozen=True)
class Variant:
    """A model of the study."""

    seed: int
    level: str | None = None
    """None: the plain model."""
    k: int | None = None

    @property
    def name(self) -> str:
        """Name of its run and its report."""
        kind = "plain" if self.level is None else f"{self.level}-k{self.k}"
        return f"{kind}-seed{self.seed}"


def variants(study: SelfAblationConfig) -> list[Variant]:
    """Return all models, ordered by seed, so that a complete table is there early."""
    models = []
    for seed in study.seeds:
        models.append(Variant(seed))
        models += [Variant(seed, level, k) for k, level in product(study.ks, study.levels)]
    return models


@dataclass(frozen=True, repr=False)
class SelfAblationResult(Report):
    """Table of the study, verdicts on the paper's claims, and paths of its files."""

    rows: tuple[AblationRow, ...]
    """One per level and k, the plain models first."""
    claims: tuple[ClaimVerdict, ...]
    figure: str
    results: str


def self_ablation(
    study: SelfAblationConfig, out: str | Path, *, jobs: int = 1, progress: bool = True
) -> SelfAblationResult:
    """Run the study, or resume it, and draw its figure.

    Args:
        study: the models and the instruments.
        out: the study's folder.
        jobs: models to work on at once, each in a process of its own with its share of the threads.
            A script that calls this needs `if __name__ == "__main__":`.
        progress: print a line to standard error for each finished model.

    Raises:
        InputError: impossible settings; no such task or site; a task that does not fit the
            tokeniser or lacks the corruption; `out` cannot be written to, holds other files or is
            in use; a model could not be trained.
    """
    out, task = Path(out), load_task(study.measure.task)
    study = _settled(study, task)
    all_variants = variants(study)
    for variant in all_variants:
        training_settings(variant, study, out)
    check_place(out / "results.json")
    _check_sites(study)
    is_finished = all(is_file(_cell(out, variant)) for variant in all_variants)
    if not is_finished:
        _check_packages(study)
    _check_out(out, study)
    with locked(out / "lock", f"study {out}"):
        clear_held([out, out / "cells"])
        folders = [out / "runs" / variant.name for variant in all_variants]
        earlier = _results(out)
        text_fingerprint = earlier.get("data", "")
        data = text_for_runs(
            folders, study.train.data, progress, text_fingerprint
        )  # not in each process
        if "acdc" in study.measure.instruments and not is_finished:
            task.fitted(data.tokenizer, study.train.model.n_ctx)
        cells: list[dict[str, Any]] = []
        if earlier.get("data", data.fingerprint) != data.fingerprint:
            raise InputError(f"{out} was made with other text or tokeniser: choose another --out")
        if not earlier.get("cells"):  # so that the folder says from the start which study it holds
            _write(out, study, data.fingerprint, cells)
        for folder in folders:
            record_text(folder, data, study.train.data, replace=False)
        n_finished = sum(is_file(_cell(out, variant)) for variant in all_variants)
        with Progress("models", len(all_variants), shown=progress, count=counted) as bar:
            for cell in parallel_map(partial(run_variant, study, out), all_variants, jobs):
                cells.append(cell)
                rows = _write(out, study, data.fingerprint, cells)
                step = bar.skip if len(cells) <= n_finished else bar.advance
                step()
                if progress:
                    count = f"{len(cells)} of {len(all_variants)}"
                    say(f"{cell['name']} ({count}): {_one_line(cell['report'])}")
        figure = write_self_ablation_figure(out)
    verdicts = tuple(claims(rows))
    return SelfAblationResult(tuple(rows), verdicts, str(figure), str(out / "results.json"))


def run_variant(study: SelfAblationConfig, out: Path, variant: Variant) -> dict[str, Any]:
    """Train and measure a model, or read its record if it was made with the same settings.

    An instrument that gave a reason instead of numbers (a missing package) is tried again.

    Raises:
        InputError: the model cannot be trained, or its record is damaged.
    """
    path = _cell(out, variant)
    config, instruments = training_settings(variant, study, out), measure_settings(variant, study)
    wanted = {"train": portable(config), "measure": _recorded_measure(instruments)}
    stored = read_record(path) if is_file(path) else {}
    earlier_report = (
        stored["report"] if stored and not _changed_settings(stored["settings"], wanted) else {}
    )
    unmeasured = tuple(reasons(earlier_report)) or None
    if earlier_report and unmeasured is None:
        current = headline(earlier_report).to_dict()
        return {**stored, "report": {**earlier_report, "headline": current}}
    is_resumed = is_file(config.runs / config.name / "config.yaml")
    run = train(config, resume=is_resumed, progress=False)
    measured = measure(run.model, unmeasured, instruments, progress=False)
    report = earlier_report | measured.to_dict()
    report["headline"] = headline(report).to_dict()
    about = {"name": variant.name, "level": variant.level, "k": variant.k, "seed": variant.seed}
    cell = {**about, "run": run.metrics, "report": report, "machine": machine_facts()}
    write_record(path, {**cell, "settings": wanted})
    return read_record(path)


def _cell(out: Path, variant: Variant) -> Path:
    return out / "cells" / f"{variant.name}.json"


def training_settings(variant: Variant, study: SelfAblationConfig, out: str | Path) -> TrainConfig:
    """Return the training settings of a model.

    Raises:
        InputError: k is not below the number of units.
    """
    out = Path(out)
    gating = None
    if variant.level is not None:
        shared = study.train.gating or GatingConfig()
        variant_settings = {
            "level": variant.level,
            "k_attention": variant.k,
            "k_neurons": variant.k,
        }
        gating = {**shared.model_dump(), **variant_settings}
    run_settings = {
        "name": variant.name,
        "runs": out / "runs",
        "seed": variant.seed,
        "gating": gating,
    }
    return TrainConfig.of({**study.train.model_dump(), **run_settings}, variant.name)


def measure_settings(variant: Variant, study: SelfAblationConfig) -> MeasureConfig:
    """Return the settings of the instruments, seeded as the model is."""
    values = study.measure.model_dump()
    for name in ("acdc", "sae", "explain"):
        values[name] = {**values[name], "seed": variant.seed}
    return MeasureConfig.of(values)


def _settled(study: SelfAblationConfig, task: Task) -> SelfAblationConfig:
    """Return the study with the excerpt length and the corruption resolved, as they are recorded.

    Raises:
        InputError: the excerpts are longer than the context, or the task lacks the corruption.
    """
    length = excerpt_length(study.train.model.n_ctx, study.measure.explain)
    explain = study.measure.explain.model_copy(update={"excerpt_tokens": length})
    corruption = corruption_of(task, study.measure.acdc)
    acdc = study.measure.acdc.model_copy(update={"corruption": corruption})
    measured = study.measure.model_copy(update={"explain": explain, "acdc": acdc})
    return study.model_copy(update={"measure": measured})


def _check_sites(study: SelfAblationConfig) -> None:
    """Refuse sites and neurons that the models, all of one shape, do not have."""
    check_memory(study.train.model, None, "the settings")
    size = study.train.model.vocab_size or 1  # 0 until the text is known; sites do not depend on it
    transformer = Transformer(study.train.model.model_copy(update={"vocab_size": size}))
    look_up(transformer.sites, [study.measure.sae.site or default_site(study.train.model)])
    choose_neurons(transformer, study.measure.explain)


def _check_packages(study: SelfAblationConfig) -> None:
    """Refuse instruments whose packages are missing, before any model is trained."""
    if "sae" in study.measure.instruments:
        sae.require_sae_lens()
    if (
        "explain" in study.measure.instruments
        and study.measure.explain.explainer == "language_model"
    ):
        openai_client.require_openai()


def _check_out(out: Path, study: SelfAblationConfig) -> None:
    """Refuse a folder with other files, or with a study that this one cannot resume."""
    check_place(out / "results.json")
    names_there, earlier = names_in(out) - {"lock"}, _results(out)
    if names_there and not earlier:
        raise InputError(
            f"{out} holds files but is no study of {_KIND}, or its results.json is damaged: choose "
            "another --out"
        )
    if not earlier.get("cells") and not names_in(out / "cells") and not names_in(out / "runs"):
        return
    if other := _changed_settings(earlier["config"], _recorded_study(study)):
        raise InputError(f"{out} was made with other settings, {other}: choose another --out")
    for name in ("levels", "ks", "seeds"):
        if missing := [
            value for value in earlier["config"][name] if value not in getattr(study, name)
        ]:
            raise InputError(
                f"{out} has models of {name} {missing}, which this call leaves out: name them "
                "too, or choose another --out"
            )


def _results(out: Path) -> dict[str, Any]:
    """Return the `results.json` of this kind of study; empty if there is none."""
    path = out / "results.json"
    if not is_file(path):
        return {}
    try:
        results = read_record(path, unsigned=True)
    except DamagedError:  # or a file of the same name that is no JSON
        return {}
    if results.get("study") != _KIND:
        return {}
    config, required = results.get("config"), {"train", "measure", "levels", "ks", "seeds"}
    return results if isinstance(config, dict) and required <= config.keys() else {}


def _recorded_study(study: SelfAblationConfig) -> dict[str, Any]:
    """Return the settings that the results depend on."""
    recorded = {"train": portable(study.train), "measure": _recorded_measure(study.measure)}
    return {**study.recorded(), **recorded}


def _recorded_measure(instruments: MeasureConfig) -> dict[str, Any]:
    explain = instruments.explain.model_dump(mode="json", exclude=PRIVATE)
    return {**instruments.recorded(), "explain": explain}


def _changed_settings(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return which settings have changed, of those that the results depend on; empty if none."""
    earlier, wanted = (
        {"train": values["train"], "measure": _with_corruption(values["measure"])}
        for values in (before, now)
    )
    differences = changes(earlier, wanted)
    return "; ".join(str(change) for change in differences if change.name not in _HARMLESS)


def _with_corruption(measure: dict[str, Any]) -> dict[str, Any]:
    """Add the corruption to recorded settings of an earlier version, which had only one."""
    return {**measure, "acdc": {"corruption": "other_prompt", **measure["acdc"]}}


def _write(
    out: Path, study: SelfAblationConfig, data: str, cells: list[dict[str, Any]]
) -> list[AblationRow]:
    """Write the results so far, as JSON, Markdown and CSV; return the rows of the table."""
    rows = rows_of(cells)
    results = {
        "study": _KIND,
        "config": _recorded_study(study),
        "data": data,
        "rows": [row.to_dict() for row in rows],
        "claims": [verdict.to_dict() for verdict in claims(rows)],
        "cells": [_shown(cell) for cell in cells],
    }
    write_record(out / "results.json", results)
    write_text(out / "table.md", markdown_table(rows))
    write_text(out / "table.csv", csv_table(rows))
    return rows


def _shown(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a model's record for `results.json`; its settings follow from the study's."""
    return {name: value for name, value in cell.items() if name != "settings"}


def _one_line(report: dict[str, Any]) -> str:
    return ", ".join(_line_parts(report))


def _line_parts(report: dict[str, Any]) -> Iterator[str]:
    for name, value in report["headline"].items():
        if value is not None:
            yield f"{name} {value:.4g}"
    for name, reason in reasons(report).items():
        yield f"{name}: {reason}"
