"""Does self-ablation make a model easier to read? Train plain and gated ones, measure all, compare.

Below the study's folder: `results.json`, `table.md`, `table.csv` and `self_ablation.png`, all
small; `runs/NAME` as training leaves them and `cells/NAME.json` with each one's report. A call that
was stopped goes on, one after the end only draws again.
Source: Ferrao et al. 2025, the table of ablations.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

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
from wirework.measures.explain import server
from wirework.measures.explain.choose import choose_neurons, excerpt_length
from wirework.measures.explain.job import HARMLESS as HARMLESS_TO_EXPLAIN
from wirework.measures.explain.job import PRIVATE
from wirework.nn import Transformer
from wirework.nn.shapes import check_memory
from wirework.nn.sites import look_up
from wirework.parallel import parallel_map
from wirework.studies.ablation_table import claims, csv_table, markdown_table, rows_of
from wirework.studies.manifest import machine
from wirework.studies.points import portable
from wirework.tasks import load_task
from wirework.training import train
from wirework.training.run import HARMLESS as HARMLESS_TO_TRAIN
from wirework.view import write_self_ablation_figure

_KIND = "self-ablation"
_HARMLESS = {
    *(f"train.{name}" for name in HARMLESS_TO_TRAIN if name != "data.tokenizer"),
    *(f"measure.explain.{name}" for name in HARMLESS_TO_EXPLAIN),
}
"""Settings that a study's folder may be gone on with under others."""


@dataclass(frozen=True)
class Variant:
    """A model of the study."""

    seed: int
    level: str | None = None
    """None: the plain one."""
    k: int | None = None

    @property
    def name(self) -> str:
        """Of its run and its report."""
        kind = "plain" if self.level is None else f"{self.level}-k{self.k}"
        return f"{kind}-seed{self.seed}"


def variants(study: SelfAblationConfig) -> list[Variant]:
    """Return all models, those of the first seed first, so that a whole table comes early."""
    found = []
    for seed in study.seeds:
        found.append(Variant(seed))
        found += [Variant(seed, level, k) for k, level in product(study.ks, study.levels)]
    return found


def self_ablation(
    study: SelfAblationConfig, out: str | Path, *, jobs: int = 1, progress: bool = True
) -> dict[str, Any]:
    """Run the study, or go on with it, and draw its figure.

    Args:
        study: the models and the instruments.
        out: the study's folder.
        jobs: how many models to work on at once, each in a process of its own with its share of the
            threads. A script that calls this needs `if __name__ == "__main__":`.
        progress: say on standard error which model is done.

    Returns:
        `rows` (one per level and k: means, standard errors and numbers of seeds, with the published
        figures), `claims` (what the paper says, what was found), `figure`, `results` (paths).

    Raises:
        InputError: a setting that no model can have, no such task or site, a task that does not
            fit the tokeniser, `out` cannot be written to, holds something else or is in use, or a
            model could not be trained.
    """
    out, study = Path(out), _settled(study)
    every = variants(study)
    for variant in every:
        settings_of(variant, study, out)
    task = load_task(study.measure.task)
    check_place(out / "results.json")
    _check_sites(study)
    if not all(is_file(_cell(out, variant)) for variant in every):
        _check_packages(study)
    _check_out(out, study)
    with locked(out / "lock", f"study {out}"):
        clear_held([out, out / "cells"])
        folders = [out / "runs" / variant.name for variant in every]
        known = _results(out)
        before = known.get("data", "")
        data = text_for_runs(folders, study.train.data, progress, before)  # not in each process
        if "acdc" in study.measure.which:
            task.fitted(data.tokenizer, study.train.model.n_ctx)
        cells: list[dict[str, Any]] = []
        if known.get("data", data.fingerprint) != data.fingerprint:
            raise InputError(f"{out} was made with other text or tokeniser: choose another --out")
        if not known.get("cells"):  # what it is of is known from the start
            _write(out, study, data.fingerprint, cells)
        for folder in folders:
            record_text(folder, data, study.train.data, replace=False)
        n_known = sum(is_file(_cell(out, variant)) for variant in every)
        with Progress("models", len(every), shown=progress, count=counted) as bar:
            for cell in parallel_map(partial(run_variant, study, out), every, jobs):
                cells.append(cell)
                results = _write(out, study, data.fingerprint, cells)
                tell = bar.skip if len(cells) <= n_known else bar.advance
                tell()
                if progress:
                    say(f"{cell['name']} ({len(cells)} of {len(every)}): {_gist(cell['report'])}")
        figure = write_self_ablation_figure(out)
    paths = {"figure": str(figure), "results": str(out / "results.json")}
    return {"rows": results["rows"], "claims": results["claims"], **paths}


def run_variant(study: SelfAblationConfig, out: Path, variant: Variant) -> dict[str, Any]:
    """Train and measure a model, or return what was found before with the same settings.

    Instruments that gave a reason instead of numbers, such as a missing package, are tried again.

    Raises:
        InputError: it cannot be trained, or what lies there is damaged.
    """
    path = _cell(out, variant)
    config, instruments = settings_of(variant, study, out), measure_settings(variant, study)
    wanted = {"train": portable(config), "measure": _stated(instruments)}
    known = read_record(path) if is_file(path) else {}
    before = known["report"] if known and not _other(known["settings"], wanted) else {}
    left = tuple(reasons(before)) or None
    if before and left is None:
        return {**known, "report": {**before, "headline": headline(before)}}
    begun = is_file(config.runs / config.name / "config.yaml")
    run = train(config, resume=begun, progress=False)
    report = {**before, **measure(run.model, left, instruments, progress=False)}
    report["headline"] = headline(report)
    about = {"name": variant.name, "level": variant.level, "k": variant.k, "seed": variant.seed}
    cell = {**about, "run": run.metrics, "report": report, "machine": machine()}
    write_record(path, {**cell, "settings": wanted})
    return read_record(path)


