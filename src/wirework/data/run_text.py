"""The text of a run: find the prepared corpus that it is trained on.

`data.json` in the run's folder records the path of the prepared corpus (relative to the run and
absolute) and its fingerprint. Commands that need the run's text open that folder. It is not
prepared again: new files on the machine would change the corpus `python`.
"""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from wirework.config import DataConfig
from wirework.config.base import Config
from wirework.console import warn
from wirework.data.answers import answers_before_records
from wirework.data.prepare import Prepared, open_prepared, prepare
from wirework.data.tokenizer import Tokenizer
from wirework.errors import InputError, quoted
from wirework.files import CHECKSUMS, is_file, read_record, sha256, write_record
from wirework.user_code import OURS, is_function

TEXT_RECORD = "data.json"
"""Name of the record in the run's folder."""

_HARMLESS = ("cache", "workers", "tokenizer")
"""Settings that do not affect a prepared corpus; the tokeniser is compared by fingerprint."""


class _Record(Config):
    """Content of `data.json`; keys of later versions are ignored."""

    model_config = ConfigDict(extra="ignore")

    relative: str
    """Path of the prepared corpus, relative to the run's folder."""
    absolute: str
    """Absolute path of the prepared corpus."""
    fingerprint: str
    """Fingerprint of tokeniser and tokens."""
    corpus: str
    """Source of the text, in a form that `--corpus` accepts in any working directory."""
    settings: dict[str, Any]
    """The run's `DataConfig`."""


def record_text(run: str | Path, data: Prepared, config: DataConfig, replace: bool = True) -> None:
    """Record in a run's folder which prepared corpus it is trained on.

    Args:
        run: the run's folder; the run need not have begun.
        data: the corpus.
        config: the settings that it was made with.
        replace: False keeps an existing record.

    Raises:
        InputError: the folder cannot be written to.
    """
    run = Path(run)
    if not replace and (run / TEXT_RECORD).exists():
        return
    place = data.path.resolve()
    record = _Record(
        relative=os.path.relpath(place, run.resolve()),
        absolute=str(place),
        fingerprint=data.fingerprint,
        corpus=_with_absolute_path(config.corpus),
        settings=config.model_dump(mode="json"),
    )
    write_record(run / TEXT_RECORD, record.model_dump())


def text_of_run(run: str | Path) -> Prepared | None:
    """Return the text that a run is trained on, or None if the run has no record of it.

    The search covers the recorded paths, and the recorded cache relative to the working directory
    and to the folders above the run.

    Args:
        run: the run's folder.

    Raises:
        InputError: the record or the prepared corpus is damaged, or the corpus is missing or has
            changed; the message says what to do.
    """
    run = Path(run)
    record = _read(run)
    if record is None:
        return None
    if (place := _recorded_place(run, record)) is not None:
        return open_prepared(place)
    other = next((place for place in _places(run, record) if is_file(place / CHECKSUMS)), None)
    where = (
        f"the tokens that {run} was trained on are not in {record.absolute} any more"
        if other is None
        else f"{other} holds other tokens than those that {run} was trained on"
    )
    trusted = ", if you trust that code," if _is_foreign(record.corpus) else ""
    raise InputError(
        f"{where}: put that folder back, or{trusted} give --corpus {shlex.quote(record.corpus)}"
    )


def text_for_runs(
    runs: Sequence[str | Path], config: DataConfig, progress: bool = True, trained_on: str = ""
) -> Prepared:
    """Return the text to train runs on: the recorded corpus, or one prepared from the settings.

    Args:
        runs: folders of runs on one text; they need not exist. The first one with a record of the
            same settings decides.
        config: settings of the runs.
        progress: show a progress bar on standard error.
        trained_on: fingerprint of the text of runs without a record; empty if unknown.

    Raises:
        InputError: the corpus cannot be prepared, the recorded corpus is damaged, or the settings
            name another tokeniser than the recorded one.
    """
    old = False
    for run in map(Path, runs):
        record = _read(run)
        if record is None:
            old = old or is_file(run / "config.yaml")
        elif _same(record.settings, config) and (place := _recorded_place(run, record)) is not None:
            return _checked(open_prepared(place), config)
    if not old:
        return prepare(config, progress=progress)
    kept = prepared_before(runs[0], config, trained_on)
    if kept is not None:
        return _checked(kept, config)
    return prepare(answers_before_records(config), progress=progress)


