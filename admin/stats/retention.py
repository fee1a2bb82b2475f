"""Retention: what becomes of single clicks that an organization does not want kept any longer.

Rules of this file:

1. A day of the organization goes in one transaction: its rows become packs of quarters of an hour, its visitors are
   counted for each link, and the rows are removed. So every number stays what it was; what nobody can ask for any more
   is two facts of one click.
2. A row that comes later for such a day is kept until the next look, and goes the same way.
3. Only the holder of the lease of ingest does this, between two batches.
"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import asyncpg

from admin.database import Connection
from admin.stats import packs, visitor_days
from admin.stats.rows import rows_taken

_DAYS_AT_ONCE = 10


async def step(connection: Connection, now: datetime) -> int:
    """Let go of some days whose time has come; how many. Not in a transaction."""
    done = 0
    for row in await connection.fetch(
        "/* retention.step */ select organization_id, time_zone, kept_days from counting where kept_days is not null"
    ):
        while done < _DAYS_AT_ONCE and await _let_go(connection, row, now):
            done += 1
    return done


async def folded_until(connection: Connection, organization_id: int) -> datetime | None:
    """Until when the organization has no single clicks any more; None if it has all."""
    until: datetime | None = await connection.fetchval(
        "/* retention.folded_until */ select until from foldings where organization_id = $1", organization_id
    )
    return until


async def _let_go(connection: Connection, wishes: asyncpg.Record, now: datetime) -> bool:
    """Of the oldest day with rows, if its time has come; whether it had."""
    organization_id, zone = wishes["organization_id"], ZoneInfo(wishes["time_zone"])
    today = now.astimezone(zone).date()
    oldest = await connection.fetchval(
        "/* retention.let_go */ select min(clicked_at) from clicks where organization_id = $1 and clicked_at < $2",
        organization_id,
        _begin(today - timedelta(days=wishes["kept_days"]), zone),
    )
    if oldest is None:
        return False
    # As the day was when its visitors were told apart; the organization may have another time zone now.
    known = await connection.fetchrow(
        """
        /* retention.let_go */
        select begins_at, ends_at from visitor_days
         where organization_id = $1 and link_id = 0 and begins_at <= $2 and ends_at > $2""",
        organization_id,
        oldest,
    )
    day = oldest.astimezone(zone).date()
    begin, end = known or (_begin(day, zone), _begin(day + timedelta(days=1), zone))
    async with connection.transaction():
        await visitor_days.count_day(connection, organization_id, begin, end, of_all_links=True)
        await _fold(connection, organization_id, begin, end)
        await connection.execute(
            """
            /* retention.let_go */
            insert into foldings as held (organization_id, until) values ($1, $2)
            on conflict (organization_id) do update set until = greatest(held.until, excluded.until)""",
            organization_id,
            end,
        )
    return True


def _begin(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


async def _fold(connection: Connection, organization_id: int, begin: datetime, end: datetime) -> None:
    hour = begin
    while hour < end:  # by the hour: each look reads again what it has removed
        while rows := await rows_taken(connection, organization_id, None, hour, min(hour + timedelta(hours=1), end)):
            await packs.keep_quarters(connection, rows)
        hour += timedelta(hours=1)
