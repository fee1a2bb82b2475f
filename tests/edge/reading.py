"""Spools as a test reads them: one that was written for it, and what is in one."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from edge.segments import Counts, Record, SpoolReader
from tests.edge.spools import write

SPOOL = "0123456789abcdef"
Segments = list[list[bytes]]
SEGMENTS: st.SearchStrategy[Segments] = st.lists(
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5), min_size=1, max_size=5
)
SLACKS = st.sampled_from([0, 4, 400])
"""Bytes that a segment has behind its records; none when the last record fills it."""

Opened = Callable[..., tuple[Path, SpoolReader]]

reading = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def open_spools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Make it a fixture: it writes a spool of these segments, in a directory of its own, and opens it."""
    with contextlib.ExitStack() as readers:

        def open_(*segments: list[bytes], slack: int = 64) -> tuple[Path, SpoolReader]:
            directory = tmp_path_factory.mktemp("spool")
            write(directory, SPOOL, *segments, slack=slack)
            reader = SpoolReader(directory, SPOOL)
            readers.callback(reader.close)
            return directory, reader

        yield open_


def flat(segments: Segments) -> list[bytes]:
    return [record for records in segments for record in records]


def firsts(segments: Segments) -> list[int]:
    """The numbers of the first records of the segments."""
    return [0, *accumulate(map(len, segments))][:-1]


def everything(reader: SpoolReader) -> list[bytes]:
    """All records that there are now."""
    return reader.read(2**30)


def heads(directory: Path, spool: str) -> list[bytes]:
    """The heads of all records of a spool, as a reader of its own finds them."""
    reader = SpoolReader(directory, spool)
    found = [Record.from_bytes(record).head for record in reader.read(2**30)]
    reader.close()
    return found


def counts(directory: Path, spool: str) -> Counts:
    """What its writer has counted."""
    reader = SpoolReader(directory, spool)
    found = reader.counts
    reader.close()
    return found
