"""Journal file of an optuna study: one line per change, each with a checksum."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from wirework.errors import DamagedError, cannot_write
from wirework.file_system import sync_file
from wirework.files import is_file, read_bytes
from wirework.json_lines import Sealer, open_lines


class Journal(BaseJournalBackend):
    """Optuna journal backend in one file, for the process that holds the lock of the search.

    An incomplete last line (after a kill or a full disk) is dropped. Files written by optuna's own
    backend, without checksums, are continued.

    Args:
        path: the file; created if missing.

    Raises:
        InputError: the file cannot be read or written to, or a line of it is damaged.
    """

    def __init__(self, path: Path) -> None:
        content = read_bytes(path) if is_file(path) else b""
        self._path = path
        self._size = content.rfind(b"\n") + 1
        self._sealer = Sealer()
        try:
            self._records = open_lines(content, path, self._sealer)
        except DamagedError as error:
            raise DamagedError(f"{error}: delete {path.parent} to search anew") from error

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the changes from index `log_number_from` on."""
        return copy.deepcopy(self._records[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append changes and sync them to disk.

        Raises:
            InputError: the file cannot be written to.
        """
        sealer = copy.copy(self._sealer)  # checksums cover only lines that reach the file
        lines = [sealer.seal(log, allow_nan=True) + b"\n" for log in logs]
        try:
            with self._path.open("ab") as file:
                file.truncate(self._size)
                file.write(b"".join(lines))
                file.flush()
                sync_file(file, self._path)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._sealer = sealer
        self._size += sum(map(len, lines))
        self._records += logs
