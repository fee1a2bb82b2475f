"""Repacking: packs that are made again, because of rows that have changed or gone.

Hours are made of rows, and of the quarters that have taken the place of rows; coarser buckets of finer ones. Everything
is in the transaction of the change, so that no reader sees a sum of something else.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple

from admin.database import Connection
from admin.stats.classify import Class
from admin.stats.packs import COLUMNS, HOURS, SUMS, closed, copy, parts
from admin.stats.rows import Row

_CLASSES = sorted(Class)
"""All of them. The index of packs has the class before the bucket; this lets it find one bucket."""


class Scope(NamedTuple):
    """Of what packs are."""

    organization_id: int
    link_id: int
    """0 for the whole organization."""


async def rebuild_hour(
    connection: Connection, at: datetime, rows: Iterable[Row], changed: Iterable[Scope]
) -> set[Scope]:
    """Count an hour again in which these links have changed; what was counted again. `rows` are all that their
    organizations have in it now.

    The coarser buckets are left to `rebuild_coarser`, in the same transaction.
    """
    hour = int(at.timestamp()) // 3600
    known = await connection.fetch("/* repacking.rebuild_hour */ select link_id, since from busy_links")
    busy = {row["link_id"]: row["since"] for row in known}
    scopes = set()
    for link in changed:
        scopes.add(link._replace(link_id=0))
        if hour >= busy.get(link.link_id, hour + 1):
            scopes.add(link)
    await _delete(connection, 0, hour, scopes)
    await copy(connection, [part for part in parts(rows, busy, []) if part[:2] in scopes])
    await _add_quarters(connection, hour, scopes)
    return scopes


async def _add_quarters(connection: Connection, hour: int, scopes: Collection[Scope]) -> None:
    """Add what has taken the place of rows to an hour."""
    await connection.execute(
        f"""
        /* repacking.add_quarters */
        insert into packs ({", ".join(COLUMNS)})
        select organization_id, link_id, $1::integer, 0, class, true, sum(clicks), sum(anonymous), sum(scans),
               packed(quarters), {SUMS}
          from packs
          join unnest($2::bigint[], $3::bigint[]) as scope (own, link) on organization_id = own and link_id = link
         where level = -1 and bucket >= $1 * 4 and bucket < ($1 + 1) * 4 and class = any($4::smallint[])
         group by organization_id, link_id, class""",  # noqa: S608
        hour,
        *_columns(scopes),
        _CLASSES,
    )


def _columns(scopes: Collection[Scope]) -> tuple[list[int], list[int]]:
    return [scope.organization_id for scope in scopes], [scope.link_id for scope in scopes]


async def forget_quarters(connection: Connection, organization_id: int, link_id: int, begin: int, end: int) -> int:
    """Take a link's clicks out of what has taken the place of rows, from one quarter to before another; how many.

    The hours are left to `rebuild_hour`, in the same transaction.
    """
    gone: int = await connection.fetchval(
        """
        /* repacking.forget_quarters */
        with gone as (
            delete from packs
             where organization_id = $1 and link_id = $2 and level = -1 and bucket >= $3 and bucket < $4
            returning clicks)
        select coalesce(sum(clicks), 0) from gone""",
        organization_id,
        link_id,
        begin,
        end,
    )
    await connection.execute(
        """
        /* repacking.forget_quarters */
        delete from packs
         where organization_id = $1 and link_id = 0 and level = -1 and bucket >= $2 and bucket < $3""",
        organization_id,
        begin,
        end,
    )
    await connection.execute(
        f"""
        /* repacking.forget_quarters */
        insert into packs ({", ".join(COLUMNS)})
        select organization_id, 0, bucket, -1, class, false, sum(clicks), sum(anonymous), sum(scans), packed(quarters),
               packed(locations), packed(referrers), packed(platforms), packed(languages), packed(campaigns),
               packed(array[link_id << 32 | clicks]), null, null
          from packs
         where organization_id = $1 and link_id <> 0 and level = -1 and bucket >= $2 and bucket < $3
         group by organization_id, bucket, class""",  # noqa: S608
        organization_id,
        begin,
        end,
    )
    return gone


async def rebuild_coarser(connection: Connection, day: datetime, scopes: Collection[Scope]) -> None:
    """Count the closed buckets again that have this day, from the finer ones."""
    hour = int(day.timestamp()) // 3600
    for level, end in enumerate(await closed(connection), start=1):
        bucket = hour // HOURS[level]
        if bucket < end:
            await _delete(connection, level, bucket, scopes)
            await _remake(connection, level, bucket, scopes)


async def _delete(connection: Connection, level: int, bucket: int, scopes: Collection[Scope]) -> None:
    await connection.execute(
        """
        /* repacking.delete */
        delete from packs using unnest($1::bigint[], $2::bigint[]) as scope (own, link)
         where organization_id = own and link_id = link
           and level = $3 and bucket = $4 and class = any($5::smallint[])""",
        *_columns(scopes),
        level,
        bucket,
        _CLASSES,
    )


async def _remake(connection: Connection, level: int, bucket: int, scopes: Collection[Scope]) -> None:
    """Make one bucket of a level, for some scopes, of those of the finer one."""
    await connection.execute(
        f"""
        /* repacking.remake */
        insert into packs ({", ".join(COLUMNS)})
        select organization_id, link_id, $3::integer, level + 1, class, false, sum(clicks), sum(anonymous), sum(scans),
               case when $1 = 0 then packed(quarters) end, {SUMS}
          from packs
          join unnest($4::bigint[], $5::bigint[]) as scope (own, link) on organization_id = own and link_id = link
         where level = $1 and bucket >= $3 * $2 and bucket < ($3 + 1) * $2
           and class = any($6::smallint[])
         group by organization_id, link_id, level + 1, class""",  # noqa: S608
        level - 1,
        HOURS[level] // HOURS[level - 1],
        bucket,
        *_columns(scopes),
        _CLASSES,
    )
