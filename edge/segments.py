"""Segments: what a spool is on disk, for the worker that writes it and the shipper that reads it.

Rules of this file:

1. A spool has a random id, never used twice. `<id>.spool` holds its counts, and its writer holds an exclusive flock on
   it for as long as it may append. `<id>-<first>.clicks` are its segments, named after their first record's number.
2. A segment is records, one behind the other, up to the first length that is zero. A record is four bytes of length,
   that many bytes, and nothing up to a multiple of four. It exists once its length is written, which happens last.
3. A record holds what is cheapest to append: when, which link, from where, and the head of the request as it came.
   Numbers are in the machine's own byte order, because spools never leave it.
"""

import contextlib
import fcntl
import mmap
import os
import struct
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

COUNTS_SUFFIX = ".spool"
SEGMENT_SUFFIX = ".clicks"
NEXT_SUFFIX = ".next"
COUNTS_BYTES = 64
SERVED, RECORDED, DROPPED = range(3)
"""The places of the counts in `<id>.spool`, eight bytes each."""

_COUNTS = struct.Struct("=QQQ")
_RECORD = struct.Struct("=QQQ")
_OUTCOME = struct.Struct("=IIB")
_IS_USE, _HAS_ID = 1, 2
_HAS_OUTCOME = 1 << 63
"""On the number of an organization: an outcome comes behind it. A plain link has none, and its records stay short."""


class Counts(NamedTuple):
    """What a worker says of its spool."""

    served: int
    recorded: int
    dropped: int


class Record(NamedTuple):
    """One redirect that happened, as the worker saw it."""

    at_ns: int
    """Nanoseconds since 1970."""
    link_id: int
    organization_id: int
    peer: str
    """The address of whoever is at the other end of the connection; empty for a unix socket."""
    head: bytes
    """The request line and the header lines, with their line ends."""
    rule_id: int = 0
    variant_id: int = 0
    is_use: bool = False
    has_id: bool = False

    @classmethod
    def from_bytes(cls, record: bytes) -> "Record":
        """Raises ValueError for one that was torn, as a loss of power may leave it."""
        try:
            at_ns, link_id, organization_id = _RECORD.unpack_from(record)
            outcome, peer_at = (0, 0, 0), _RECORD.size
            if organization_id & _HAS_OUTCOME:
                outcome, peer_at = _OUTCOME.unpack_from(record, peer_at), peer_at + _OUTCOME.size
            peer_at, head_at = peer_at + 1, peer_at + 1 + record[peer_at]
        except (struct.error, IndexError) as error:
            raise ValueError("the record is too short") from error
        rule_id, variant_id, flags = outcome
        return cls(
            at_ns,
            link_id,
            organization_id & ~_HAS_OUTCOME,
            record[peer_at:head_at].decode("ascii"),
            record[head_at:],
            rule_id,
            variant_id,
            bool(flags & _IS_USE),
            bool(flags & _HAS_ID),
        )


def link_bytes(
    link_id: int,
    organization_id: int,
    *,
    rule_id: int = 0,
    variant_id: int = 0,
    is_use: bool = False,
    has_id: bool = False,
) -> bytes:
    """The part of a record that says which link, and what `shared.clicks.Click` says of the link's part in it."""
    if not (rule_id or variant_id or is_use or has_id):
        return struct.pack("=QQ", link_id, organization_id)
    outcome = _OUTCOME.pack(rule_id, variant_id, _IS_USE * is_use | _HAS_ID * has_id)
    return struct.pack("=QQ", link_id, organization_id | _HAS_OUTCOME) + outcome


def peer_bytes(address: str) -> bytes:
    """The part of a record that says from where."""
    text = address.encode("ascii", "replace")[:255]
    return bytes([len(text)]) + text


def counts_path(directory: Path, spool: str) -> Path:
    """Where the counts of a spool are."""
    return directory / f"{spool}{COUNTS_SUFFIX}"


def segment_path(directory: Path, spool: str, first: int) -> Path:
    """Where the segment is that begins with record number `first`."""
    return directory / f"{spool}-{first:016d}{SEGMENT_SUFFIX}"


def next_path(directory: Path, spool: str) -> Path:
    """Where a segment is while it waits for its turn."""
    return directory / f".{spool}{NEXT_SUFFIX}"


