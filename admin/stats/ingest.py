"""Ingest: batches of clicks from the Redis stream into Postgres, each record exactly once.

Rules of this file:

1. One worker ingests at a time (`lease`). It stores the rows, adds to the rollup and advances the positions of the
   spools in one transaction, and acknowledges after the commit. What is delivered again is recognised by its position.
2. A batch that overlaps the position of its spool is trimmed. One that begins beyond it is a gap: it is not stored, and
   the shipper is told to ship again from the position.
3. What can't be read, or can't be stored, is set aside with its reason, and the position advances over it; the rest
   flows on.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

import asyncpg
from prometheus_client import Counter as Metric
from prometheus_client import Gauge
from redis.exceptions import ResponseError

from admin.database import Connection
from admin.links import counts
from admin.links.counts import DayCount, LinkCount
from admin.stats import sources
from shared import clicks
from shared.clicks import Batch, Click, click_id
from shared.redis import Redis, stream_entries
from shared.visitor import is_bot

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
_BATCHES = 16
_UNSTORABLE = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""What Postgres says of a row that it will not take, however often it is asked."""


class _Delivery(NamedTuple):
    entry_id: bytes
    fields: dict[bytes, bytes]


async def lease(connection: Connection) -> bool:
    """Whether this connection may ingest; until it is closed, no other one may."""
    return bool(await connection.fetchval("/* ingest.lease */ select pg_try_advisory_lock($1)", _LEASE))


async def step(connection: Connection, redis: Redis, *, wait_ms: int) -> int:
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
    positions, gaps = await _store(connection, batches)
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


async def measure(redis: Redis, now_ms: int) -> None:
    """Set the gauges of the stream."""
    oldest = stream_entries([(clicks.STREAM, await redis.xrange(clicks.STREAM, count=1))])
    LAG.set(await redis.xlen(clicks.STREAM))
    OLDEST_AGE.set(max(0.0, now_ms - int(oldest[0][0].partition(b"-")[0])) / 1000 if oldest else 0.0)


