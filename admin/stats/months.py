"""Months: the partitions of clicks. What is of no month that is there is in `clicks_early`."""

from datetime import UTC, datetime

from admin.database import Connection

_AHEAD = 2


async def make(connection: Connection, now: datetime) -> None:
    """Have the month (UTC) of a moment, and those that come next."""
    begin = datetime(now.astimezone(UTC).year, now.astimezone(UTC).month, 1, tzinfo=UTC)
    for _ in range(_AHEAD + 1):
        await connection.execute("/* months.make */ select make_month($1)", begin.date())
        begin = datetime(begin.year + begin.month // 12, begin.month % 12 + 1, 1, tzinfo=UTC)
