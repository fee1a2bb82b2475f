"""Visitor days: how many different people came on a day, counted once the day is over.

Rules of this file:

1. A visitor's hash is of one day of the organization, so days add up, and no day needs the rows of another one.
2. A day that is counted is true: what changes its rows takes the count away in the same transaction (`reopen`), and the
   day is counted again. Where no count is, whoever asks reads rows.
3. Of each visitor there are the first and the last quarter of an hour. So a range that begins or ends within a day, as
   the days of another time zone do, is answered exactly, too.
4. A day is to be counted from its first visitor on (visitors.py). Only the holder of the lease of ingest counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.stats.classify import Class
from admin.stats.rows import Row

_QUARTER = timedelta(minutes=15)
_GRACE = timedelta(hours=1)
_AT_ONCE = 100
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


class VisitorDay(NamedTuple):
    """A day that is counted. Without any quarters nobody knows its visitors any more."""

    begins_at: datetime
    ends_at: datetime
    firsts: list[int]
    lasts: list[int]

    def between(self, begin: datetime, end: datetime) -> int | None:
        """How many came in a part of the day; None where that can't be told from its quarters."""
        if not self.firsts:
            return None
        before, rest = divmod(begin - self.begins_at, _QUARTER)
        until, more = divmod(end - self.begins_at, _QUARTER)
        if begin == self.begins_at and (not more or end == self.ends_at):
            return sum(self.firsts[: until + bool(more)])
        if end == self.ends_at and not rest:
            return sum(self.lasts[before:])
        return None


