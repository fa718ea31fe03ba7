"""Append-only files of JSON lines, each line with a checksum over all lines up to it.

A line is a JSON object. Its last entry, `sum`, is a hash of the previous sum and of the line's own
text. Altered, missing or added lines are detected, except lines missing at the end. Older files
have lines without a sum, which may only come before lines with one. The first line with a sum also
has `"checksum": "sum"`, so that a file from which the sums were removed is not read as an old one.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wirework.errors import DamagedError

_SUM = re.compile(rb'^(\{.*), "sum": "([0-9a-f]{16})"\}$')
_MARK = {"checksum": "sum"}
"""Entry of the first line with a sum: from this line on, every line has one."""


class Sealer:
    """Writes and checks the sums of consecutive lines."""

    def __init__(self) -> None:
        self._sum = b""
        self._sealed = False

    def seal(self, record: Mapping[str, Any], *, allow_nan: bool = False) -> bytes:
        """Return a record as the next line, with its sum, without a line break.

        Args:
            record: at least one entry, none called `sum` or `checksum`.
            allow_nan: write NaN and infinity in Python's notation, which is not valid JSON.
        """
        marked = record if self._sealed else {**record, **_MARK}
        text = json.dumps(marked, allow_nan=allow_nan).encode()
        self._sealed = True
        self._add(text)
        return text[:-1] + b', "sum": "' + self._sum + b'"}'

    def opened(self, line: bytes) -> dict[str, Any]:
        """Return the record of the next line, without its sum and mark.

        Raises:
            ValueError: it is not a JSON object, or does not match its sum.
        """
        match = _SUM.match(line)
        text = line if match is None else match[1] + b"}"
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError("not an object")
        self._add(text)
        if match is None and "sum" in record:
            raise ValueError("its checksum is not at its end; were the line ends changed?")
        if record.pop("checksum", None) is not None:
            self._sealed = True
        if match is None and self._sealed:
            raise ValueError("it has no checksum")
        if match is not None and match[2] != self._sum:
            raise ValueError("it does not match its checksum")
        self._sealed = match is not None
        return record

    def _add(self, text: bytes) -> None:
        self._sum = hashlib.sha256(self._sum + text).hexdigest()[:16].encode()


def whole_lines(content: bytes) -> list[bytes]:
    """Return the complete lines; a last one without a line break is still being written."""
    return content.split(b"\n")[:-1]


def open_lines(content: bytes, path: Path, sealer: Sealer | None = None) -> list[dict[str, Any]]:
    """Return the records of complete lines.

    Args:
        content: content of the file, from its beginning.
        path: the file, for the message.
        sealer: a new `Sealer`, which can then seal further lines.

    Raises:
        DamagedError: names the first line that is not JSON or does not match its sum.
    """
    sealer = Sealer() if sealer is None else sealer
    records = []
    for number, line in enumerate(whole_lines(content), 1):
        try:
            records.append(sealer.opened(line))
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{path} is damaged in line {number}: {error}") from error
    return records
