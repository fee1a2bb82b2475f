"""The shipper: follows the spools of all workers, also of dead ones, and puts their records on the Redis stream.

Rules of this file:

1. A batch names its place in its spool, so shipping one twice is harmless: ingest stores what lies beyond the position
   it has committed. In doubt the shipper ships again, from the last position it knows to be committed. It is in doubt
   after an error, after Redis lost its data (the epoch has gone) and when ingest reports a gap.
2. What is shipped but not committed is bounded per spool, so that clicks never fill the Redis that holds the links.
3. A spool's file is removed when no worker writes to it any more and Postgres has every record of it.

Runs as a process of its own beside the workers (`python -m edge.shipper`).
"""

import asyncio
import contextlib
import logging
import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter

from edge.settings import EdgeSettings
from edge.spool import SUFFIX, is_finished
from shared import clicks
from shared.clicks import Batch
from shared.redis import LOST, Redis, RedisError, open_redis
from shared.settings import SettingsError, load

log = logging.getLogger(__name__)

SHIPPED = Counter("linkwire_clicks_shipped", "Clicks put on the stream, repeats included.")

_BATCH_BYTES = 256 * 1024
_UNCOMMITTED_RECORDS = 20_000
_IDLE_S = 0.05
_AFTER_ERROR_S = 0.5
_LAST_WORDS_S = 2.0


@dataclass
class _Place:
    """How far a spool has come."""

    path: Path
    committed: int = 0
    shipped: int = 0
    offset: int = 0
    """The byte in the file where record number `shipped` begins."""

    def rewind(self) -> None:
        """Ship again from what is committed."""
        self.shipped, self.offset = 0, 0

    def next_batch(self) -> Batch:
        """The next complete records after `shipped`; advances. Skips what is committed."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            chunk = file.read(_BATCH_BYTES)
            while b"\n" not in chunk and (more := file.read(_BATCH_BYTES)):
                chunk += more
        whole, newline, _torn = chunk.rpartition(b"\n")
        records = whole.split(b"\n") if newline else []
        first = self.shipped
        self.shipped += len(records)
        self.offset += len(whole) + len(newline)
        known = min(max(self.committed - first, 0), len(records))
        return Batch(self.path.stem, first + known, records[known:])

    @property
    def is_finished(self) -> bool:
        """Whether no worker writes to it any more and nothing is left to ship but, perhaps, a torn line."""
        if not is_finished(self.path):
            return False
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return b"\n" not in file.read()


class Shipper:
    """Ships the spools of one directory."""

    def __init__(self, directory: Path, redis: Redis) -> None:
        self._directory = directory
        self._redis = redis
        self._places: dict[str, _Place] = {}
        self._said: set[str] = set()
        """Spools whose trouble is in the log already."""
        self._epoch: str | None = None

    async def step(self) -> int:
        """Ship one batch of each spool that has one; the number of records shipped. Raises when Redis is away."""
        for path in self._directory.glob("*" + SUFFIX):
            self._places.setdefault(path.stem, _Place(path))
        try:
            await self._learn()
            return sum([await self._ship(place) for place in list(self._places.values())])
        except (*LOST, RedisError):
            # Nobody knows what arrived.
            for place in self._places.values():
                place.rewind()
            raise

    async def _learn(self) -> None:
        """Take in what ingest has committed, the gaps it reports, and whether Redis lost its data."""
        reading = self._redis.pipeline(transaction=True)
        reading.get(clicks.EPOCH_KEY)
        reading.hgetall(clicks.COMMITTED_KEY)
        reading.hgetall(clicks.GAPS_KEY)
        epoch, committed, gaps = await reading.execute()
        for name, place in self._places.items():
            # What Redis says counts also when it is less than before: Postgres may have been restored.
            place.committed = int(committed.get(name.encode(), place.committed))
            if (position := gaps.get(name.encode())) is not None:
                log.warning(
                    "ingest misses records of spool %s from %s on; shipping them again", name, position.decode()
                )
                place.rewind()
                await self._redis.hdel(clicks.GAPS_KEY, name)
        if epoch is None or epoch.decode() != self._epoch:
            for place in self._places.values():
                place.rewind()
            # Several edges share a stream and so the epoch: whoever is first sets it.
            self._epoch = secrets.token_hex(8)
            if not await self._redis.set(clicks.EPOCH_KEY, self._epoch, nx=True):
                self._epoch = (await self._redis.get(clicks.EPOCH_KEY) or b"").decode()  # type: ignore[union-attr]

    async def _ship(self, place: _Place) -> int:
        if place.shipped - place.committed >= _UNCOMMITTED_RECORDS:
            return 0
        try:
            batch = place.next_batch()
            is_done = not batch.records and place.committed >= place.shipped and place.is_finished
            if is_done:
                place.path.unlink()
        except OSError as error:
            # The others must not wait for it. Said once; tried again for as long as the file is there.
            if place.path.stem not in self._said:
                log.error("a spool can't be shipped: %s", error)
                self._said.add(place.path.stem)
            if isinstance(error, FileNotFoundError):  # another shipper has finished it, or somebody took it away
                del self._places[place.path.stem]
            return 0
        if batch.records:
            await self._redis.xadd(clicks.STREAM, batch.to_fields())  # type: ignore[arg-type]
            SHIPPED.inc(len(batch.records))
        elif is_done:
            del self._places[place.path.stem]
            await self._redis.hdel(clicks.COMMITTED_KEY, place.path.stem)
        return len(batch.records)


async def run(settings: EdgeSettings, stop: asyncio.Event) -> None:
    """Ship until told to stop; then what the workers have left, if that is quick. The rest waits on disk."""
    settings.spool_directory.mkdir(parents=True, exist_ok=True)
    redis = open_redis(settings.redis(), timeout_s=2.0)
    shipper = Shipper(settings.spool_directory, redis)
    pause_s = 0.0
    while not stop.is_set():
        try:
            pause_s = 0.0 if await shipper.step() else _IDLE_S
        except (*LOST, RedisError) as error:
            log.warning("Redis is away, clicks wait in the spool: %s", error)
            pause_s = _AFTER_ERROR_S
        if pause_s:
            try:
                async with asyncio.timeout(pause_s):
                    await stop.wait()
            except TimeoutError:
                pass
    with contextlib.suppress(*LOST, RedisError):
        async with asyncio.timeout(_LAST_WORDS_S):
            while await shipper.step():
                pass
    await redis.aclose()


def main() -> None:
    """`python -m edge.shipper`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = load(EdgeSettings)
        settings.redis()
    except SettingsError as error:
        sys.exit(str(error))

    async def until_signal() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(settings, stop)

    asyncio.run(until_signal())


if __name__ == "__main__":
    main()
