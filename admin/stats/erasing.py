"""Erasing: clicks of a link that somebody does not want to have been counted.

Rules of this file:

1. A day (UTC) goes in one transaction, with everything that was counted of it: rows, packs, visitors, conversions. So
   at every moment totals are what rows say, and what a crash interrupts goes on with the days that are left.
2. Where packs have taken the place of rows (retention.py), whole quarters of an hour go. The visitors that the
   organization had on such a day stay as they were counted, and those of a link that keeps clicks on it are unknown
   from then on: nobody can tell any more who was there at another time of the day, too.
3. Only the holder of the lease of ingest does this, between two batches.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.stats import visitor_days
from admin.stats.packs import QUARTER_S, Packs
from admin.stats.rows import rows_taken

_DAY = timedelta(days=1)


async def request(
    connection: Connection, organization_id: int, link_id: int, begins_at: datetime, ends_at: datetime
) -> None:
    """Have the clicks of a link erased in a range of time."""
    await connection.execute(
        """
        /* erasing.request */
        insert into erasures (organization_id, link_id, begins_at, ends_at) values ($1, $2, $3, $4)""",
        organization_id,
        link_id,
        begins_at,
        ends_at,
    )


async def step(connection: Connection, packs: Packs) -> bool:
    """Erase the oldest day of what was requested first; whether there was one. Not in a transaction."""
    row = await connection.fetchrow(
        """
        /* erasing.step */
        select id, organization_id, link_id, begins_at, ends_at from erasures
         where finished_at is null order by id limit 1"""
    )
    if row is None:
        return False
    link = _Link(row["organization_id"], row["link_id"])
    async with connection.transaction():
        oldest = await _oldest(connection, link, row["begins_at"], row["ends_at"])
        gone = 0
        if oldest is not None:
            day = oldest.replace(hour=0, minute=0, second=0, microsecond=0)
            begin, end = max(day, row["begins_at"]), min(day + _DAY, row["ends_at"])
            gone = await _erase(connection, packs, link, begin, end)
        await connection.execute(
            """
            /* erasing.step */
            update erasures set clicks = clicks + $2, finished_at = case when $3 then now() end where id = $1""",
            row["id"],
            gone,
            oldest is None,
        )
    return True


class _Link(NamedTuple):
    """Whose clicks go."""

    organization_id: int
    link_id: int


async def _oldest(connection: Connection, link: _Link, begin: datetime, end: datetime) -> datetime | None:
    """The first moment in UTC of which there is a click, or a quarter that has taken its place."""
    found: datetime | None = await connection.fetchval(
        """
        /* erasing.oldest */
        select least(
               (select min(clicked_at) from clicks
                 where organization_id = $1 and link_id = $2 and clicked_at >= $3 and clicked_at < $4),
               (select to_timestamp(min(bucket) * 900.0) from packs
                 where organization_id = $1 and link_id = $2 and level = -1 and bucket >= $5 and bucket < $6))""",
        *link,
        begin,
        end,
        *_quarters(begin, end),
    )
    return found and max(found, begin).astimezone(UTC)


async def _erase(connection: Connection, packs: Packs, link: _Link, begin: datetime, end: datetime) -> int:
    """Erase what there is in a part of a day; how many clicks."""
    gone = await packs.forget_quarters(connection, *link, *_quarters(begin, end))
    while rows := await rows_taken(connection, *link, begin, end):
        await packs.replace(connection, rows)
        gone += len(rows)
    await visitor_days.forget_link(connection, *link, begin, end)
    await visitor_days.reopen(connection, link.organization_id, begin, end)
    await connection.execute(
        "/* erasing.erase */ update link_counts set total = total - $2 where link_id = $1", link.link_id, gone
    )
    await connection.execute(
        """
        /* erasing.erase */
        delete from conversions
         where organization_id = $1 and link_id = $2 and clicked_at >= $3 and clicked_at < $4""",
        *link,
        begin,
        end,
    )
    return gone


def _quarters(begin: datetime, end: datetime) -> tuple[int, int]:
    """Those that have something of a range: the first, and the one behind the last."""
    return int(begin.timestamp()) // QUARTER_S, -(-int(end.timestamp()) // QUARTER_S)
