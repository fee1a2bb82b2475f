"""Ingest: batches of clicks from the Redis stream into Postgres, each record exactly once.

Rules of this file:

1. One worker ingests at a time (`lease`). It stores the rows, adds to the packs, judges again what is stored and of a
   burst with them, and advances the positions of the spools, in one transaction; it acknowledges after the commit. What
   is delivered again is recognised by its position.
2. A batch that overlaps the position of its spool is trimmed. One that begins beyond it is a gap: it is not stored, and
   the shipper is told to ship again from the position.
3. What can't be read, or can't be stored, is set aside with its reason, and the position advances over it; the rest
   flows on.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg
from prometheus_client import Counter as Metric
from prometheus_client import Gauge
from redis.exceptions import ResponseError

from admin.database import Connection
from admin.links import counts
from admin.links.counts import LinkCount
from admin.stats import bursts, conversions, months, retention, sources
from admin.stats.maker import Made, Maker
from admin.stats.packs import Packs
from admin.stats.places import Locate
from admin.stats.rows import COLUMNS, Row
from admin.stats.visitor_days import VisitorDays
from shared import clicks
from shared.click_ids import ClickIds
from shared.clicks import Batch, Click
from shared.redis import Redis, stream_entries
from shared.visitor import country_of

log = logging.getLogger(__name__)

INGESTED = Metric("linkwire_clicks_ingested", "Clicks stored in Postgres.")
SET_ASIDE = Metric("linkwire_clicks_set_aside", "Records or batches that could not be read or stored.")
LAG = Gauge("linkwire_ingest_lag_batches", "Batches on the stream.", multiprocess_mode="mostrecent")
OLDEST_AGE = Gauge(
    "linkwire_ingest_oldest_unacknowledged_seconds",
    "Age of the oldest batch on the stream.",
    multiprocess_mode="mostrecent",
)

_LEASE = 0x636C6963
_CONSUMER = "ingest"
"""One name for all workers: what a dead one had taken is read again by the next holder of the lease."""
_BATCHES = 4
_RETAIN_EVERY = timedelta(hours=1)
_KEPT_ASIDE_DAYS = 30
_RECORDS = 8_000
"""So many records are stored at once, and up to `_BATCHES` full batches more: what one core makes rows of in half a
second, in 50 MB."""
_UNSTORABLE = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
)
"""What Postgres says of a row that it will not take, however often it is asked; and what nobody expected of a click,
which must not stop all others."""


class _Delivery(NamedTuple):
    entry_id: bytes
    fields: dict[bytes, bytes]


class _Aside(NamedTuple):
    spool: str
    position: int
    record: bytes
    reason: str


class Lane:
    """What the worker that ingests remembers from batch to batch. It begins anew with each lease."""

    def __init__(self, click_ids: ClickIds, locate: Locate) -> None:
        self.click_ids = click_ids
        self.maker = Maker(locate)
        self.packs = Packs()
        self.visitor_days = VisitorDays()
        self._retain_at = datetime.min.replace(tzinfo=UTC)

    @classmethod
    async def begin(cls, connection: Connection, locate: Locate = country_of) -> "Lane":
        """For the holder of the lease."""
        lane = cls(await conversions.ids_of_clicks(connection), locate)
        await months.step(connection, datetime.now(UTC))
        await lane.packs.load(connection)
        await lane.visitor_days.load(connection)
        await lane.maker.visits.load(connection)
        return lane

    async def tend(self, connection: Connection, now: datetime) -> bool:
        """Have the months to come, packs folded and closed, days counted, and let go. Not in a transaction."""
        await months.step(connection, now)
        await self.packs.close(connection, now.timestamp())
        await self.visitor_days.count(connection, now)
        if now >= self._retain_at:  # it may read much to find that there is nothing to do
            await retention.step(connection, now)
            self._retain_at = now + _RETAIN_EVERY
        return True


async def lease(connection: Connection) -> bool:
    """Whether this connection may ingest; until it is closed, no other one may."""
    return bool(await connection.fetchval("/* ingest.lease */ select pg_try_advisory_lock($1)", _LEASE))


async def step(connection: Connection, redis: Redis, lane: Lane, *, wait_ms: int) -> int:
    """Store what is delivered, waiting up to `wait_ms` for something; the number of batches. Needs the lease."""
    deliveries = await _deliveries(redis, wait_ms)
    if not deliveries:
        return 0
    batches: list[Batch] = []
    for delivery in deliveries:
        try:
            batches.append(_batch(delivery.fields))
        except (ValueError, KeyError) as error:
            await _put_entry_aside(connection, delivery, error)
    positions, gaps = await _store(connection, batches, lane)
    # Positions are told before the batches are acknowledged: a crash in between costs a repeated delivery, no more. A
    # Redis that is full takes no position, but acknowledging is what makes room in it.
    if positions:
        await sources.tell(redis, positions)
    if gaps:
        await sources.tell_gaps(redis, gaps)
    done = redis.pipeline(transaction=True)
    done.xack(clicks.STREAM, clicks.GROUP, *[delivery.entry_id for delivery in deliveries])
    done.xdel(clicks.STREAM, *[delivery.entry_id for delivery in deliveries])
    await done.execute()
    return len(deliveries)


async def clear(connection: Connection) -> None:
    """Remove records that were set aside long ago: they may say who clicked. That there were some stays counted."""
    await connection.execute(
        f"""
        /* ingest.clear */
        delete from clicks_set_aside where set_aside_at < now() - interval '{_KEPT_ASIDE_DAYS} days'"""  # noqa: S608
    )


async def measure(redis: Redis, now_ms: int) -> None:
    """Set the gauges of the stream."""
    oldest = stream_entries([(clicks.STREAM, await redis.xrange(clicks.STREAM, count=1))])
    LAG.set(await redis.xlen(clicks.STREAM))
    OLDEST_AGE.set(max(0.0, now_ms - int(oldest[0][0].partition(b"-")[0])) / 1000 if oldest else 0.0)


async def _deliveries(redis: Redis, wait_ms: int) -> list[_Delivery]:
    """What was delivered and not acknowledged (by this worker or a dead one), else what is new."""
    if waiting := await _read(redis, "0", None):
        return waiting
    found = more = await _read(redis, ">", wait_ms)
    # Batches are small where clicks come steadily, and a transaction for each would not keep up with them.
    while more and sum(delivery.fields.get(b"records", b"").count(b"\n") + 1 for delivery in found) < _RECORDS:
        more = await _read(redis, ">", None)
        found = found + more
    return found


async def _read(redis: Redis, start: str, block_ms: int | None) -> list[_Delivery]:
    try:
        answer = await redis.xreadgroup(clicks.GROUP, _CONSUMER, {clicks.STREAM: start}, count=_BATCHES, block=block_ms)
    except ResponseError as error:
        if not str(error).startswith("NOGROUP"):
            raise
        await redis.xgroup_create(clicks.STREAM, clicks.GROUP, id="0", mkstream=True)
        return []
    return [_Delivery(*entry) for entry in stream_entries(answer)]


def _batch(fields: dict[bytes, bytes]) -> Batch:
    """Raises ValueError or KeyError for what is none, also for one with a place that Postgres can't keep."""
    batch = Batch.from_fields(fields)
    if batch.end >= 2**63 or len(batch.spool) > sources.LONGEST_NAME:
        raise ValueError("the place of the batch is none")
    return batch


