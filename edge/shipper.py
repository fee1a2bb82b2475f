"""The shipper: follows the spools of all workers, also of dead ones, and puts their clicks on the Redis stream.

Rules of this file:

1. A batch names its place in its spool, so shipping one twice is harmless: ingest stores what lies beyond the position
   it has committed. A batch that failed is shipped again. In doubt the shipper ships again from the last position it
   knows to be committed: when Redis was started again or lost its data (its run id, the epoch), and when ingest reports
   a gap.
2. What is shipped but not committed is bounded per spool, so that clicks never fill the Redis that holds the links.
3. A segment is removed when Postgres has every record of it. A spool is removed when nobody writes to it any more,
   Postgres has all of it, and the worker has answered the last report with `CLOSED`.

Runs as a process of its own beside the workers (`python -m edge.shipper`).
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import uvloop
from prometheus_client import Counter, Gauge

from edge.heads import click_bytes
from edge.segments import COUNTS_SUFFIX, NEXT_SUFFIX, SpoolReader, counts_path
from edge.settings import EdgeSettings
from shared import clicks
from shared.addresses import Networks, Proxies
from shared.clicks import Batch, SpoolReport
from shared.redis import LOST, Redis, RedisError, open_redis, run_id
from shared.settings import SettingsError, load
from shared.tasks import end

log = logging.getLogger(__name__)

SHIPPED = Counter("linkwire_clicks_shipped", "Clicks put on the stream, repeats included.")
SPOOL_BYTES = Gauge("linkwire_spool_bytes", "Disk that the spools take.", multiprocess_mode="mostrecent")
STREAM_LAG = Gauge(
    "linkwire_stream_lag_clicks", "Clicks on the stream that are not in Postgres.", multiprocess_mode="mostrecent"
)
UNSHIPPED_AGE = Gauge(
    "linkwire_spool_oldest_unshipped_seconds",
    "Age of the oldest click that is not on the stream yet.",
    multiprocess_mode="mostrecent",
)

_BATCH_BYTES = 1024 * 1024
"""Of heads; a third of it travels."""
_PORTION_BYTES = 16 * 1024
_UNCOMMITTED_RECORDS = 20_000
_FULL_RECORDS = 500
_PAUSE_S = 0.05
"""Between two looks at the spools, unless there were as many records: so that clicks travel together."""
_LOOK_EVERY_S = 0.25
"""At what nobody tells of: other spools, another Redis. A question to Redis takes a hundred times as long as a look at
mapped memory, and most machines rest most of the time."""
_REPORT_EVERY_S = 1.0
_AFTER_ERROR_S = 0.5
_LAST_WORDS_S = 4.0
_NICE = 10
_ORPHANED_AFTER_S = 60.0
_TIDY_EVERY_S = 60.0


class _Place:
    """How far a spool has come."""

    def __init__(self, directory: Path, spool: str) -> None:
        """Raises OSError."""
        self.reader = SpoolReader(directory, spool)
        self.committed = 0
        self.is_closed = False
        """The worker has answered the last report."""
        self._is_read = False
        """No worker writes to it any more, and the reader is at its end."""
        self.rewind()

    @property
    def uncommitted(self) -> int:
        """How many records are shipped and not committed."""
        return max(0, self.reader.position - self.committed)

    def learn(self, committed: bytes) -> None:
        """Take in what the worker says. Raises OSError."""
        self.is_closed = committed == clicks.CLOSED
        if self.is_closed:
            return
        before, self.committed = self.committed, int(committed)
        # Less than before: Postgres was restored. More than was shipped: another shipper had done so.
        if self.committed < before or self.committed > self.reader.position:
            self.rewind()

    def rewind(self) -> None:
        """Ship again from what is committed. Raises OSError."""
        self._is_read = False
        self.reader.seek(self.committed)

    def next_batch(self, convert: Callable[[bytes], bytes]) -> Batch | None:
        """The next records, converted. Raises OSError."""
        reader = self.reader
        reader.free(self.committed)
        if self.uncommitted >= _UNCOMMITTED_RECORDS:
            return None
        is_finished = reader.is_finished
        records: list[bytes] = []
        end = reader.bytes_read + _BATCH_BYTES
        while (left := end - reader.bytes_read) > 0 and (portion := reader.read(min(left, _PORTION_BYTES), convert)):
            records += portion
            os.sched_yield()  # a visitor waits for a portion at most, where worker and shipper share a core
        if is_finished and not records and not self.uncommitted:
            reader.skip_torn()
        self._is_read = is_finished and not records and reader.next_at_ns is None and reader.torn_until is None
        return Batch(reader.spool, reader.position - len(records), records) if records else None

    def report(self, host: str) -> SpoolReport:
        """What there is to say of it now."""
        (served, recorded, dropped), earliest = self.reader.counts, self.reader.earliest
        is_finished = (self.is_closed and self.reader.is_finished) or (self._is_read and not self.uncommitted)
        if is_finished:
            if self.reader.position < recorded:
                earliest = recorded  # a loss of power took the last ones
            # A worker that was killed may have recorded without counting, and begun without recording.
            recorded = max(recorded, self.reader.position)
            served = max(served, recorded + dropped)
            dropped = served - recorded
        else:
            served = max(served - 1, recorded + dropped)  # one may be half-way
        return SpoolReport(
            time.time_ns() // 1_000_000, host, served, recorded, dropped, earliest, is_finished, is_removed=False
        )


class Shipper:
    """Ships the spools of one directory."""

    def __init__(self, directory: Path, redis: Redis, trusted_proxies: Networks = ()) -> None:
        self._directory = directory
        self._redis = redis
        self._click_bytes = partial(click_bytes, proxies=Proxies(trusted_proxies))
        self._host = socket.gethostname()
        self._places: dict[str, _Place] = {}
        self._said: set[str] = set()
        """Spools whose trouble is in the log already."""
        self._epoch = self._run = ""

    @property
    def has_spools(self) -> bool:
        """Whether there is any spool that is not removed."""
        return any(self._directory.glob("*" + COUNTS_SUFFIX))

    @property
    def has_work(self) -> bool:
        """Whether a known spool has records that are not dealt with in Postgres."""
        return any(place.uncommitted or place.reader.next_at_ns for place in self._places.values())

    async def step(self) -> int:
        """Ship one batch of each spool that has one; the number of records shipped. Raises when Redis is away.

        What is on the stream stays there while Redis is only slow or out of reach; when it is another one, or lost
        something, `_learn` sees that before more is shipped.
        """
        for path in self._directory.glob("*" + COUNTS_SUFFIX):
            if path.stem not in self._places:
                with self._care(path.stem):
                    self._places[path.stem] = _Place(self._directory, path.stem)
        await self._learn()
        return sum([await self._ship(spool) for spool in list(self._places)])

    async def report(self) -> None:
        """Say what there is in each spool, to the worker and as metrics. Raises when Redis is away."""
        reports: dict[str, bytes] = {}
        size = lag = 0
        oldest_ns = now_ns = time.time_ns()
        for spool, place in list(self._places.items()):
            with self._care(spool):
                reports[spool] = place.report(self._host).to_bytes()
                size += place.reader.bytes_on_disk
                lag += place.uncommitted
                oldest_ns = min(oldest_ns, place.reader.next_at_ns or now_ns)
        SPOOL_BYTES.set(size)
        STREAM_LAG.set(lag)
        UNSHIPPED_AGE.set((now_ns - oldest_ns) / 1e9)
        if reports:
            await self._redis.hset(clicks.REPORTS_KEY, mapping=reports)  # type: ignore[arg-type]

    def tidy(self) -> None:
        """Remove what a worker left that was killed while it made its first files."""
        for path in (*self._directory.glob(".*" + NEXT_SUFFIX), *self._directory.glob(".*.new")):
            spool = path.name.strip(".").partition(".")[0]
            with contextlib.suppress(FileNotFoundError):
                is_old = time.time() - path.stat().st_mtime > _ORPHANED_AFTER_S
                if is_old and not counts_path(self._directory, spool).exists():
                    path.unlink()

    def flush(self) -> None:
        """Bring the spools to the disk, waiting for it; for a thread of its own."""
        for spool, place in list(self._places.items()):
            try:
                place.reader.flush()
            except OSError as error:
                log.error("spool %s can't be brought to the disk: %s", spool, error)

    async def _learn(self) -> None:
        """Take in what ingest has committed, the gaps it reports, and whether Redis is another one or lost its data."""
        reading = self._redis.pipeline(transaction=True)
        reading.get(clicks.EPOCH_KEY)
        reading.info("server")
        reading.hgetall(clicks.COMMITTED_KEY)
        reading.hgetall(clicks.GAPS_KEY)
        epoch, info, committed, gaps = await reading.execute()
        for spool, place in list(self._places.items()):
            with self._care(spool):
                place.learn(committed.get(spool.encode(), b"%d" % place.committed))
                if (missing := gaps.get(spool.encode())) is not None:
                    log.warning("records of spool %s from %s on are missing; shipping again", spool, missing.decode())
                    place.rewind()
        if ours := [spool for spool in self._places if spool.encode() in gaps]:
            await self._redis.hdel(clicks.GAPS_KEY, *ours)
        if epoch is None or epoch.decode() != self._epoch or run_id(info) != self._run:
            self._doubt()
            self._run = run_id(info)
            # Several edges share a stream and so the epoch: whoever is first sets it.
            self._epoch = secrets.token_hex(8)
            if not await self._redis.set(clicks.EPOCH_KEY, self._epoch, nx=True):
                self._epoch = (await self._redis.get(clicks.EPOCH_KEY) or b"").decode()  # type: ignore[union-attr]

    async def _ship(self, spool: str) -> int:
        place, batch, last = self._places[spool], None, None
        with self._care(spool):
            if place.is_closed and place.reader.is_finished:
                last = place.report(self._host)
            else:
                batch = place.next_batch(self._click_bytes)
        if last is not None:
            await self._remove(place, last)
        if batch is None:
            return 0
        try:
            await self._redis.xadd(clicks.STREAM, batch.to_fields())  # type: ignore[arg-type]
        except BaseException:
            with self._care(spool):
                place.reader.seek(batch.first)  # nobody knows whether it arrived
            raise
        SHIPPED.inc(len(batch.records))
        return len(batch.records)

    async def _remove(self, place: _Place, last: SpoolReport) -> None:
        spool = place.reader.spool
        last = last._replace(is_removed=True, earliest=last.recorded)
        # Said before it is done: afterwards there is nothing left to say it from.
        await self._redis.hset(clicks.REPORTS_KEY, spool, last.to_bytes())
        with self._care(spool):
            place.reader.remove()
            place.reader.close()
            del self._places[spool]
        if spool not in self._places:
            await self._redis.hdel(clicks.COMMITTED_KEY, spool)

    def _doubt(self) -> None:
        for spool, place in list(self._places.items()):
            with self._care(spool):
                place.rewind()

    @contextlib.contextmanager
    def _care(self, spool: str) -> Iterator[None]:
        """The others must not wait for a spool that can't be read. Said once; tried again while it is there."""
        try:
            yield
        except (OSError, ValueError) as error:
            if spool not in self._said:
                log.error("spool %s can't be shipped: %s", spool, error)
                self._said.add(spool)
            if spool in self._places and isinstance(error, FileNotFoundError):  # somebody took it away
                self._places.pop(spool).reader.close()


