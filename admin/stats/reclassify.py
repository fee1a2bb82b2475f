"""Reclassification: the rules of today, applied to clicks that others have judged.

Rules of this file:

1. A day (UTC) is judged again in one transaction, with the packs and the visitors that were counted of it. So at every
   moment totals are what rows say, and what a crash interrupts begins again with that day.
2. Rows are judged in the order of their clicks. So repeats are told exactly, also where edges were stored late.
3. What a row was judged by is beside it: method, agent, headers. Where that is no longer held, its class stays.
4. Only the holder of the lease of ingest does this, between two batches: nothing else changes rows meanwhile.
"""

import asyncio
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.stats import repacking, visitor_days
from admin.stats.classify import REPEAT_WITHIN_MS, VERSION, Class, Evidence, classify
from admin.stats.repacking import Scope
from admin.stats.rows import COLUMNS, REASON_NUMBERS, Row

_HOUR = timedelta(hours=1)
_LOOK_EVERY_S = 0.25
_NO_AGENT = REASON_NUMBERS["no-agent"]


class Progress(NamedTuple):
    """How far a reclassification has got."""

    next: date
    until: date
    rows: int
    changed: int
    finished_at: datetime | None


async def request(connection: Connection, since: date, until: date) -> int:
    """Have the days from `since` to before `until` classified again that there are clicks of; the id of that, for
    `progress`."""
    reclassification_id: int = await connection.fetchval(
        """
        /* reclassify.request */
        insert into reclassifications (next, until)
        select least(greatest($1, coalesce((min(clicked_at) at time zone 'UTC')::date, $2)), $2), $2 from clicks
        returning id""",
        since,
        until,
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


async def step(connection: Connection) -> bool:
    """Do the next day of what was requested first; whether there was one. Not in a transaction."""
    row = await connection.fetchrow(
        """
        /* reclassify.step */
        select id, next, until from reclassifications where finished_at is null order by id limit 1"""
    )
    if row is None:
        return False
    async with connection.transaction():
        day = row["next"]
        looked_at, changed = await _judge_day(connection, day) if day < row["until"] else (0, 0)
        await connection.execute(
            """
            /* reclassify.step */
            update reclassifications
               set next = $2, rows = rows + $3, changed = changed + $4,
                   finished_at = case when $2 >= until then now() end
             where id = $1""",
            row["id"],
            day + timedelta(days=1),
            looked_at,
            changed,
        )
    return True


async def _judge_day(connection: Connection, day: date) -> tuple[int, int]:
    """How many rows it has, and how many are something else now."""
    begin = datetime.combine(day, time(), UTC)
    visits = await _visits_before(connection, begin)
    touched: set[Scope] = set()
    looked_at = changed = 0
    for hour in (begin + number * _HOUR for number in range(24)):
        rows = await _rows(connection, hour)
        judged = [_judged(row, agent, visits) for _, row, agent in rows]
        different = [(place, new) for (place, old, _), new in zip(rows, judged, strict=True) if new != old]
        looked_at += len(rows)
        changed += sum(new.class_ != old.class_ for (_, old, _), new in zip(rows, judged, strict=True))
        if different:
            await _write(connection, hour, different)
            links = {Scope(new.organization_id, new.link_id) for _, new in different}
            touched |= await repacking.rebuild_hour(connection, hour, judged, links)
    await repacking.rebuild_coarser(connection, begin, touched)
    for organization_id in {scope.organization_id for scope in touched}:
        await visitor_days.reopen(connection, organization_id, begin, begin + timedelta(days=1))
    return looked_at, changed


def _judged(row: Row, agent: str, visits: dict[tuple[int, int], datetime]) -> Row:
    """A row as it is judged now. `visits`: when visitors were last at a link; takes this one in."""
    if row.agent == 0 and row.reason != _NO_AGENT:
        return row  # its agent was not kept
    last = visits.get((row.link_id, row.visitor)) if row.visitor is not None else None
    since_ms = None if last is None else (row.clicked_at - last) // timedelta(milliseconds=1)
    method = "HEAD" if row.is_head else "GET"
    verdict = classify(Evidence(method, agent, row.is_prefetch, row.is_internal, since_ms, None))
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
        begin - timedelta(milliseconds=REPEAT_WITHIN_MS),
        begin,
        Class.HUMAN,
    )
    return {(row["link_id"], row["visitor"]): row["at"] for row in rows}


async def _rows(connection: Connection, hour: datetime) -> list[tuple[str, Row, str]]:
    """The rows of an hour in the order of their clicks: where each is, and with its agent."""
    rows = await connection.fetch(
        f"""
        /* reclassify.rows */
        select clicks.ctid, {", ".join(COLUMNS)}, coalesce(text, '') as text
          from clicks left join words on words.id = agent
         where clicked_at >= $1 and clicked_at < $2
         order by clicked_at, link_id, clicks.ctid""",  # noqa: S608
        hour,
        hour + _HOUR,
    )
    return [(row[0], Row(*list(row.values())[1:-1]), row[-1]) for row in rows]


async def _write(connection: Connection, hour: datetime, rows: list[tuple[str, Row]]) -> None:
    # All rows of an hour are in one partition, so that their places are unique.
    await connection.execute(
        """
        /* reclassify.write */
        update clicks set class = new.class, reason = new.reason, version = new.version
          from unnest($1::tid[], $2::smallint[], $3::smallint[], $4::smallint[]) as new (place, class, reason, version)
         where clicks.ctid = place and clicked_at >= $5 and clicked_at < $6""",
        [place for place, _ in rows],
        [row.class_ for _, row in rows],
        [row.reason for _, row in rows],
        [row.version for _, row in rows],
        hour,
        hour + _HOUR,
    )
