"""Files of `measure`: the reports of several models as JSON, their headline numbers as CSV."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from wirework.errors import DamagedError, InputError
from wirework.files import check_place, is_file, names_in, read_json, write_json, write_text
from wirework.measures.report import COLUMNS, MeasureReport

_NAMES = ("measures.json", "measures.csv", "measures.png")  # the last is drawn from the first
BRIDGES = ("-bridges.json", "-bridges.png")
"""Ends of the names of the files about a bridged run, after the name of its folder."""


def check_report_place(folder: Path) -> None:
    """Check that reports can be written to a folder, before any model is measured.

    Raises:
        InputError: the folder holds other files than an earlier call's, or cannot be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: it should be a folder")
    names_there = {name for name in names_in(folder) if not name.endswith(BRIDGES)}
    if others := names_there - set(_NAMES):
        raise InputError(
            f"{folder} holds {min(others)}, which measure has not made: choose another --out"
        )
    if names_there and not _are_reports(folder / _NAMES[0]):
        raise InputError(
            f"{folder} holds {min(names_there)}, which measure has not made: choose another --out"
        )
    for name in _NAMES:
        check_place(folder / name)


def _are_reports(path: Path) -> bool:
    if not is_file(path):
        return False
    try:
        contents = read_json(path)
    except DamagedError:
        return False
    reports = contents.values() if isinstance(contents, dict) and contents else [None]
    return all(isinstance(report, dict) and "headline" in report for report in reports)


def write_reports(reports: Mapping[str, MeasureReport], folder: Path) -> None:
    """Write the reports of models, by their names, to `measures.json` and `measures.csv`.

    Raises:
        InputError: the folder cannot be written to.
    """
    write_json(folder / "measures.json", {n: report.to_dict() for n, report in reports.items()})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", *COLUMNS])
    for name, report in reports.items():
        writer.writerow([name, *(getattr(report.headline, column) for column in COLUMNS)])
    write_text(folder / "measures.csv", text.getvalue())
