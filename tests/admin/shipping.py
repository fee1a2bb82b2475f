"""A shipper by hand, a Postgres that is restored, and the books, which must balance after every step."""

from typing import Any, Self

from asyncpg import Record

from admin.database import Connection
from admin.stats import pipeline, sources
from admin.stats.pipeline import Numbers, Pipeline
from shared import clicks
from shared.clicks import SpoolReport
from shared.redis import Redis

NOW_MS = 1_800_000_000_000
SILENCE_S = 3600
TABLES = ("clicks", "packs", "clicks_set_aside", "clicks_lost", "click_sources", "click_listening")


def said(
    recorded: int,
    *,
    at_ms: int = NOW_MS,
    dropped: int = 0,
    earliest: int = 0,
    is_finished: bool = False,
    is_removed: bool = False,
) -> SpoolReport:
    """What a shipper says of a spool with so many records."""
    return SpoolReport(at_ms, "edge-1", recorded + dropped, recorded, dropped, earliest, is_finished, is_removed)


async def report(redis: Redis, spool: str, what: SpoolReport) -> None:
    await redis.hset(clicks.REPORTS_KEY, spool, what.to_bytes())


async def step(connection: Connection, redis: Redis) -> int:
    return await sources.step(connection, redis, silence_s=SILENCE_S)


async def committed(redis: Redis) -> dict[str, int | bytes]:
    """What the worker tells the shippers."""
    found = await redis.hgetall(clicks.COMMITTED_KEY)
    return {_text(spool): value if value == clicks.CLOSED else int(value) for spool, value in found.items()}


async def reports(redis: Redis) -> set[str]:
    """The spools that Redis has a report of."""
    return {_text(spool) for spool in await redis.hkeys(clicks.REPORTS_KEY)}


def _text(name: Any) -> str:
    return str(name.decode())


async def pass_time(connection: Connection, seconds: int, *, listening: bool = True) -> None:
    """Make it later, with a worker that listened all the while and heard nothing, or without any."""
    await connection.execute(
        """
        update click_sources
           set heard_at = heard_at - make_interval(secs => $1), updated_at = updated_at - make_interval(secs => $1)""",
        seconds,
    )
    if listening:
        await connection.execute("update click_listening set listened_at = now() - interval '5 s'")
    else:
        await connection.execute(
            "update click_listening set listened_at = listened_at - make_interval(secs => $1)", seconds
        )


class Backup:
    """The clicks of a database, as they were once."""

    def __init__(self, rows: dict[str, list[Record]]) -> None:
        self._rows = rows

    @classmethod
    async def taken(cls, connection: Connection) -> Self:
        rows = {}
        for table in TABLES:
            columns = await connection.fetchval(  # what is made of others is no part of a backup
                """
                select string_agg(quote_ident(attname), ', ') from pg_attribute
                 where attrelid = $1::text::regclass and attnum > 0 and attgenerated = '' and not attisdropped""",
                table,
            )
            rows[table] = await connection.fetch(f"select {columns} from {table}")
        return cls(rows)

    async def restore(self, connection: Connection) -> None:
        for table, rows in self._rows.items():
            await connection.execute(f"delete from {table}")
            if rows:
                await connection.copy_records_to_table(
                    table, records=[tuple(row) for row in rows], columns=list(rows[0].keys())
                )


def assert_equations(numbers: Numbers) -> None:
    assert numbers.served == numbers.recorded + numbers.dropped, numbers
    assert numbers.recorded == numbers.stored + numbers.set_aside + numbers.in_spool + numbers.lost, numbers


async def books(connection: Connection, redis: Redis) -> Pipeline:
    """What the pipeline shows, after a look at every number of it: it adds up, and is what the tables hold."""
    shown = await pipeline.show(connection, redis)
    summed = Numbers()
    for spool in shown.spools:
        assert_equations(spool.numbers)
        assert min(spool.numbers) >= 0, spool
        assert spool.is_open or not spool.numbers.in_spool, spool
        summed = summed.plus(spool.numbers)
    assert_equations(shown.total)
    assert shown.total == summed
    held = await connection.fetchrow(
        """
        select (select count(*) from clicks) as stored,
               (select coalesce(sum(clicks), 0) from packs where level = 0 and link_id = 0) as counted,
               (select count(*) from clicks_set_aside where spool_id is not null) as set_aside,
               (select coalesce(sum(count), 0) from clicks_lost) as lost"""
    )
    assert held is not None
    assert (held["stored"], held["counted"]) == (shown.total.stored, shown.total.stored)
    assert (held["set_aside"], held["lost"]) == (shown.total.set_aside, shown.total.lost)
    return shown
