"""Spools for tests: with the records that a test wants, and what became of them on the way to Postgres."""

import asyncio
import contextlib
import fcntl
import mmap
import os
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge.segments import (
    COUNTS_BYTES,
    COUNTS_SUFFIX,
    Counts,
    counts_path,
    link_bytes,
    next_path,
    peer_bytes,
    segment_path,
)
from edge.settings import EdgeSettings
from edge.shipper import Shipper
from edge.shipper import run as run_shipper
from edge.spool import Spool
from shared import clicks
from shared.clicks import Batch, Click, SpoolReport
from shared.redis import Redis
from shared.settings import load
from tests.shared.waiting import until

LINK = link_bytes(7, 3)
PEER = peer_bytes("203.0.113.7")
SEGMENT_BYTES = 64 * 1024
FIXED_BYTES = 8 + len(LINK) + len(PEER)
"""Of a record of `LINK` and `PEER`, before the head."""


def be_patient() -> Iterator[None]:
    """Make it a fixture where a test appends to a `Spool`: a disk that is busy with other tests drops nothing then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.spool._LONGEST_WAIT_S", 30.0)
        yield


def new_spool(directory: Path, *, max_bytes: int = 2**30, segment_bytes: int = SEGMENT_BYTES) -> Spool:
    return Spool(directory, max_bytes=max_bytes, segment_bytes=segment_bytes)


def head(agent: bytes) -> bytes:
    """The head of a request of this agent."""
    return b"GET /x HTTP/1.1\r\nHost: go.example\r\nUser-Agent: %s\r\n\r\n" % agent


def append(spool: Spool, *agents: bytes) -> None:
    """A visit of each of them."""
    for agent in agents:
        spool.append(LINK, PEER, head(agent))


def append_heads(spool: Spool, *heads: bytes) -> None:
    """A visit with each of them."""
    for head in heads:
        spool.append(LINK, PEER, head)


def visits(*agents: bytes, at_ns: int = 1_700_000_000_000_000_000) -> list[bytes]:
    """Records of a visit of each of them."""
    return [at_ns.to_bytes(8, sys.byteorder) + LINK + PEER + head(agent) for agent in agents]


def segment(records: Sequence[bytes], slack: int = 0) -> bytes:
    """A segment with these records, and as many bytes behind them."""
    padded = [struct.pack("=I", len(record)) + record + bytes(-len(record) % 4) for record in records]
    return b"".join(padded) + bytes(slack)


def write(
    directory: Path, spool: str, *segments: Sequence[bytes], counts: Counts | None = None, slack: int = 64
) -> None:
    """A spool that nobody writes to any more, with the records of these segments."""
    first = 0
    for records in segments:
        segment_path(directory, spool, first).write_bytes(segment(records, slack))
        first += len(records)
    counts = counts or Counts(first, first, 0)
    counts_path(directory, spool).write_bytes(struct.pack("=QQQ", *counts).ljust(COUNTS_BYTES, b"\0"))


def tear(directory: Path, spool: str, first: int, *, after: int) -> None:
    """Make zeros of a segment behind as many records of it, as a loss of power may leave it."""
    path = segment_path(directory, spool, first)
    content, offset = path.read_bytes(), 0
    for _ in range(after):
        length = int.from_bytes(content[offset : offset + 4], sys.byteorder)
        offset += 4 + length + -length % 4
    path.write_bytes(content[:offset].ljust(len(content), b"\0"))


@contextlib.contextmanager
def held(directory: Path, spool: str) -> Iterator[None]:
    """Hold the lock of a spool, as the worker does that writes to it."""
    with counts_path(directory, spool).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def spools(directory: Path) -> set[str]:
    """The spools that the shipper would find."""
    return {path.stem for path in directory.glob("*" + COUNTS_SUFFIX)}


def segments(directory: Path, spool: str) -> list[int]:
    """The numbers of the first records of its segments."""
    return sorted(int(path.stem.rpartition("-")[2]) for path in directory.glob(f"{spool}-*.clicks"))


def has_next(directory: Path, spool: str) -> bool:
    """Whether the next segment is made."""
    path = next_path(directory, spool)
    return path.exists() and path.stat().st_size > 0


def dirty_kb(path: Path) -> int:
    """How much of a file waits in memory to be written to the disk."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        assert len(memory[:: mmap.PAGESIZE]) > 0  # pages must be touched to be listed
        is_ours, found = False, 0
        for line in Path("/proc/self/smaps").read_text().splitlines():
            name, *values = line.split()
            if not name.endswith(":"):
                is_ours = line.endswith(str(path))
            elif is_ours and name in ("Shared_Dirty:", "Private_Dirty:"):
                found += int(values[0])
        return found


def is_kept_in_memory(directory: Path) -> bool:
    """Whether the file system has no disk."""
    path = directory / "probe"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return dirty_kb(path) > 0


