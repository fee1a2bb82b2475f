"""Intervals: the hours, days, weeks and months of a time zone, as instants. Pure.

Rules of this file:

1. An interval lasts from its begin to the begin of the next: none overlaps another, and no moment is between two.
2. A day begins with its first moment: where clocks skip midnight, at the time they skip to; where it comes twice, with
   the first. An hour that comes twice is two hours, and one that clocks cut short is a short one.
3. All of them begin at a quarter of an hour since 1970. From `EARLIEST` on that is so in every zone, and days never
   come twice; before it some zones were off by a minute, or by seconds. (But for Casey in the Antarctic, where three
   nights were changed at 0:01, by hours. There the first minute goes with the hours behind it.)
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

INTERVALS = ("hour", "day", "week", "month")
"""Weeks begin on Monday (ISO 8601)."""

EARLIEST = date(2012, 1, 1)
LATEST = date(2099, 12, 31)

_QUARTER = timedelta(minutes=15)
_HOUR = timedelta(hours=1)


def begin_of_day(day: date, zone: ZoneInfo) -> datetime:
    """In UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def bounds(begin: datetime, end: datetime, interval: str, zone: ZoneInfo) -> Iterator[datetime]:
    """The begins (UTC) of the intervals that have something of this range, the first of which may lie before it."""
    at = _begin_of(begin, interval, zone)
    while at < end:
        yield at
        at = _next_of(at, interval, zone)


def _begin_of(at: datetime, interval: str, zone: ZoneInfo) -> datetime:
    """Of the interval that this moment is in."""
    if interval == "hour":
        quarter = datetime.fromtimestamp(int(at.timestamp()) // 900 * 900, UTC)
        while not _begins_hour(quarter, zone):
            quarter -= _QUARTER
        return quarter
    day = at.astimezone(zone).date()
    if interval == "week":
        day -= timedelta(days=day.weekday())
    return begin_of_day(day.replace(day=1) if interval == "month" else day, zone)


def _next_of(begin: datetime, interval: str, zone: ZoneInfo) -> datetime:
    """The begin of the interval behind one that begins here."""
    local = begin.astimezone(zone)
    if interval == "hour":
        over = begin + _HOUR - timedelta(minutes=local.minute)
        if over.astimezone(zone).utcoffset() == local.utcoffset():
            return over
        # Clocks are changed meanwhile, or just then.
        return next(at for at in (begin + _QUARTER * count for count in range(1, 5)) if _begins_hour(at, zone))
    if interval == "month":
        return begin_of_day((local.date() + timedelta(days=31)).replace(day=1), zone)
    return begin_of_day(local.date() + timedelta(days=7 if interval == "week" else 1), zone)


def _begins_hour(quarter: datetime, zone: ZoneInfo) -> bool:
    local = quarter.astimezone(zone)
    return local.minute == 0 or local.utcoffset() != (quarter - _QUARTER).astimezone(zone).utcoffset()