async def _store(connection: Connection, batches: Sequence[Batch], lane: Lane) -> tuple[dict[str, int], dict[str, int]]:
    """Store what is new in these batches, in one transaction; the positions of their spools, and the gaps.

    If Postgres refuses something in them, in halves, down to the record that it refuses: that one is set aside.
    """
    storing = _Storing(await sources.positions(connection, {batch.spool for batch in batches}), lane.click_ids)
    for batch in batches:
        storing.add(batch)
    try:
        made = await lane.maker.made(connection, storing.clicks, storing.click_ids, datetime.now(UTC))
        async with connection.transaction():
            fallen = await storing.store(connection, made, lane)
    except _UNSTORABLE as error:
        if len(batches) == 1 and len(batches[0].records) == 1:
            return await _store_aside(connection, batches[0], f"it was refused: {error!r}")
        positions: dict[str, int] = {}
        gaps: dict[str, int] = {}
        for half in _halves(batches):
            stored, missing = await _store(connection, half, lane)
            positions |= stored
            gaps |= missing
        return positions, gaps
    lane.maker.visits.note(made.visits)
    lane.maker.visits.forget(fallen)
    await lane.packs.promote(connection, {row.link_id for row in made.rows})
    INGESTED.inc(len(made.rows))
    SET_ASIDE.inc(len(storing.set_aside))
    return storing.positions, storing.gaps


