"""Months: the partitions of clicks. What is of no month that is there is in `clicks_early`."""

from datetime import UTC, datetime

from admin.database import Connection

_AHEAD = 2


async def make(connection: Connection, now: datetime) -> None:
    """Have the month of a moment, and those that come next. Not in a transaction."""
    names = await connection.fetch("/* months.make */ select inhrelid::regclass::text as name from pg_inherits")
    known = {row["name"] for row in names}
    month = begin_of(now)
    for _ in range(_AHEAD + 1):
        if f"clicks_{month:%Y_%m}" not in known:
            await _make(connection, month)
        month = after(month)


async def _make(connection: Connection, month: datetime) -> None:
    name = f"clicks_{month:%Y_%m}"
    span = f"'{month.isoformat()}'", f"'{after(month).isoformat()}'"
    async with connection.transaction():
        await connection.execute("/* months.make */ lock table clicks")
        await connection.execute(f"/* months.make */ create table {name} (like clicks including constraints)")
        await connection.execute(
            f"""
            /* months.make */
            with moved as (
                delete from clicks_early where clicked_at >= {span[0]} and clicked_at < {span[1]} returning *)
            insert into {name} select * from moved"""  # noqa: S608
        )
        await connection.execute(
            f"/* months.make */ alter table clicks attach partition {name} for values from ({span[0]}) to ({span[1]})"
        )


def begin_of(at: datetime) -> datetime:
    """The begin of the month (UTC) in which a moment is."""
    return datetime(*at.astimezone(UTC).timetuple()[:2], 1, tzinfo=UTC)


def after(month: datetime) -> datetime:
    """The begin of the next one."""
    return datetime(month.year + month.month // 12, month.month % 12 + 1, 1, tzinfo=UTC)