async def _deliveries(redis: Redis, wait_ms: int) -> list[_Delivery]:
    """What was delivered and not acknowledged (by this worker or a dead one), else what is new."""
    for start, block in (("0", None), (">", wait_ms)):
        try:
            answer = await redis.xreadgroup(
                clicks.GROUP, _CONSUMER, {clicks.STREAM: start}, count=_BATCHES, block=block
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await redis.xgroup_create(clicks.STREAM, clicks.GROUP, id="0", mkstream=True)
            return []
        if entries := stream_entries(answer):
            return [_Delivery(*entry) for entry in entries]
    return []


def _batch(fields: dict[bytes, bytes]) -> Batch:
    """Raises ValueError or KeyError for what is none, also for one with a place that Postgres can't keep."""
    batch = Batch.from_fields(fields)
    if batch.end >= 2**63 or len(batch.spool) > sources.LONGEST_NAME:
        raise ValueError("the place of the batch is none")
    return batch


async def _store(connection: Connection, batches: Sequence[Batch]) -> tuple[dict[str, int], dict[str, int]]:
    """Store what is new in these batches, in one transaction; the positions of their spools, and the gaps.

    If Postgres refuses something in them, in halves, down to the record that it refuses: that one is set aside.
    """
    try:
        async with connection.transaction():
            storing = _Storing(connection)
            for batch in batches:
                await storing.add(batch)
            await storing.finish()
    except _UNSTORABLE as error:
        if len(batches) == 1 and len(batches[0].records) == 1:
            return await _store_aside(connection, batches[0], f"Postgres refused it: {error}")
        positions: dict[str, int] = {}
        gaps: dict[str, int] = {}
        for half in _halves(batches):
            stored, missing = await _store(connection, half)
            positions |= stored
            gaps |= missing
        return positions, gaps
    INGESTED.inc(len(storing.rows))
    SET_ASIDE.inc(storing.set_aside.total())
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
        await _put_aside(connection, batch.spool, batch.first, batch.records[0], reason)
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


async def _put_aside(connection: Connection, spool: str, position: int, record: bytes, reason: str) -> None:
    log.warning("set aside record %d of spool %s: %s", position, spool, reason)
    await connection.execute(
        """
        /* ingest.put_aside */
        insert into clicks_set_aside (spool_id, position, record, reason) values ($1, $2, $3, $4)""",
        spool,
        position,
        record,
        reason,
    )


class _Storing:
    """One transaction's work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._totals: Counter[tuple[int, date]] = Counter()
        self._bots: Counter[tuple[int, date]] = Counter()
        self._links: dict[int, LinkCount] = {}
        self._organizations: dict[int, int] = {}
        """By link. A click that names another organization than the first of its link is counted for the first."""
        self._seen: dict[str, int] = {}
        self.set_aside: Counter[str] = Counter()
        self.rows: list[tuple[object, ...]] = []
        self.positions: dict[str, int] = {}
        self.gaps: dict[str, int] = {}

    async def add(self, batch: Batch) -> None:
        """Take in one batch, or the part of it that is new."""
        spool = batch.spool
        position = self.positions.get(spool)
        if position is None:
            position = self.positions[spool] = await sources.position(self._connection, spool)
        self._seen[spool] = max(self._seen.get(spool, 0), batch.end)
        if batch.first > position:
            log.warning("records %d to %d of spool %s are missing", position, batch.first - 1, spool)
            self.gaps[spool] = position
            return
        for number, record in enumerate(batch.records[position - batch.first :], start=position):
            await self._add_record(spool, number, record)
        self.positions[spool] = max(position, batch.end)

    async def _add_record(self, spool: str, number: int, record: bytes) -> None:
        try:
            click = Click.from_bytes(record)
            clicked_at = datetime.fromtimestamp(click.at_ms / 1000, UTC)
        except (ValueError, OverflowError, OSError) as error:
            self.set_aside[spool] += 1
            await _put_aside(self._connection, spool, number, record, f"not a click: {error}")
            return
        bot = is_bot(click.user_agent)
        key = (click.link_id, clicked_at.date())
        self._totals[key] += 1
        self._bots[key] += bot
        self._organizations.setdefault(click.link_id, click.organization_id)
        count = self._links.get(click.link_id, LinkCount(click.link_id, 0, 0, clicked_at))
        self._links[click.link_id] = LinkCount(
            click.link_id, count.total + 1, count.uses + click.is_use, max(count.last_at, clicked_at)
        )
        self.rows.append(
            (
                clicked_at,
                click.organization_id,
                click.link_id,
                bot,
                _storable(click.method),
                _storable(click.user_agent),
                _storable(click.referrer),
                click.rule_id or None,
                click.variant_id or None,
                click.is_use,
                click.is_scan,
                click_id(spool, number) if click.has_id else None,
            )
        )

    async def finish(self) -> None:
        """Write what was taken in."""
        await _copy(self._connection, self.rows)
        await counts.add(
            self._connection,
            [
                DayCount(link_id, self._organizations[link_id], day, total, self._bots[link_id, day])
                for (link_id, day), total in self._totals.items()
            ],
        )
        await counts.add_to_links(self._connection, self._links.values())
        await sources.advance(self._connection, self.positions, self._seen, self.set_aside)


async def _copy(connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
    await connection.copy_records_to_table(
        "clicks",
        records=rows,
        columns=[
            "clicked_at",
            "organization_id",
            "link_id",
            "is_bot",
            "method",
            "user_agent",
            "referrer",
            "rule_id",
            "variant_id",
            "is_use",
            "is_scan",
            "click_id",
        ],
    )


def _storable(text: str) -> str:
    """Postgres keeps no NUL in text."""
    return text.replace("\0", "")