def _cell(out: Path, variant: Variant) -> Path:
    return out / "cells" / f"{variant.name}.json"


def settings_of(variant: Variant, study: SelfAblationConfig, out: str | Path) -> TrainConfig:
    """Return the settings of a model's run.

    Raises:
        InputError: k is not below the number of units.
    """
    out = Path(out)
    gating = None
    if variant.level is not None:
        common = study.train.gating or GatingConfig()
        own = {"level": variant.level, "k_attention": variant.k, "k_neurons": variant.k}
        gating = {**common.model_dump(), **own}
    place = {"name": variant.name, "runs": out / "runs", "seed": variant.seed, "gating": gating}
    return TrainConfig.of({**study.train.model_dump(), **place}, variant.name)


def measure_settings(variant: Variant, study: SelfAblationConfig) -> MeasureConfig:
    """Return the instruments' settings with the model's own seed."""
    values = study.measure.model_dump()
    for name in ("acdc", "sae", "explain"):
        values[name] = {**values[name], "seed": variant.seed}
    return MeasureConfig.of(values)


def _settled(study: SelfAblationConfig) -> SelfAblationConfig:
    """Return a study that says what its models leave open: all are of one shape.

    Raises:
        InputError: longer excerpts than they can be shown.
    """
    length = excerpt_length(study.train.model.n_ctx, study.measure.explain)
    explain = study.measure.explain.model_copy(update={"excerpt_tokens": length})
    measured = study.measure.model_copy(update={"explain": explain})
    return study.model_copy(update={"measure": measured})


def _check_sites(study: SelfAblationConfig) -> None:
    """Refuse sites and neurons that no model of the study has: all are of one shape."""
    check_memory(study.train.model, None, "the settings")
    size = study.train.model.vocab_size or 1  # 0 until the text is known; sites do not depend on it
    transformer = Transformer(study.train.model.model_copy(update={"vocab_size": size}))
    look_up(transformer.sites, [study.measure.sae.site or default_site(study.train.model)])
    choose_neurons(transformer, study.measure.explain)


def _check_packages(study: SelfAblationConfig) -> None:
    """Refuse instruments whose packages are missing, before models are trained for them."""
    if "sae" in study.measure.which:
        sae.check_installed()
    if "explain" in study.measure.which and study.measure.explain.explainer == "language_model":
        server.check_installed()


def _check_out(out: Path, study: SelfAblationConfig) -> None:
    """Refuse a folder of something else, or of a study that this one does not go on with."""
    check_place(out / "results.json")
    held, known = names_in(out) - {"lock"}, _results(out)
    if held and not known:
        raise InputError(
            f"{out} holds files but is no study of {_KIND}, or its results.json is damaged: choose "
            "another --out"
        )
    if not known.get("cells") and not names_in(out / "cells") and not names_in(out / "runs"):
        return
    if other := _other(known["config"], _described(study)):
        raise InputError(f"{out} was made with other settings, {other}: choose another --out")
    for name in ("levels", "ks", "seeds"):
        if gone := [one for one in known["config"][name] if one not in getattr(study, name)]:
            raise InputError(
                f"{out} has models of {name} {gone}, which are not asked for now: name them too, "
                "or choose another --out"
            )


def _results(out: Path) -> dict[str, Any]:
    """Return what a study has written so far; nothing if it is not there, or another's."""
    path = out / "results.json"
    if not is_file(path):
        return {}
    try:
        known = read_record(path, unsigned=True)
    except DamagedError:  # or a file of the same name that is no JSON
        return {}
    if known.get("study") != _KIND:
        return {}
    config, needed = known.get("config"), {"train", "measure", "levels", "ks", "seeds"}
    return known if isinstance(config, dict) and needed <= config.keys() else {}


def _described(study: SelfAblationConfig) -> dict[str, Any]:
    """Return the settings that say what is found."""
    stated = {"train": portable(study.train), "measure": _stated(study.measure)}
    return {**study.recorded(), **stated}


def _stated(instruments: MeasureConfig) -> dict[str, Any]:
    explain = instruments.explain.model_dump(mode="json", exclude=PRIVATE)
    return {**instruments.recorded(), "explain": explain}


def _other(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say which settings of training and instruments have changed and change what is found."""
    one, other = ({name: values[name] for name in ("train", "measure")} for values in (before, now))
    return "; ".join(str(one) for one in changes(one, other) if one.name not in _HARMLESS)


def _write(
    out: Path, study: SelfAblationConfig, data: str, cells: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write the table so far."""
    rows = rows_of(cells)
    results = {
        "study": _KIND,
        "config": _described(study),
        "data": data,
        "rows": rows,
        "claims": claims(rows),
        "cells": [_shown(cell) for cell in cells],
    }
    write_record(out / "results.json", results)
    write_text(out / "table.md", markdown_table(rows))
    write_text(out / "table.csv", csv_table(rows))
    return results


def _shown(cell: dict[str, Any]) -> dict[str, Any]:
    """Return what results hold of a model; its settings follow from the study's."""
    return {name: value for name, value in cell.items() if name != "settings"}


def _gist(report: dict[str, Any]) -> str:
    return ", ".join(_said(report))


def _said(report: dict[str, Any]) -> Iterator[str]:
    for name, value in report["headline"].items():
        if value is not None:
            yield f"{name} {value:.4g}"
    for name, reason in reasons(report).items():
        yield f"{name}: {reason}"