def _halves(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    if len(batches) > 1:
        middle = len(batches) // 2
        return list(batches[:middle]), list(batches[middle:])
    spool, first, records = batches[0]
    middle = len(records) // 2
    return [Batch(spool, first, records[:middle])], [Batch(spool, first + middle, records[middle:])]


async def _store_aside(connection: Connection, batch: Batch, reason: str) -> tuple[dict[str, int], dict[str, int]]:
    async with connection.transaction():
        await _put_aside(connection, _Aside(batch.spool, batch.first, batch.records[0], reason))
        positions = {batch.spool: batch.end}
        await sources.advance(connection, positions, positions, {batch.spool: 1})
    SET_ASIDE.inc()
    return positions, {}


async def _put_entry_aside(connection: Connection, delivery: _Delivery, error: Exception) -> None:
    """It has no position; its id on the stream tells whether it was set aside already."""
    log.warning("set aside entry %s: %r", delivery.entry_id.decode(), error)
    done = await connection.execute(
        """
        /* ingest.put_entry_aside */
        insert into clicks_set_aside (entry_id, record, reason) values ($1, $2, $3)
        on conflict (entry_id) do nothing""",
        delivery.entry_id.decode(),
        repr(delivery.fields).encode(),
        f"not a batch: {error!r}",
    )
    SET_ASIDE.inc(int(done.rpartition(" ")[2]))


async def _put_aside(connection: Connection, aside: _Aside) -> None:
    log.warning("set aside record %d of spool %s: %s", aside.position, aside.spool, aside.reason)
    await connection.execute(
        """
        /* ingest.put_aside */
        insert into clicks_set_aside (spool_id, position, record, reason) values ($1, $2, $3, $4)""",
        *aside,
    )


class _Storing:
    """One transaction's work: what is new in some batches."""

    def __init__(self, positions: Mapping[str, int], click_ids: ClickIds) -> None:
        self.positions = dict(positions)
        self.gaps: dict[str, int] = {}
        self.clicks: list[Click] = []
        self.click_ids: list[str | None] = []
        self.set_aside: list[_Aside] = []
        self._ids = click_ids
        self._seen: dict[str, int] = {}

    def add(self, batch: Batch) -> None:
        """Take in one batch, or the part of it that is new."""
        spool = batch.spool
        position = self.positions.setdefault(spool, 0)
        self._seen[spool] = max(self._seen.get(spool, 0), batch.end)
        if batch.first > position:
            log.warning("records %d to %d of spool %s are missing", position, batch.first - 1, spool)
            self.gaps[spool] = position
            return
        for number, record in enumerate(batch.records[position - batch.first :], start=position):
            try:
                click = Click.from_bytes(record)
                click_id = self._ids.seal(spool, number) if click.has_id else None
            except ValueError as error:
                self.set_aside.append(_Aside(spool, number, record, f"not a click: {error}"))
            else:
                self.clicks.append(click)
                self.click_ids.append(click_id)
        self.positions[spool] = max(position, batch.end)

    async def store(self, connection: Connection, made: Made, lane: Lane) -> list[Row]:
        """Write what was taken in, and what was made of it; those rows, as they were, that are something else now."""
        rows = made.rows
        for aside in self.set_aside:
            await _put_aside(connection, aside)
        await connection.copy_records_to_table("clicks", records=rows, columns=COLUMNS)
        await lane.packs.add(connection, rows)
        await lane.visitor_days.add(connection, rows)
        found = await bursts.judge_again(connection, made.bursting) if made.bursting else []
        fallen = [one for one in found if one.before.class_ != one.now.class_]
        await lane.packs.replace(connection, [one.before for one in fallen], [one.now for one in fallen])
        await lane.visitor_days.add(connection, [one.before for one in fallen])
        await counts.add_to_links(connection, _link_counts(rows))
        if told := [row.click_id for row in rows if row.click_id is not None]:
            await conversions.expect_again(connection, told)
        set_aside = Counter(aside.spool for aside in self.set_aside)
        await sources.advance(connection, self.positions, self._seen, set_aside)
        return [one.before for one in fallen]


def _link_counts(rows: Sequence[Row]) -> list[LinkCount]:
    totals, uses = Counter(row.link_id for row in rows), Counter(row.link_id for row in rows if row.is_use)
    last_at: dict[int, datetime] = {}
    for row in rows:
        known = last_at.get(row.link_id)
        if known is None or known < row.clicked_at:
            last_at[row.link_id] = row.clicked_at
    return [LinkCount(link_id, total, uses[link_id], last_at[link_id]) for link_id, total in totals.items()]