async def entries(redis: Redis) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of the stream, oldest first."""
    found: Any = await redis.xrange(clicks.STREAM)
    return list(found)


async def on_stream(redis: Redis) -> list[tuple[bytes, Batch]]:
    """The batches on the stream, oldest first, with the agents in place of the records."""
    batches = [(entry_id, Batch.from_fields(fields)) for entry_id, fields in await entries(redis)]
    return [
        (entry_id, batch._replace(records=[Click.from_bytes(record).user_agent.encode() for record in batch.records]))
        for entry_id, batch in batches
    ]


async def reported(redis: Redis) -> dict[str, SpoolReport]:
    """What the shippers have said."""
    reports: Any = await redis.hgetall(clicks.REPORTS_KEY)
    return {spool.decode(): SpoolReport.from_bytes(value) for spool, value in reports.items()}


class Machine:
    """The spools of a machine, and the shipper that follows them."""

    def __init__(self, directory: Path, redis: Redis) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.redis = redis
        self.shipper = Shipper(directory, redis)

    @property
    def spools(self) -> set[str]:
        """Those that a shipper would find."""
        return spools(self.directory)

    def new_spool(self, *, segment_bytes: int = SEGMENT_BYTES) -> Spool:
        return new_spool(self.directory, segment_bytes=segment_bytes)

    def write(self, spool: str, *segments: Sequence[bytes], counts: Counts | None = None) -> None:
        """A spool that nobody writes to any more, with the records of these segments."""
        write(self.directory, spool, *segments, counts=counts)

    async def step(self) -> int:
        return await self.shipper.step()

    async def ship_all(self) -> int:
        """Step until there is nothing to ship; the number of records."""
        count = 0
        for _ in range(200):
            taken = await self.shipper.step()
            if not taken:
                return count
            count += taken
        raise AssertionError("it ships without end")

    async def shipped(self) -> list[Batch]:
        """The batches on the stream, with the agents in place of the records."""
        return [batch for _, batch in await on_stream(self.redis)]

    async def commit(self, spool: str, position: int | bytes) -> None:
        """Tell the shipper, as ingest does after its transaction."""
        await self.redis.hset(clicks.COMMITTED_KEY, spool, position)

    async def commit_all(self, spool: str, position: int) -> None:
        """Ship what there is, commit so much of it, and let the shipper see that there is no more."""
        await self.ship_all()
        await self.commit(spool, position)
        await self.ship_all()

    async def report(self, spool: str) -> SpoolReport:
        """What the shipper says of a spool after another step."""
        await self.shipper.step()
        await self.shipper.report()
        return (await reported(self.redis))[spool]

    async def finish(self, ingest: "Ingest") -> None:
        """Go on until no spool is left."""
        deadline = time.monotonic() + 30
        while self.spools:
            await self.shipper.step()
            await self.shipper.report()
            await ingest.step()
            assert time.monotonic() < deadline, "the spools stay"


async def make_machine(tmp_path: Path, redis: Redis) -> Machine:
    """Make it a fixture."""
    return Machine(tmp_path / "spool", redis)


def edge_settings(home: Path, redis_url: str, **more: str) -> EdgeSettings:
    return load(EdgeSettings, {"LINKWIRE_HOME": str(home), "REDIS_URL": redis_url, **more}, home)


@contextlib.asynccontextmanager
async def running(settings: EdgeSettings, *, last_words_s: float = 4.0) -> AsyncIterator[Path]:
    """The directory that a running shipper follows, which is then told to stop."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_shipper(settings, stop))
    try:
        await until(settings.spool_directory.is_dir)
        yield settings.spool_directory
    finally:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edge.shipper._LAST_WORDS_S", last_words_s)
            stop.set()
            await asyncio.wait_for(task, 10)


class Ingest:
    """What the worker does with the stream and the reports, with a list for each spool in place of Postgres."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.stored: dict[str, list[bytes]] = {}
        """The agents; `LOST` for each record that nobody has."""

    async def step(self) -> None:
        for entry_id, batch in await on_stream(self.redis):
            stored = self.stored.setdefault(batch.spool, [])
            position = len(stored)
            if batch.first > position:
                await self.redis.hset(clicks.GAPS_KEY, batch.spool, str(position))
            else:
                stored.extend(batch.records[position - batch.first :])
            await self.redis.hset(clicks.COMMITTED_KEY, batch.spool, str(len(stored)))
            await self.redis.xdel(clicks.STREAM, entry_id)
        for spool, report in (await reported(self.redis)).items():
            stored = self.stored.setdefault(spool, [])
            stored.extend([LOST] * (report.earliest - len(stored)))
            is_closed = report.is_finished and len(stored) >= report.recorded
            if not report.is_removed:
                position_told = clicks.CLOSED if is_closed else str(len(stored))
                await self.redis.hset(clicks.COMMITTED_KEY, spool, position_told)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Go on until it holds."""

        async def holds() -> bool:
            await self.step()
            return condition()

        await until(holds)


LOST = b"lost"