class VisitorDays:
    """What the worker that ingests knows of them."""

    def __init__(self) -> None:
        self._counted_until: dict[int, datetime] = {}

    async def load(self, connection: Connection) -> None:
        """Read what there is; before anything else."""
        rows = await connection.fetch(
            """
            /* visitor_days.load */
            select organization_id, max(ends_at) as until from visitor_days
             where firsts is not null and link_id = 0 group by organization_id"""
        )
        self._counted_until = {row["organization_id"]: row["until"] for row in rows}

    async def add(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Have the days counted again that rows come late for, in the transaction that stores them."""
        late = {
            (row.organization_id, row.clicked_at)
            for row in rows
            if row.clicked_at < self._counted_until.get(row.organization_id, _EVER)
            and row.class_ == Class.HUMAN
            and row.visitor is not None
        }
        for organization_id in {organization_id for organization_id, _ in late}:
            times = [at for own, at in late if own == organization_id]
            await reopen(connection, organization_id, min(times), max(times))

    async def count(self, connection: Connection, now: datetime) -> int:
        """Count days that are over; how many. Not in a transaction."""
        due = await connection.fetch(
            """
            /* visitor_days.count */
            select organization_id, begins_at, ends_at from visitor_days
             where firsts is null and ends_at < $1 order by ends_at limit $2""",
            now - _GRACE,
            _AT_ONCE,
        )
        for row in due:
            async with connection.transaction():
                await count_day(connection, *row)
            known = self._counted_until.get(row["organization_id"], _EVER)
            self._counted_until[row["organization_id"]] = max(known, row["ends_at"])
        return len(due)


async def reopen(connection: Connection, organization_id: int, first: datetime, last: datetime) -> None:
    """Have the days counted again that have one of these moments, or any in between. In the caller's transaction.

    But for those whose rows are gone (retention.py): nobody could count them again.
    """
    await connection.execute(
        """
        /* visitor_days.reopen */
        delete from visitor_days
         where organization_id = $1 and link_id <> 0 and begins_at <= $3 and ends_at > $2
           and ends_at > all (select until from foldings where organization_id = $1)""",
        organization_id,
        first,
        last,
    )
    await connection.execute(
        """
        /* visitor_days.reopen */
        update visitor_days set firsts = null, lasts = null
         where organization_id = $1 and link_id = 0 and begins_at <= $3 and ends_at > $2 and firsts is not null
           and ends_at > all (select until from foldings where organization_id = $1)""",
        organization_id,
        first,
        last,
    )


async def forget_link(
    connection: Connection, organization_id: int, link_id: int, begin: datetime, end: datetime
) -> None:
    """Take away what is counted of a link on the days with a part in this range, whose clicks in it are gone.

    Where rows are gone, too (retention.py), and some clicks of the day are left, nobody can tell of how many visitors.
    """
    await connection.execute(
        """
        /* visitor_days.forget_link */
        delete from visitor_days as day
         where organization_id = $1 and link_id = $2 and begins_at < $4 and ends_at > $3
           and not exists (
               select from foldings join packs using (organization_id)
                where organization_id = $1 and ends_at <= until
                  and link_id = $2 and level = -1 and class = $5
                  and bucket >= floor(extract(epoch from begins_at) / 900)
                  and bucket < floor(extract(epoch from ends_at) / 900))""",
        organization_id,
        link_id,
        begin,
        end,
        Class.HUMAN,
    )
    await connection.execute(
        """
        /* visitor_days.forget_link */
        update visitor_days set firsts = '{}', lasts = '{}'
         where organization_id = $1 and link_id = $2 and begins_at < $4 and ends_at > $3""",
        organization_id,
        link_id,
        begin,
        end,
    )


async def counted(
    connection: Connection, organization_id: int, link_id: int, begin: datetime, end: datetime
) -> list[VisitorDay]:
    """The days with a part in this range, in their order, as far as they are counted. `link_id` 0: of all links."""
    rows = await connection.fetch(
        """
        /* visitor_days.counted */
        select begins_at, ends_at, firsts, lasts from visitor_days
         where organization_id = $1 and link_id = $2 and begins_at < $4 and ends_at > $3 and firsts is not null
         order by begins_at""",
        organization_id,
        link_id,
        begin,
        end,
    )
    return [VisitorDay(*row) for row in rows]


async def count_day(
    connection: Connection,
    organization_id: int,
    begins_at: datetime,
    ends_at: datetime,
    *,
    of_all_links: bool = False,
) -> None:
    """Count a day, where that is not done: of the organization, and of its busy links or of all."""
    rows = await connection.fetch(
        """
        /* visitor_days.count_day */
        with seen as (
            select link_id, visitor, floor(extract(epoch from clicked_at - $2) / 900)::integer as quarter
              from clicks
             where organization_id = $1 and clicked_at >= $2 and clicked_at < $3 and class = $4
               and visitor is not null),
        visits as (
            select 0 as link_id, visitor, min(quarter) as first, max(quarter) as last from seen group by visitor
            union all
            select link_id, visitor, min(quarter), max(quarter) from seen
             where $5 or link_id in (select link_id from busy_links where organization_id = $1)
             group by link_id, visitor)
        select link_id, first, last, count(*) as count from visits group by link_id, first, last""",
        organization_id,
        begins_at,
        ends_at,
        Class.HUMAN,
        of_all_links,
    )
    quarters = -((begins_at - ends_at) // _QUARTER)
    firsts, lasts = (defaultdict[int, list[int]](lambda: [0] * quarters) for _ in range(2))
    firsts[0], lasts[0] = [0] * quarters, [0] * quarters  # also when nobody came
    for row in rows:
        firsts[row["link_id"]][row["first"]] += row["count"]
        lasts[row["link_id"]][row["last"]] += row["count"]
    await connection.executemany(
        """
        /* visitor_days.count_day */
        insert into visitor_days (organization_id, link_id, begins_at, ends_at, firsts, lasts)
        values ($1, $2, $3, $4, $5, $6)
        on conflict (organization_id, link_id, begins_at) do update
           set firsts = excluded.firsts, lasts = excluded.lasts where visitor_days.firsts is null""",
        [(organization_id, link, begins_at, ends_at, firsts[link], lasts[link]) for link in firsts],
    )


class Piece(NamedTuple):
    """A part of a range that has to be counted from rows."""

    number: int
    begin: datetime
    end: datetime


def told(days: Sequence[VisitorDay], bounds: Sequence[datetime], end: datetime) -> tuple[list[int], list[Piece]]:
    """How many came from each bound to the next, and from the last to the end, as far as days that are counted tell;
    and what has to be added to that, by the number of the bound."""
    counts, pieces = [0] * len(bounds), list[Piece]()
    at = 0
    for number, (low, high) in enumerate(zip(bounds, [*bounds[1:], end], strict=True)):
        known = low
        while at < len(days) and days[at].ends_at <= low:
            at += 1
        for day in days[at:]:
            if day.begins_at >= high:
                break
            # Where an organization has changed its time zone, its days overlap.
            begin, until = max(known, day.begins_at), min(high, day.ends_at)
            if begin >= until:
                continue
            if (count := day.between(begin, until)) is not None:
                counts[number] += count
                if known < begin:
                    pieces.append(Piece(number, known, begin))
                known = until
        if known < high:
            pieces.append(Piece(number, known, high))
    return counts, pieces
