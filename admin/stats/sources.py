"""Sources: how far each spool is stored, when one is closed, and what became of its clicks.

Rules of this file:

1. A spool's position is the number of its records that are dealt with: stored, set aside or lost. It only grows, in the
   transaction that deals with them.
2. Redis is told the positions of all open spools every few seconds, because it may have lost them.
3. A shipper reports from which record on it can ship. What is before that and beyond the position is lost, and counted.
4. A spool is closed when it is reported as finished and Postgres has all of it; or when nobody has said anything of it
   for `LINKWIRE_SPOOL_SILENCE_S`, and then what it is known to have had is lost. One that speaks again goes on.
5. Silence is what a worker hears that listens and a Redis that takes what is said: the rest of the time does not count.
   Only the clock of Postgres measures it; those of the edges may be wrong.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any

from prometheus_client import Counter
from redis.exceptions import OutOfMemoryError

from admin.database import Connection
from shared import clicks
from shared.clicks import SpoolReport
from shared.redis import Redis

log = logging.getLogger(__name__)

LONGEST_NAME = 200
"""Of a spool; a longer one does not fit into an index of Postgres."""

LOST = Counter("linkwire_clicks_lost", "Clicks that were recorded and can't be had any more.")

_GONE = "its shipper has not got them any more"
_SILENT = "nothing was heard of the spool"
_REMEMBER_S = 15
"""A spool that says nothing new is written down as heard this often: well within the shortest silence."""
_PAUSE_S = 10
"""After a longer time without a step nobody has listened."""
_STUCK_S = 60
"""A spool that waits for records as long, while the stream is not behind, asks for them (again)."""
_FORGET_S = 7 * 24 * 3600
"""Reports stay as long in Redis: if Postgres is restored to a time before, they say what it lacks."""


async def positions(connection: Connection, spools: Collection[str]) -> dict[str, int]:
    """How many records of each of these spools are dealt with. Only the holder of the lease changes that."""
    rows = await connection.fetch(
        "/* sources.positions */ select spool_id, position from click_sources where spool_id = any($1::text[])",
        list(spools),
    )
    return dict.fromkeys(spools, 0) | {row["spool_id"]: row["position"] for row in rows}


async def advance(
    connection: Connection, positions: Mapping[str, int], seen: Mapping[str, int], set_aside: Mapping[str, int]
) -> None:
    """Say how far spools are dealt with, how far they are known to go, and how many records were set aside."""
    await connection.execute(
        """
        /* sources.advance */
        insert into click_sources as held (spool_id, position, seen, set_aside)
        select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
        on conflict (spool_id) do update
           set position = excluded.position,
               seen = greatest(held.seen, excluded.seen),
               set_aside = held.set_aside + excluded.set_aside,
               updated_at = now(),
               heard_at = now(),
               closed_at = case when greatest(excluded.position, excluded.seen) <= held.position then held.closed_at
                           end""",
        list(positions),
        list(positions.values()),
        [seen[spool] for spool in positions],
        [set_aside.get(spool, 0) for spool in positions],
    )


async def step(connection: Connection, redis: Redis, *, silence_s: int) -> int:
    """Heed what shippers report, close what can be closed, and tell Redis the positions; the number of spools closed.

    Only for the holder of the lease (`ingest.lease`).
    """
    reports = await reported(redis)
    closed = 0
    known = {
        row["spool_id"]: row
        for row in await connection.fetch(
            """
            /* sources.step */
            select spool_id, position, recorded, dropped, reported_ms, closed_at is null as is_open,
                   heard_at < now() - make_interval(secs => $2) as is_due
              from click_sources where spool_id = any($1::text[])""",
            list(reports),
            _REMEMBER_S,
        )
    }
    for spool, report in reports.items():
        if _says_something(known.get(spool), report):
            closed += await _heed(connection, spool, report)
    if await _tell(connection, redis, reports):
        closed += await _close_silent(connection, reports, silence_s)
        await _ask_again(connection, redis)
    return closed


async def reported(redis: Redis) -> dict[str, SpoolReport]:
    """What the shippers say now."""
    reports = {}
    for spool, value in (await redis.hgetall(clicks.REPORTS_KEY)).items():
        try:
            name, report = spool.decode(), SpoolReport.from_bytes(value)  # type: ignore[union-attr,arg-type]
            if not (name + report.host).isprintable() or len(name) > LONGEST_NAME:
                raise ValueError("Postgres would not take its names")
            reports[name] = report
        except ValueError as error:
            log.error("the report of spool %r can't be read: %s", spool, error)
    return reports


def _says_something(row: Any, report: SpoolReport) -> bool:
    """Whether a report changes what is known of its spool, or is to be written down as heard."""
    if row is None:
        return bool(report.served or report.recorded)
    if report.earliest > row["position"]:
        return True
    if report.is_finished and not row["is_open"]:
        return bool(report.recorded > row["recorded"] or report.dropped > row["dropped"])  # closed too early
    if report.is_finished and row["position"] >= report.recorded:
        return True
    is_far = abs(report.at_ms - row["reported_ms"]) >= _REMEMBER_S * 1000
    return report.at_ms != row["reported_ms"] and (is_far or bool(row["is_due"]))


async def _heed(connection: Connection, spool: str, report: SpoolReport) -> bool:
    """Write a report down; whether its spool is closed now."""
    async with connection.transaction():
        # The counts only grow: an earlier report may know of what a loss of power has destroyed since.
        row = await connection.fetchrow(
            """
            /* sources.heed */
            insert into click_sources as held (spool_id, position, host, served, recorded, dropped, reported_ms)
            values ($1, 0, $2, $3, $4, $5, $6)
            on conflict (spool_id) do update
               set host = $2, served = greatest(held.served, $3), recorded = greatest(held.recorded, $4),
                   dropped = greatest(held.dropped, $5), reported_ms = $6, heard_at = now(), closed_at = null
            returning position, greatest(seen, recorded) as known""",
            spool,
            report.host,
            report.served,
            report.recorded,
            report.dropped,
            report.at_ms,
        )
        assert row is not None
        is_done = report.is_finished and max(row["position"], report.earliest) >= report.recorded
        # Of what is finished, nothing comes any more.
        available_from = max(report.earliest, row["known"]) if is_done else report.earliest
        if available_from > row["position"]:
            await _lose(connection, spool, row["position"], available_from - row["position"], _GONE)
        if is_done:
            await connection.execute(
                "/* sources.heed */ update click_sources set closed_at = now() where spool_id = $1", spool
            )
    return is_done


async def _lose(connection: Connection, spool: str, position: int, count: int, reason: str) -> None:
    log.error("records %d to %d of spool %s are lost: %s", position, position + count - 1, spool, reason)
    LOST.inc(count)
    await connection.execute(
        """
        /* sources.lose */
        with told as (
            insert into clicks_lost (spool_id, position, count, reason) values ($1, $2, $3, $4)
        )
        update click_sources set position = position + $3, lost = lost + $3 where spool_id = $1""",
        spool,
        position,
        count,
        reason,
    )


async def _close_silent(connection: Connection, reports: Mapping[str, SpoolReport], silence_s: int) -> int:
    async with connection.transaction():
        await _listen(connection)
        rows = await connection.fetch(
            """
            /* sources.close_silent */
            select spool_id from click_sources
             where closed_at is null and heard_at < now() - make_interval(secs => $1)""",
            silence_s,
        )
        silent = [row["spool_id"] for row in rows]
        for spool in silent:
            if last := reports.get(spool):
                await _heed(connection, spool, last)
        rows = await connection.fetch(
            """
            /* sources.close_silent */
            update click_sources set closed_at = now() where spool_id = any($1::text[])
            returning spool_id, position, greatest(seen, recorded) - position as missing""",
            silent,
        )
        for row in rows:
            log.warning("spool %s is closed: nothing was heard of it for %d s", row["spool_id"], silence_s)
            if row["missing"] > 0:
                await _lose(connection, row["spool_id"], row["position"], row["missing"], _SILENT)
    return len(rows)


async def _listen(connection: Connection) -> None:
    """Note that somebody listens now. While nobody did, no spool was silent."""
    await connection.execute(
        """
        /* sources.listen */
        with before as (select now() - listened_at as pause from click_listening),
             noted as (update click_listening set listened_at = now())
        update click_sources set heard_at = least(now(), heard_at + pause)
          from before where closed_at is null and pause > make_interval(secs => $1)""",
        _PAUSE_S,
    )


async def _ask_again(connection: Connection, redis: Redis) -> None:
    """Ask shippers for what is missing and not on its way. They may have missed the question, or Redis the answer."""
    if await _is_behind(redis):
        return
    rows = await connection.fetch(
        """
        /* sources.ask_again */
        update click_sources set updated_at = now()
         where closed_at is null and greatest(seen, recorded) > position
           and updated_at < now() - make_interval(secs => $1)
        returning spool_id, position""",
        _STUCK_S,
    )
    if rows:
        await tell_gaps(redis, {row["spool_id"]: row["position"] for row in rows})


async def _is_behind(redis: Redis) -> bool:
    """Whether something waits on the stream for so long that what is missed may be behind it."""
    oldest: Any = await redis.xrange(clicks.STREAM, count=1)
    now_s, _ = await redis.time()
    return bool(oldest) and now_s - int(oldest[0][0].partition(b"-")[0]) / 1000 > _STUCK_S


async def _tell(connection: Connection, redis: Redis, reports: Mapping[str, SpoolReport]) -> bool:
    """Write all positions to Redis, and take away what nobody needs there; whether Redis took them."""
    rows = await connection.fetch(
        """
        /* sources.tell */
        select spool_id, position, closed_at is null as is_open,
               heard_at < now() - make_interval(secs => $2) as is_old
          from click_sources where closed_at is null or spool_id = any($1::text[])""",
        list(reports),
        _FORGET_S,
    )
    told: dict[str, int | bytes] = {
        spool: clicks.CLOSED for spool, report in reports.items() if report.is_finished and not report.is_removed
    }
    told |= {row["spool_id"]: row["position"] for row in rows if row["is_open"]}
    now_ms = 1000 * int(await connection.fetchval("/* sources.tell */ select extract(epoch from now())"))
    known = {row["spool_id"]: row["is_old"] and not row["is_open"] for row in rows}
    # A spool without a row has had no click, so its clock may decide.
    old = [
        spool for spool, report in reports.items() if known.get(spool, abs(now_ms - report.at_ms) > _FORGET_S * 1000)
    ]
    if old:
        await redis.hdel(clicks.REPORTS_KEY, *old)
    current = {spool.encode() for spool in told}
    for key in (clicks.COMMITTED_KEY, clicks.GAPS_KEY):
        if stale := [spool for spool in await redis.hkeys(key) if spool not in current]:
            await redis.hdel(key, *stale)
    return await tell(redis, told)


async def tell(redis: Redis, positions: Mapping[str, int | bytes]) -> bool:
    """Say in Redis how far spools are dealt with; whether it took that. A Redis that is full is told later."""
    return await _set(redis, clicks.COMMITTED_KEY, positions)


async def tell_gaps(redis: Redis, positions: Mapping[str, int]) -> bool:
    """Ask shippers to ship again from these positions."""
    return await _set(redis, clicks.GAPS_KEY, positions)


async def _set(redis: Redis, key: str, values: Mapping[str, int | bytes]) -> bool:
    try:
        if values:
            await redis.hset(key, mapping=values)  # type: ignore[arg-type]
    except OutOfMemoryError as error:
        log.warning("Redis can't be told %s: %s", key, error)
        return False
    return True
