"""Reclassification: the rules of today, applied to clicks that others have judged.

Rules of this file:

1. An hour is judged again in one transaction, with the packs and the visitors that were counted of it. So at every
   moment totals are what rows say, and what a crash interrupts begins again with that hour.
2. Rows are judged in the order of their clicks, and with all clicks of their message at hand. So repeats and bursts are
   told exactly, also where edges were stored late.
3. What a row was judged by is beside it: method, agent, headers, message, network. Where that is no longer held, its
   class stays.
4. An hour may have any number of rows: they are read by the minute, and some thousand are in memory.
5. Only the holder of the lease of ingest does this, between two batches: nothing else changes rows meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import asyncpg

from admin.database import Connection
from admin.stats import bursts, months, visitor_days
from admin.stats.bursts import Clicked
from admin.stats.carriers import Carrier
from admin.stats.classify import REPEAT_WITHIN_MS, VERSION, Class, Evidence, classify
from admin.stats.networks import KINDS
from admin.stats.packs import Packs
from admin.stats.rows import COLUMNS, REASON_NUMBERS, Row

_HOUR = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)
_REPEAT_WITHIN = timedelta(milliseconds=REPEAT_WITHIN_MS)
_LONGEST_SPAN = timedelta(days=32)
_AT_ONCE = 5_000
_MOVED_AT_ONCE = 20_000
_LOOK_EVERY_S = 0.25
_NO_AGENT = REASON_NUMBERS["no-agent"]


class Progress(NamedTuple):
    """How far a reclassification has got."""

    next: datetime
    until: datetime
    rows: int
    changed: int
    finished_at: datetime | None


async def request(connection: Connection, since: date, until: date) -> int:
    """Have the days (UTC) from `since` to before `until` classified again that there are clicks of; the id of that, for
    `progress`."""
    reclassification_id: int = await connection.fetchval(
        """
        /* reclassify.request */
        insert into reclassifications (next, until)
        select least(greatest($1, coalesce(date_trunc('hour', min(clicked_at), 'UTC'), $2)), $2), $2 from clicks
        returning id""",
        _midnight(since),
        _midnight(until),
    )
    return reclassification_id


async def progress(connection: Connection, reclassification_id: int) -> Progress:
    """How far it has got."""
    row = await connection.fetchrow(
        f"/* reclassify.progress */ select {', '.join(Progress._fields)} from reclassifications where id = $1",  # noqa: S608
        reclassification_id,
    )
    assert row is not None
    return Progress(*row)


async def follow(connection: Connection, since: date) -> Progress:
    """Have the days from `since` until now classified again, and wait until a worker has done so.

    Who stops waiting does not stop the worker.
    """
    tomorrow = await connection.fetchval("/* reclassify.follow */ select (now() at time zone 'UTC')::date + 1")
    number = await request(connection, since, max(since, tomorrow))
    while not (known := await progress(connection, number)).finished_at:  # noqa: ASYNC110  another process does it
        await asyncio.sleep(_LOOK_EVERY_S)
    return known


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


async def step(connection: Connection, packs: Packs) -> bool:
    """Do the next hour of what was requested first; whether there was one. Not in a transaction."""
    row = await connection.fetchrow(
        """
        /* reclassify.step */
        select id, next, until from reclassifications where finished_at is null order by id limit 1"""
    )
    if row is None:
        return False
    await months.summarize(connection)  # of the hour before, which was written anew
    async with connection.transaction():
        hour = row["next"].astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        hour = await _first_with_rows(connection, hour, row["until"])
        looked_at, changed = await _judge_hour(connection, packs, hour) if hour < row["until"] else (0, 0)
        await connection.execute(
            """
            /* reclassify.step */
            update reclassifications
               set next = $2, rows = rows + $3, changed = changed + $4,
                   finished_at = case when $2 >= until then now() end
             where id = $1""",
            row["id"],
            hour + _HOUR,
            looked_at,
            changed,
        )
    return True


async def _first_with_rows(connection: Connection, hour: datetime, until: datetime) -> datetime:
    """The first hour from this one on that has rows, or the end: a click of 1970 must not cost half a million steps."""
    span = _HOUR
    while hour < until:
        has_rows = await connection.fetchval(
            """
            /* reclassify.first_with_rows */
            select exists (select from clicks where clicked_at >= $1 and clicked_at < $2)""",
            hour,
            hour + span,
        )
        if has_rows and span == _HOUR:
            return hour
        hour, span = (hour, _HOUR) if has_rows else (hour + span, min(span * 2, _LONGEST_SPAN))
    return until


async def _judge_hour(connection: Connection, packs: Packs, hour: datetime) -> tuple[int, int]:
    """How many rows it has, and how many are something else now."""
    visits = await _visits_before(connection, hour)
    moved = _Moved()
    looked_at = changed = 0
    async for found in _rows(connection, hour):
        different = [(one, now) for one in found if (now := _judged(one, visits)) != one.row]
        if different:
            await _write(connection, hour, [one.place for one, _ in different], [now for _, now in different])
        for one, now in different:
            if one.row.class_ != now.class_:  # packs know nothing of reasons
                moved.before.append(one.row)
                moved.after.append(now)
                changed += 1
        looked_at += len(found)
        if len(moved.after) >= _MOVED_AT_ONCE:
            await moved.count(connection, packs, hour)
        over = found[-1].row.clicked_at - _REPEAT_WITHIN
        visits = {who: at for who, at in visits.items() if at >= over}
    await moved.count(connection, packs, hour)
    return looked_at, changed


class _Moved:
    """Rows that have another class now, until they are counted so."""

    def __init__(self) -> None:
        self.before: list[Row] = []
        self.after: list[Row] = []

    async def count(self, connection: Connection, packs: Packs, hour: datetime) -> None:
        """In the packs; and have their visitors counted again."""
        await packs.replace(connection, self.before, self.after)
        for organization_id in {row.organization_id for row in self.after}:
            await visitor_days.reopen(connection, organization_id, hour, hour + _HOUR)
        self.before, self.after = [], []


class _Found(NamedTuple):
    """A row, and what it is judged by that is elsewhere."""

    row: Row
    place: object
    agent: str
    carrier: Carrier | None
    """None also for one that is gone."""
    links_at_once: int


def _judged(found: _Found, visits: dict[tuple[int, int], datetime]) -> Row:
    """A row as it is judged now. `visits`: when visitors were last at a link; takes this one in."""
    row = found.row
    if (row.agent == 0 and row.reason != _NO_AGENT) or (row.message_id is not None and found.carrier is None):
        return row  # what it was judged by was not kept
    last = visits.get((row.link_id, row.visitor)) if row.visitor is not None else None
    since_ms = None if last is None else (row.clicked_at - last) // timedelta(milliseconds=1)
    network = KINDS[row.network - 1] if row.network else ""
    message = found.carrier and found.carrier.judged(row.clicked_at, found.links_at_once, network)
    method = "HEAD" if row.is_head else "GET"
    verdict = classify(Evidence(method, found.agent, row.is_prefetch, row.is_internal, since_ms, message))
    if row.visitor is not None and verdict.kind == Class.HUMAN:
        visits[row.link_id, row.visitor] = row.clicked_at
    return row._replace(class_=verdict.kind, reason=REASON_NUMBERS[verdict.reason], version=VERSION)


async def _visits_before(connection: Connection, begin: datetime) -> dict[tuple[int, int], datetime]:
    rows = await connection.fetch(
        """
        /* reclassify.visits_before */
        select link_id, visitor, max(clicked_at) as at from clicks
         where clicked_at >= $1 and clicked_at < $2 and class = $3 and visitor is not null
         group by link_id, visitor""",
        begin - _REPEAT_WITHIN,
        begin,
        Class.HUMAN,
    )
    return {(row["link_id"], row["visitor"]): row["at"] for row in rows}


async def _rows(connection: Connection, hour: datetime) -> AsyncIterator[list[_Found]]:
    """The rows of an hour in the order of their clicks, some at a time. What is written meanwhile changes no order."""
    for minute in (hour + number * _MINUTE for number in range(60)):  # to sort an hour may take minutes
        cursor = connection.cursor(
            f"""
            /* reclassify.rows */
            select {", ".join(f"clicks.{name}" for name in COLUMNS)}, clicks.ctid as place,
                   coalesce(words.text, '') as text, carriers.id as carrier_id, carriers.sent_at, carriers.is_email,
                   coalesce(carried_links.is_honeypot, false) as is_honeypot
              from clicks
                   left join words on words.id = agent
                   left join carriers on carriers.id = message_id
                   left join carried_links on carried_links.link_id = clicks.link_id
             where clicked_at >= $1 and clicked_at < $2
             order by clicked_at, clicks.link_id, clicks.ctid""",  # noqa: S608
            minute,
            minute + _MINUTE,
            prefetch=_AT_ONCE,
        )
        records = []
        async for record in cursor:
            records.append(record)
            if len(records) == _AT_ONCE:
                yield await _found(connection, records)
                records = []
        if records:
            yield await _found(connection, records)


async def _found(connection: Connection, records: Sequence[asyncpg.Record]) -> list[_Found]:
    rows = [Row(*list(record.values())[: len(COLUMNS)]) for record in records]
    carried = [Clicked(row.message_id, row.link_id, row.clicked_at) for row in rows if row.message_id is not None]
    at_once = iter(await bursts.links_at_once(connection, carried))
    return [
        _Found(
            row,
            record["place"],
            record["text"],
            Carrier(record["carrier_id"], record["sent_at"], record["is_email"], record["is_honeypot"])
            if record["carrier_id"]
            else None,
            0 if row.message_id is None else next(at_once),
        )
        for row, record in zip(rows, records, strict=True)
    ]


async def _write(connection: Connection, hour: datetime, places: Sequence[object], rows: Sequence[Row]) -> None:
    # All rows of an hour are in one partition, so that their places are unique.
    await connection.execute(
        """
        /* reclassify.write */
        update clicks set class = new.class, reason = new.reason, version = new.version
          from unnest($1::tid[], $2::smallint[], $3::smallint[], $4::smallint[]) as new (place, class, reason, version)
         where clicks.ctid = place and clicked_at >= $5 and clicked_at < $6""",
        places,
        [row.class_ for row in rows],
        [row.reason for row in rows],
        [row.version for row in rows],
        hour,
        hour + _HOUR,
    )
