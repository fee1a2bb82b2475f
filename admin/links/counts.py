"""Clicks per link, a rollup: what stats adds to, and what is told of a link."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from admin.database import Connection


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