async def run(settings: EdgeSettings, stop: asyncio.Event) -> None:
    """Ship until told to stop; then what the workers have left, if that is quick. The rest waits on disk."""
    settings.spool_directory.mkdir(parents=True, exist_ok=True)
    redis = open_redis(settings.redis(), timeout_s=2.0)
    shipper = Shipper(settings.spool_directory, redis, settings.trusted_proxies)
    flushing = asyncio.create_task(_flush(shipper, settings.spool_flush_interval_s))
    look_at = report_at = tidy_at = 0.0
    while not stop.is_set():
        if time.monotonic() >= tidy_at:
            shipper.tidy()
            tidy_at = time.monotonic() + _TIDY_EVERY_S
        pause_s = _PAUSE_S
        try:
            if shipper.has_work or time.monotonic() >= look_at:
                pause_s = 0.0 if await shipper.step() >= _FULL_RECORDS else _PAUSE_S
                look_at = time.monotonic() + _LOOK_EVERY_S
            if time.monotonic() >= report_at:
                await shipper.report()
                report_at = time.monotonic() + _REPORT_EVERY_S
        except (*LOST, RedisError) as error:
            log.warning("clicks wait in the spool: %s", error)
            pause_s = _AFTER_ERROR_S
        if pause_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await stop.wait()
    with contextlib.suppress(*LOST, RedisError):
        async with asyncio.timeout(_LAST_WORDS_S):
            # Looked at, too, because redis-py may lose a cancellation on Python 3.11 (shared/tasks.py).
            until = time.monotonic() + _LAST_WORDS_S
            while shipper.has_spools and time.monotonic() < until:
                if not await shipper.step():
                    await shipper.report()
                    await asyncio.sleep(_PAUSE_S)
    await end(flushing)
    await redis.aclose()


async def _flush(shipper: Shipper, interval_s: int) -> None:
    while interval_s:
        await asyncio.sleep(interval_s)
        await asyncio.to_thread(shipper.flush)


def main() -> None:
    """`python -m edge.shipper`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = load(EdgeSettings)
        settings.redis()
    except SettingsError as error:
        sys.exit(str(error))

    # Visitors first, where both want the same core.
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # niceness counts only within a session, where Linux groups processes by it
        Path("/proc/self/autogroup").write_text(str(_NICE))

    async def until_signal() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(settings, stop)

    uvloop.run(until_signal())


if __name__ == "__main__":
    main()
