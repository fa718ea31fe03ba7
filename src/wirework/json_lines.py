"""Files of JSON lines that only grow, each line with a checksum over all lines up to it.

A line is a JSON object whose last entry, `sum`, is made of the sum before it and of the line's own
text. An altered, lost or added line in the middle is found; lines lost at the end are not. Older
files have lines without a sum: these may come first, never after a line with one. The first line
with a sum also has `"checksum": "sum"`, so that a file whose sums were taken off is not taken for
an older one.
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
"""In the first line with a sum: from here on every line has one, under this name."""


class Sealer:
    """Writes and checks the sums of lines, one after the other."""

    def __init__(self) -> None:
        self._sum = b""
        self._sealed = False

    def seal(self, record: Mapping[str, Any], *, allow_nan: bool = False) -> bytes:
        """Return a record as the next line, with its sum, without the line's end.

        Args:
            record: at least one entry, none called `sum` or `checksum`.
            allow_nan: write NaN and infinity, which JSON lacks, as Python reads them.
        """
        marked = record if self._sealed else {**record, **_MARK}
        text = json.dumps(marked, allow_nan=allow_nan).encode()
        self._sealed = True
        self._add(text)
        return text[:-1] + b', "sum": "' + self._sum + b'"}'

    def opened(self, line: bytes) -> dict[str, Any]:
        """Return the record of the next line, without its sum and mark.

        Raises:
            ValueError: it is no JSON object, or does not match its sum.
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
    """Return the lines that have their end; a last one without is still being written."""
    return content.split(b"\n")[:-1]


def open_lines(content: bytes, path: Path, sealer: Sealer | None = None) -> list[dict[str, Any]]:
    """Return the records of whole lines.

    Args:
        content: of the file, from its beginning.
        path: for the message.
        sealer: a new one, which can then seal what is appended.

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
