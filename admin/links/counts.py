"""Clicks per link, a rollup: what stats adds to, and what is told of a link."""

from collections.abc import Iterable
from datetime import date, datetime
from typing import NamedTuple

from admin.database import Connection


class DayCount(NamedTuple):
    """The clicks of one link on one day (UTC)."""

    link_id: int
    organization_id: int
    day: date
    total: int
    bots: int


async def add(connection: Connection, counts: Iterable[DayCount]) -> None:
    """Add to the rollup. At most one item per link and day."""
    # Sorted, so that two writers take their row locks in one order.
    rows = sorted(counts)
    await connection.execute(
        """
        /* counts.add */
        insert into clicks_by_day (link_id, organization_id, day, total, bots)
        select * from unnest($1::bigint[], $2::bigint[], $3::date[], $4::bigint[], $5::bigint[])
        on conflict (link_id, day) do update
           set total = clicks_by_day.total + excluded.total, bots = clicks_by_day.bots + excluded.bots""",
        [row.link_id for row in rows],
        [row.organization_id for row in rows],
        [row.day for row in rows],
        [row.total for row in rows],
        [row.bots for row in rows],
    )


class LinkCount(NamedTuple):
    """Clicks of one link."""

    link_id: int
    total: int
    uses: int
    """Of `total`, those that its click limit has counted."""
    last_at: datetime


async def add_to_links(connection: Connection, counts: Iterable[LinkCount]) -> None:
    """Add to what is stored of each link. At most one item per link."""
    rows = sorted(counts)
    await connection.execute(
        """
        /* counts.add_to_links */
        insert into link_counts (link_id, total, uses, last_at)
        select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[])
        on conflict (link_id) do update
           set total = link_counts.total + excluded.total, uses = link_counts.uses + excluded.uses,
               last_at = greatest(link_counts.last_at, excluded.last_at)""",
        [row.link_id for row in rows],
        [row.total for row in rows],
        [row.uses for row in rows],
        [row.last_at for row in rows],
    )


async def by_day(connection: Connection, link_id: int) -> list[tuple[date, int, int]]:
    """Day, total and bots of every day from the first to the last one with a click, without gaps."""
    rows = await connection.fetch(
        """
        /* counts.by_day */
        with counted as (select day, total, bots from clicks_by_day where link_id = $1)
        select days.day::date as day, coalesce(total, 0) as total, coalesce(bots, 0) as bots
          from generate_series((select min(day) from counted)::timestamp, (select max(day) from counted), '1 day')
               as days (day)
          left join counted on counted.day = days.day::date
         order by days.day""",
        link_id,
    )
    return [(row["day"], row["total"], row["bots"]) for row in rows]