def prepared_before(run: str | Path, config: DataConfig, fingerprint: str) -> Prepared | None:
    """Return the text of a run without a record, if the cache of its settings still has it.

    Args:
        run: the run's folder.
        config: its settings.
        fingerprint: fingerprint of the text, from the run's checkpoints.

    Raises:
        InputError: the prepared corpus is damaged.
    """
    for base in _bases(Path(run)):
        for sums in sorted((base / config.cache).glob(f"*/{CHECKSUMS}")):
            if sha256(sums) == fingerprint:
                return open_prepared(sums.parent)
    return None


def settings_of_run(run: str | Path, corpus: str) -> DataConfig:
    """Return the settings to prepare a corpus with, for a model in the folder of a run.

    For the run's own corpus they are the run's settings except the cache, for another the defaults.
    A second corpus that is a user's function is left out: only the user may name code to run.

    Args:
        run: the folder above the model; it need not be a run.
        corpus: the value of `--corpus`.

    Raises:
        InputError: the record is damaged, or its settings are invalid.
    """
    run = Path(run)
    record = _read(run)
    if record is None or record.corpus != _with_absolute_path(corpus):
        return DataConfig.of({"corpus": corpus})
    values = {name: value for name, value in record.settings.items() if name not in _HARMLESS}
    mix = values.get("mix")
    if isinstance(mix, str) and _is_foreign(mix):
        warn(f"{run} was trained with {quoted(mix)} mixed in: code that a file names is left out")
        del values["mix"]
    return DataConfig.of({**values, "corpus": corpus}, str(run / TEXT_RECORD))


def _read(run: Path) -> _Record | None:
    path = run / TEXT_RECORD
    return _Record.of(read_record(path), str(path)) if is_file(path) else None


def _places(run: Path, record: _Record) -> Iterator[Path]:
    """Yield paths at which the prepared corpus may be, the likeliest first."""
    run, absolute = run.absolute(), Path(record.absolute)
    yield run / record.relative
    yield absolute
    cache = record.settings.get("cache")
    if isinstance(cache, str):
        for base in _bases(run):
            yield base / cache / absolute.name


def _bases(run: Path) -> tuple[Path, ...]:
    """Return the folders to which a relative path of the cache may refer."""
    return (Path(), *run.absolute().parents[:2])


def _recorded_place(run: Path, record: _Record) -> Path | None:
    """Return the path of the recorded corpus, or None if it is not found."""
    for place in _places(run, record):
        sums = place / CHECKSUMS
        if is_file(sums) and sha256(sums) == record.fingerprint:
            return place
    return None


def _same(before: Mapping[str, Any], config: DataConfig) -> bool:
    """Return whether a record's settings give the same corpus as these."""
    ignored = {*_HARMLESS, "vocab_size"} if config.vocab_size == "auto" else {*_HARMLESS}
    now = config.model_dump(mode="json", exclude=ignored)
    return all(before.get(name) == value for name, value in now.items())


def _checked(data: Prepared, config: DataConfig) -> Prepared:
    """Return `data`, checked against the tokeniser that the settings name, if that file exists."""
    given = config.tokenizer
    if (
        given is not None
        and given.exists()
        and Tokenizer.load(given).fingerprint != data.tokenizer.fingerprint
    ):
        raise InputError(f"{data.path} was prepared with another tokeniser than {given}")
    return data


def _is_foreign(corpus: str) -> bool:
    """Return whether a corpus is a function that is not part of wirework."""
    return corpus not in OURS and is_function(corpus)


def _with_absolute_path(corpus: str) -> str:
    """Return the name of a corpus in a form that is valid in any working directory."""
    place, colon, function = corpus.rpartition(":") if is_function(corpus) else (corpus, "", "")
    path = Path(place)
    return f"{path.absolute()}{colon}{function}" if path.exists() else corpus
