"""The spool: an append-only record of clicks on local disk, one file per worker at a time.

Rules of this file:

1. `<spool id>.clicks` holds one record per line; a record exists once its newline is written. The number of a record in
   its spool, counted from 0, is its position. A spool's id is random and never used twice.
2. An append is one write(2) into the page cache: it survives the death of the process, and waits for no disk.
3. The writer holds an exclusive flock on its spool for as long as it may append. A spool without a lock is finished.
4. A full disk costs clicks, never a redirect: what can't be written is dropped and counted.
"""

import fcntl
import logging
import os
import secrets
from pathlib import Path

from prometheus_client import Counter

log = logging.getLogger(__name__)

SUFFIX = ".clicks"
RECORDED = Counter("linkwire_clicks_recorded", "Clicks written to a spool.")
DROPPED = Counter("linkwire_clicks_dropped", "Clicks that could not be written to a spool.")


class Spool:
    """Appends records. Opens a file at the first record, and another one when the file has grown to `segment_bytes`."""

    def __init__(self, directory: Path, *, segment_bytes: int = 16 * 1024 * 1024) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._file = -1
        self._size = 0
        self._is_dropping = False
        """The last click was dropped; said once, counted each time."""

    def append(self, record: bytes) -> None:
        """Append one record, which must not hold a newline. Never raises for the disk's sake."""
        line = record + b"\n"
        try:
            if self._file < 0 or self._size >= self._segment_bytes:
                self._open_next()
            written = os.write(self._file, line)
        except OSError as error:
            self._drop(error)
            return
        if written < len(line):
            # The line is torn and has no newline, so it is no record; nothing may follow it in this spool.
            self.close()
            self._drop(OSError("the disk took only a part of it"))
            return
        self._size += written
        self._is_dropping = False
        RECORDED.inc()

    def close(self) -> None:
        """End the current spool, so that the shipper can finish it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open_next(self) -> None:
        self.close()
        name = secrets.token_hex(8)
        # Locked before it gets its name: a spool that can be found and has no lock is finished.
        unnamed = self._directory / f".{name}.new"
        file = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(self._directory / f"{name}{SUFFIX}")
        except OSError:
            os.close(file)
            raise
        self._file, self._size = file, 0

    def _drop(self, reason: OSError) -> None:
        DROPPED.inc()
        if not self._is_dropping:
            log.error("clicks are dropped: %s", reason)
        self._is_dropping = True


def is_finished(path: Path) -> bool:
    """Whether no writer can append to this spool any more."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
