"""Find the prepared corpus that a run was trained on.

`data.json` in the run's folder records the path of the prepared corpus (relative to the run and
absolute) and its fingerprint. Commands that need the text of a run open this folder. They do not
prepare the text again, because the result could differ: installing packages, for example, adds
files to the corpus `python`.
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

_NOT_COMPARED = ("cache", "workers", "tokenizer")
"""Settings that two runs on the same corpus may differ in. The first two do not affect the corpus;
tokenisers are compared by fingerprint, not by path."""


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
    folder = data.path.resolve()
    record = _Record(
        relative=os.path.relpath(folder, run.resolve()),
        absolute=str(folder),
        fingerprint=data.fingerprint,
        corpus=_with_absolute_path(config.corpus),
        settings=config.model_dump(mode="json"),
    )
    write_record(run / TEXT_RECORD, record.model_dump())


def text_of_run(run: str | Path) -> Prepared | None:
    """Return the text that a run was trained on, or None if the run has no record of it.

    It is looked for at the recorded paths, and in the recorded cache, whose path may be relative to
    the working directory or to a folder above the run.

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
    if (folder := _recorded_folder(run, record)) is not None:
        return open_prepared(folder)
    folders = _candidate_folders(run, record)
    changed = next((folder for folder in folders if is_file(folder / CHECKSUMS)), None)
    problem = (
        f"the tokens that {run} was trained on are not in {record.absolute} any more"
        if changed is None
        else f"{changed} holds other tokens than those that {run} was trained on"
    )
    if_trusted = ", if you trust that code," if _is_foreign(record.corpus) else ""
    raise InputError(
        f"{problem}: put that folder back, or{if_trusted} give --corpus "
        f"{shlex.quote(record.corpus)}"
    )


def text_for_runs(
    runs: Sequence[str | Path], config: DataConfig, progress: bool = True, trained_on: str = ""
) -> Prepared:
    """Return the text to train runs on: that of an earlier run, or one prepared from the settings.

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
    has_run_without_record = False
    for run in map(Path, runs):
        record = _read(run)
        if record is None:
            has_run_without_record = has_run_without_record or is_file(run / "config.yaml")
        elif (
            _gives_same_corpus(record.settings, config)
            and (folder := _recorded_folder(run, record)) is not None
        ):
            return _checked(open_prepared(folder), config)
    if not has_run_without_record:
        return prepare(config, progress=progress)
    cached = prepared_before(runs[0], config, trained_on)
    if cached is not None:
        return _checked(cached, config)
    return prepare(answers_before_records(config), progress=progress)


def prepared_before(run: str | Path, config: DataConfig, fingerprint: str) -> Prepared | None:
    """Return the text of a run of an earlier version, which has no record of it.

    Args:
        run: the run's folder.
        config: its settings.
        fingerprint: fingerprint of the text, from the run's checkpoints.

    Returns:
        The text, or None if the cache of the settings does not have it any more.

    Raises:
        InputError: the prepared corpus is damaged.
    """
    for base in _cache_bases(Path(run)):
        for checksums in sorted((base / config.cache).glob(f"*/{CHECKSUMS}")):
            if sha256(checksums) == fingerprint:
                return open_prepared(checksums.parent)
    return None


def settings_of_run(run: str | Path, corpus: str) -> DataConfig:
    """Return the settings to prepare a corpus with, for a model in the folder of a run.

    For the run's own corpus these are the settings of the run, without its cache; for another
    corpus they are the defaults. A mixed-in corpus that is a user's function is left out, with a
    warning: only the user may name code to run.

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
    values = {name: value for name, value in record.settings.items() if name not in _NOT_COMPARED}
    mix = values.get("mix")
    if isinstance(mix, str) and _is_foreign(mix):
        warn(f"{run} was trained with {quoted(mix)} mixed in: code that a file names is left out")
        del values["mix"]
    return DataConfig.of({**values, "corpus": corpus}, str(run / TEXT_RECORD))


def _read(run: Path) -> _Record | None:
    path = run / TEXT_RECORD
    return _Record.of(read_record(path), str(path)) if is_file(path) else None


def _candidate_folders(run: Path, record: _Record) -> Iterator[Path]:
    """Yield the folders that may be the prepared corpus, the likeliest first."""
    run, absolute = run.absolute(), Path(record.absolute)
    yield run / record.relative
    yield absolute
    cache = record.settings.get("cache")
    if isinstance(cache, str):
        for base in _cache_bases(run):
            yield base / cache / absolute.name


def _cache_bases(run: Path) -> tuple[Path, ...]:
    """Return the folders to which a relative path of the cache may refer."""
    return (Path(), *run.absolute().parents[:2])


def _recorded_folder(run: Path, record: _Record) -> Path | None:
    """Return the folder of the recorded corpus, or None if it is not found."""
    for folder in _candidate_folders(run, record):
        checksums = folder / CHECKSUMS
        if is_file(checksums) and sha256(checksums) == record.fingerprint:
            return folder
    return None


def _gives_same_corpus(recorded: Mapping[str, Any], config: DataConfig) -> bool:
    """Return whether the settings of a record give the same corpus as these."""
    ignored = {*_NOT_COMPARED, *(["vocab_size"] if config.vocab_size == "auto" else [])}
    values = config.model_dump(mode="json", exclude=ignored)
    return all(recorded.get(name) == value for name, value in values.items())


def _checked(data: Prepared, config: DataConfig) -> Prepared:
    """Return `data` after checking that it has the tokeniser that the settings name, if any.

    Raises:
        InputError: it has another one.
    """
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
    file, colon, function = corpus.rpartition(":") if is_function(corpus) else (corpus, "", "")
    path = Path(file)
    return f"{path.absolute()}{colon}{function}" if path.exists() else corpus