class SpoolReader:
    """Reads the records of one spool in their order, and removes what is no longer needed."""

    def __init__(self, directory: Path, spool: str) -> None:
        """Raises OSError when there is no such spool."""
        self.spool = spool
        self._directory = directory
        self._file = os.open(counts_path(directory, spool), os.O_RDONLY | os.O_CLOEXEC)
        self.position = 0
        """The number of the record that `read` gives next."""
        self.bytes_read = 0
        """How many bytes of records it has given so far."""
        self.earliest = 0
        """The number of the first record that can still be read."""
        self.torn_until: int | None = None
        """The number of the first record after those that a loss of power has destroyed, if `position` is the first of
        them; `skip_torn` goes there."""
        self._first = self._flushed = -1
        self._segment: mmap.mmap | None = None
        self._lengths = memoryview(b"")
        self._offset = 0

    def close(self) -> None:
        """Let go of the files."""
        self._leave()
        os.close(self._file)

    @property
    def counts(self) -> Counts:
        """What the worker has counted so far."""
        return Counts(*_COUNTS.unpack(os.pread(self._file, _COUNTS.size, 0).ljust(_COUNTS.size, b"\0")))

    @property
    def is_finished(self) -> bool:
        """Whether no worker can append any more. Raises FileNotFoundError when these counts are not the spool's now."""
        if os.fstat(self._file).st_ino != counts_path(self._directory, self.spool).stat().st_ino:
            raise FileNotFoundError(f"the counts of spool {self.spool} were made again")
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return True

    @property
    def bytes_on_disk(self) -> int:
        """What its segments take. Raises OSError."""
        return sum(segment_path(self._directory, self.spool, first).stat().st_size for first in self._segments())

    @property
    def next_at_ns(self) -> int | None:
        """When the record at `position` was made; None when there is none yet."""
        if self._segment is None or not self._next_length():
            return None
        return int.from_bytes(self._segment[self._offset + 4 : self._offset + 12], sys.byteorder)

    def read(self, max_bytes: int, convert: Callable[[bytes], bytes] = bytes) -> list[bytes]:
        """The next records, about as many bytes of them; fewer or none when there are no more yet. Raises OSError.

        Each is converted as it is read, while it is in the cache.
        """
        records: list[bytes] = []
        left = max_bytes
        while True:
            left -= self._take(records, left, convert)
            if left <= 0 and self._next_length():
                return records
            upcoming = min((first for first in self._segments() if first > self._first), default=None)
            # Once it is there nothing is added to the current one, and what was added meanwhile comes first.
            left -= self._take(records, left, convert)
            if upcoming is None or (left <= 0 and upcoming != self.position):
                return records
            if upcoming != self.position:
                self.torn_until = upcoming
                return records
            self._enter(upcoming)

    def skip_torn(self) -> None:
        """Give up what is destroyed. Raises OSError."""
        if self.torn_until is not None:
            self.earliest = self.torn_until
            self._enter(self.torn_until)

    def seek(self, position: int) -> None:
        """Read next the record with this number, or the earliest one if that is gone. Raises OSError."""
        segments = self._segments()
        if not segments:
            return
        self.earliest = max(self.earliest, segments[0])
        self._enter(max((first for first in segments if first <= position), default=segments[0]))
        while self.position < position and (length := self._next_length()):
            self._offset += 4 + length + (-length & 3)
            self.position += 1

    def free(self, committed: int) -> None:
        """Remove the segments that hold only records before this number, but never the one that grows."""
        segments = self._segments()
        for first, following in pairwise(segments):
            if following > committed or first == self._first:
                break
            segment_path(self._directory, self.spool, first).unlink(missing_ok=True)
            self.earliest = max(self.earliest, following)

    def remove(self) -> None:
        """Remove all of the spool, its counts last: they are what it is found by."""
        for first in self._segments():
            segment_path(self._directory, self.spool, first).unlink(missing_ok=True)
        next_path(self._directory, self.spool).unlink(missing_ok=True)
        counts_path(self._directory, self.spool).unlink(missing_ok=True)

    def flush(self) -> None:
        """Bring what was written to the disk; this waits for it, in any thread. Raises OSError."""
        unflushed = [first for first in self._segments() if first >= self._flushed]
        paths = [segment_path(self._directory, self.spool, first) for first in unflushed]
        # The directory too: without their names, segments are lost.
        for path in (*paths, counts_path(self._directory, self.spool), self._directory):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(file)
                finally:
                    os.close(file)
        self._flushed = max(unflushed, default=self._flushed)

    def _take(self, records: list[bytes], max_bytes: int, convert: Callable[[bytes], bytes]) -> int:
        """Append the next records of the current segment; how many bytes they have."""
        segment, lengths, offset = self._segment, self._lengths, self._offset
        if segment is None:
            return 0
        taken, before, end = 0, len(records), len(segment)
        while taken < max_bytes and offset < end and (length := lengths[offset >> 2]) and offset + 4 + length <= end:
            records.append(convert(segment[offset + 4 : offset + 4 + length]))
            offset += 4 + length + (-length & 3)
            taken += length
        self._offset = offset
        self.bytes_read += taken
        self.position += len(records) - before
        return taken

    def _next_length(self) -> int:
        """The length of the record at `position`; 0 when the segment has none."""
        if self._segment is None or self._offset >= len(self._segment):
            return 0
        length = self._lengths[self._offset >> 2]
        return length if self._offset + 4 + length <= len(self._segment) else 0

    def _enter(self, first: int) -> None:
        self._leave()
        with segment_path(self._directory, self.spool, first).open("rb") as file:
            # Whole words: a loss of power may leave a file of any size. One without any is a segment without records.
            size = os.fstat(file.fileno()).st_size & -4
            self._segment = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else mmap.mmap(-1, 4)
        self._lengths = memoryview(self._segment).cast("I")
        self._first = self.position = first
        self._offset = 0
        self.torn_until = None

    def _leave(self) -> None:
        if self._segment is not None:
            self._lengths.release()
            self._segment.close()
            self._segment = None

    def _segments(self) -> list[int]:
        """The numbers of the first records of the segments, in their order."""
        names = self._directory.glob(f"{self.spool}-*{SEGMENT_SUFFIX}")
        return sorted(int(path.stem.rpartition("-")[2]) for path in names)
