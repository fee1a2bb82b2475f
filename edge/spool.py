"""The spool: a worker's append-only record of clicks, in memory that is a file (its format: segments.py).

Rules of this file:

1. An append is a copy into shared pages and no system call. It survives the death of the process and waits for no disk.
2. The next segment is made ahead of need, really allocated, by a thread: a full disk is met there, never by an append.
3. What can't be recorded is dropped and counted; the redirect goes on.
4. The heads of requests stay no longer than needed: a segment is left after a minute, however empty, so that the
   shipper can remove it.
"""

import contextlib
import errno
import fcntl
import logging
import mmap
import os
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import NamedTuple

from edge.segments import (
    COUNTS_BYTES,
    DROPPED,
    NEXT_SUFFIX,
    RECORDED,
    SEGMENT_SUFFIX,
    SERVED,
    counts_path,
    next_path,
    segment_path,
)

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024
_LEAVE_AFTER_S = 60.0
_TRY_AGAIN_AFTER_S = 1.0
# The busiest worker needs a fifth of a second for a segment, so the next one is there. If the disk hesitates all the
# same, one visitor waits this long, once, before clicks are dropped.
_LONGEST_WAIT_S = 0.2


class _Segment(NamedTuple):
    path: Path
    memory: mmap.mmap
    lengths: memoryview

    def close(self) -> None:
        self.lengths.release()
        self.memory.close()

    def leave(self, end: int) -> None:
        """Give back what is not used. Up to its page's end the zero stays that tells a reader that it has all."""
        size = len(self.memory)
        self.close()
        with contextlib.suppress(OSError):
            os.truncate(self.path, min(size, -(-(end + 4) // mmap.PAGESIZE) * mmap.PAGESIZE))


class Spool:
    """Appends records. Without room on the disk it can be made all the same, and drops until there is some."""

    def __init__(self, directory: Path, *, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        """`max_bytes` bounds the segments of all spools in the directory; it is looked at for each new segment."""
        self.id = secrets.token_hex(8)
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._counts = memoryview(bytearray(COUNTS_BYTES)).cast("Q")
        self._counts_map: mmap.mmap | None = None
        self._thread = ThreadPoolExecutor(1, "spool")
        self._segment: _Segment | None = None
        self._entered_at = self._failed_at = -float("inf")
        self._is_dropping = False
        """Said once, counted each time."""
        self._end = self._size = 0
        """Where the next record begins in the segment, and where the segment ends."""
        self._next = self._thread.submit(self._make_segment)
        self._enter_next()

    @property
    def recorded(self) -> int:
        """How many records there are."""
        return int(self._counts[RECORDED])

    @property
    def dropped(self) -> int:
        """How many appends found no room."""
        return int(self._counts[DROPPED])

    def append(self, link: bytes, peer: bytes, head: bytes) -> bool:
        """Append a record of `segments.link_bytes`, `segments.peer_bytes` and a head; whether there was room.

        Does in a microsecond what `Record` describes; that is why nothing here is taken apart.
        """
        self._counts[SERVED] += 1
        record = b"".join((time.time_ns().to_bytes(8, sys.byteorder), link, peer, head))
        length = len(record)
        begin = self._end
        if begin + 4 + length > self._size:
            if length + 4 > self._segment_bytes or not self._enter_next():
                self._counts[DROPPED] += 1
                return False
            begin = 0
        segment = self._segment
        segment.memory[begin + 4 : begin + 4 + length] = record  # type: ignore[union-attr]
        segment.lengths[begin >> 2] = length  # type: ignore[union-attr]
        self._end = begin + 4 + length + (-length & 3)
        self._counts[RECORDED] += 1
        return True

    def tend(self) -> None:
        """Once a second: leave a segment that has been used for a minute, and look for room where there was none."""
        if self._next.done() and self._next.exception() is not None:
            self._next = self._thread.submit(self._make_segment)
        elif self._size == 0 or (self._end and time.monotonic() - self._entered_at > _LEAVE_AFTER_S):
            self._enter_next()

    def close(self) -> None:
        """End the spool, so that the shipper can finish it."""
        self._thread.shutdown()
        if self._segment is not None:
            self._segment.close()
        if self._next.exception() is None:
            self._next.result().close()
        next_path(self._directory, self.id).unlink(missing_ok=True)
        if self._counts_map is not None:
            self._counts.release()
            self._counts_map.close()  # it holds the lock, too

    def _enter_next(self) -> bool:
        """Go on in the next segment; whether there is one."""
        is_late = not self._next.done() and self._is_dropping
        if is_late or time.monotonic() - self._failed_at < _TRY_AGAIN_AFTER_S:
            return False
        try:
            segment = self._next.result(_LONGEST_WAIT_S)
            if self._counts_map is None or not counts_path(self._directory, self.id).exists():
                self._make_counts()  # at the start, and after somebody took the files away
            # The name says where it begins, so it gets it only now.
            path = segment_path(self._directory, self.id, self.recorded)
            segment.path.rename(path)
        except (OSError, FutureTimeoutError) as error:
            self._fail(error)
            return False
        if self._segment is not None:
            self._thread.submit(self._segment.leave, self._end)
        self._segment, self._end, self._size = segment._replace(path=path), 0, self._segment_bytes
        self._entered_at = time.monotonic()
        self._is_dropping = False
        self._next = self._thread.submit(self._make_segment)
        return True

    def _fail(self, error: Exception) -> None:
        if not self._is_dropping:
            log.error("there is no room for clicks: %s", str(error) or "the disk is too slow")
        self._is_dropping = True
        if self._next.done():
            self._failed_at = time.monotonic()
            if self._next.exception() is not None or isinstance(error, FileNotFoundError):
                self._next = self._thread.submit(self._make_segment)

    def _make_segment(self) -> _Segment:
        used = 0
        with os.scandir(self._directory) as found:
            for segment in found:
                if segment.name.endswith((SEGMENT_SUFFIX, NEXT_SUFFIX)):
                    with contextlib.suppress(FileNotFoundError):  # the shipper has just removed it
                        used += segment.stat().st_size
        if used + self._segment_bytes > self._max_bytes:
            raise OSError(errno.ENOSPC, "the spools have reached LINKWIRE_SPOOL_MAX_BYTES")
        path = next_path(self._directory, self.id)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, self._segment_bytes)
            memory = mmap.mmap(file, self._segment_bytes)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        return _Segment(path, memory, memoryview(memory).cast("I"))

    def _make_counts(self) -> None:
        path = counts_path(self._directory, self.id)
        # Locked before it gets its name: a spool that can be found and has no lock is finished.
        unnamed = path.with_name(f".{path.name}.new")
        file = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(file, 0, COUNTS_BYTES)
            memory = mmap.mmap(file, COUNTS_BYTES)  # keeps the file open, and so the lock
            unnamed.rename(path)
        except OSError:
            unnamed.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        counts = memoryview(memory).cast("Q")
        counts[:] = self._counts
        self._counts, self._counts_map = counts, memory
