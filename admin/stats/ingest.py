"""Ingest: batches of clicks from the Redis stream into Postgres, each record exactly once.

Rules of this file:

1. One worker ingests at a time (`lease`). It stores the rows, adds to the rollup and advances the positions of the
   spools in one transaction, and acknowledges after the commit. What is delivered again is recognised by its position.
2. A batch that overlaps the position of its spool is trimmed. One that begins beyond it is a gap: it is not stored, and
   the shipper is told to ship again from the position.
3. What can't be read is set aside with its reason, and the position advances over it; the rest flows on.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from prometheus_client import Counter as Metric
from redis.exceptions import ResponseError

from admin.database import Connection
from admin.links import counts
from admin.links.counts import DayCount
from shared import clicks
from shared.clicks import Batch, Click
from shared.redis import Redis, stream_entries
from shared.visitor import is_bot

log = logging.getLogger(__name__)

INGESTED = Metric("linkwire_clicks_ingested", "Clicks stored in Postgres.")
SET_ASIDE = Metric("linkwire_clicks_set_aside", "Records or batches that could not be read.")

_LEASE = 0x636C6963
_CONSUMER = "ingest"
"""One name for all workers: what a dead one had taken is read again by the next holder of the lease."""
_BATCHES = 50


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
    async with connection.transaction():
        storing = _Storing(connection)
        for delivery in deliveries:
            await storing.add(delivery)
        await storing.finish()
    # Positions are told before the batches are acknowledged: a crash in between costs a repeated delivery, no more.
    done = redis.pipeline(transaction=True)
    if storing.positions:
        done.hset(clicks.COMMITTED_KEY, mapping=storing.positions)  # type: ignore[arg-type]
    if storing.gaps:
        done.hset(clicks.GAPS_KEY, mapping=storing.gaps)  # type: ignore[arg-type]
    done.xack(clicks.STREAM, clicks.GROUP, *[delivery.entry_id for delivery in deliveries])
    done.xdel(clicks.STREAM, *[delivery.entry_id for delivery in deliveries])
    await done.execute()
    INGESTED.inc(storing.stored)
    SET_ASIDE.inc(storing.set_aside)
    return len(deliveries)


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


class _Storing:
    """One transaction's work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[tuple[object, ...]] = []
        self._totals: Counter[tuple[int, int, object]] = Counter()
        self._bots: Counter[tuple[int, int, object]] = Counter()
        self.positions: dict[str, int] = {}
        self.gaps: dict[str, int] = {}
        self.stored = 0
        self.set_aside = 0

    async def add(self, delivery: _Delivery) -> None:
        """Take in one batch, or the part of it that is new."""
        try:
            batch = Batch.from_fields(delivery.fields)
        except (ValueError, KeyError) as error:
            await self._put_aside(None, None, repr(delivery.fields).encode(), f"not a batch: {error!r}")
            return
        position = self.positions.get(batch.spool)
        if position is None:
            position = self.positions[batch.spool] = await self._position(batch.spool)
        if batch.first > position:
            log.warning("records %d to %d of spool %s are missing", position, batch.first - 1, batch.spool)
            self.gaps[batch.spool] = position
            return
        for number, record in enumerate(batch.records[position - batch.first :], start=position):
            await self._add_record(batch.spool, number, record)
        self.positions[batch.spool] = max(position, batch.end)

    async def _position(self, spool: str) -> int:
        position = await self._connection.fetchval(
            "/* ingest.position */ select position from click_sources where spool_id = $1 for update", spool
        )
        return position or 0

    async def _add_record(self, spool: str, number: int, record: bytes) -> None:
        try:
            click = Click.from_bytes(record)
            clicked_at = datetime.fromtimestamp(click.at_ms / 1000, UTC)
        except (ValueError, OverflowError, OSError) as error:
            await self._put_aside(spool, number, record, f"not a click: {error}")
            return
        bot = is_bot(click.user_agent)
        key = (click.link_id, click.organization_id, clicked_at.date())
        self._totals[key] += 1
        self._bots[key] += bot
        self._rows.append(
            (
                clicked_at,
                click.organization_id,
                click.link_id,
                bot,
                _storable(click.method),
                _storable(click.user_agent),
                _storable(click.referrer),
            )
        )

    async def _put_aside(self, spool: str | None, number: int | None, record: bytes, reason: str) -> None:
        log.warning("set aside record %s of spool %s: %s", number, spool, reason)
        self.set_aside += 1
        await self._connection.execute(
            """
            /* ingest.put_aside */
            insert into clicks_set_aside (spool_id, position, record, reason) values ($1, $2, $3, $4)""",
            spool,
            number,
            record,
            reason,
        )

    async def finish(self) -> None:
        """Write what was taken in."""
        await _copy(self._connection, self._rows)
        await counts.add(
            self._connection,
            [
                DayCount(link_id, organization_id, day, total, self._bots[link_id, organization_id, day])  # type: ignore[arg-type]
                for (link_id, organization_id, day), total in self._totals.items()
            ],
        )
        await self._connection.execute(
            """
            /* ingest.finish */
            insert into click_sources (spool_id, position)
            select * from unnest($1::text[], $2::bigint[])
            on conflict (spool_id) do update set position = excluded.position, updated_at = now()""",
            list(self.positions),
            list(self.positions.values()),
        )
        self.stored = len(self._rows)


async def _copy(connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
    await connection.copy_records_to_table(
        "clicks",
        records=rows,
        columns=["clicked_at", "organization_id", "link_id", "is_bot", "method", "user_agent", "referrer"],
    )


def _storable(text: str) -> str:
    """Postgres keeps no NUL in text."""
    return text.replace("\0", "")
