"""Months: the partitions of clicks. What is of no month that is there is in `clicks_early`.

Only the holder of the lease of ingest changes them, as it is the only one who adds rows. It waits for readers for a
moment, and tries again another time: whoever reads for long must not hold up those who come.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg

from admin.database import Connection

_AHEAD = 2
_PATIENCE_MS = 300


async def step(connection: Connection, now: datetime) -> None:
    """Have the month (UTC) of a moment, and those that come next; and let go of those that are over and empty."""
    first = datetime(now.astimezone(UTC).year, now.astimezone(UTC).month, 1, tzinfo=UTC)
    begin = first
    for _ in range(_AHEAD + 1):
        async with _patience(connection):
            await connection.execute("/* months.step */ select make_month($1)", begin.date())
        begin = datetime(begin.year + begin.month // 12, begin.month % 12 + 1, 1, tzinfo=UTC)
    async with _patience(connection):
        await connection.execute("/* months.step */ select drop_empty_months($1)", first.date())


async def summarize(connection: Connection) -> None:
    """Let what was written lately be found by its time, too, without reading all of it: the index of times knows of it
    otherwise when Postgres vacuums. Not in a transaction."""
    async with _patience(connection):
        await connection.execute(
            """
            /* months.summarize */
            select brin_summarize_new_values(indexrelid)
              from pg_inherits join pg_index on indrelid = inhrelid
                   join pg_class on pg_class.oid = indexrelid join pg_am on pg_am.oid = relam
             where inhparent = 'clicks'::regclass and amname = 'brin'"""
        )


@contextlib.asynccontextmanager
async def _patience(connection: Connection) -> AsyncIterator[None]:
    """A transaction that is given up for now when it had to wait for others."""
    with contextlib.suppress(asyncpg.LockNotAvailableError):
        async with connection.transaction():
            await connection.execute(f"/* months.patience */ set local lock_timeout = {_PATIENCE_MS}")
            yield
