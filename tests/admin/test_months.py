"""Months: clicks of each are in a partition of their own, also those that were there before it."""

import asyncio
from datetime import UTC, datetime

import asyncpg

from admin.database import Connection, Pool
from admin.stats import answering, months

LEAP_DAY = datetime(2028, 2, 29, 23, 59, tzinfo=UTC)


async def partitions(connection: Connection) -> dict[str, int]:
    rows = await connection.fetch("select tableoid::regclass::text as name, count(*) as count from clicks group by 1")
    return {row["name"]: row["count"] for row in rows}


async def store(connection: Connection, at: datetime) -> None:
    await connection.execute(
        """
        insert into clicks (clicked_at, link_id, organization_id, location, referrer, platform, language, campaign,
                            agent, class, reason, version, is_head, is_prefetch, is_internal, is_use, is_scan)
        values ($1, 1, 7, 0, 0, 0, 0, 0, 0, 1, 0, 1, false, false, false, false, false)""",
        at,
    )


async def names(connection: Connection) -> set[str]:
    rows = await connection.fetch(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'clicks'::regclass"
    )
    return {row[0] for row in rows} - {"clicks_early"}


async def test_a_month_takes_the_clicks_that_were_early(connection: Connection) -> None:
    await store(connection, LEAP_DAY)
    await store(connection, datetime(2028, 3, 1, tzinfo=UTC))
    await store(connection, datetime(2027, 12, 31, tzinfo=UTC))
    assert await partitions(connection) == {"clicks_early": 3}
    for _ in range(2):
        await months.step(connection, LEAP_DAY)
        assert await partitions(connection) == {"clicks_early": 1, "clicks_2028_02": 1, "clicks_2028_03": 1}
        assert await names(connection) >= {"clicks_2028_02", "clicks_2028_03", "clicks_2028_04"}
    await store(connection, LEAP_DAY)
    assert (await partitions(connection))["clicks_2028_02"] == 2


async def test_a_month_that_is_over_and_empty_goes(connection: Connection) -> None:
    await months.step(connection, LEAP_DAY)
    await store(connection, datetime(2028, 3, 1, tzinfo=UTC))
    await months.step(connection, datetime(2028, 12, 31, tzinfo=UTC))
    assert await names(connection) == {"clicks_2028_03", "clicks_2028_12", "clicks_2029_01", "clicks_2029_02"}


async def test_a_long_reader_holds_nobody_up(connection: Connection, database_url: str) -> None:
    reader = await asyncpg.connect(database_url)
    try:
        async with reader.transaction():
            await reader.fetch("select * from clicks")
            await months.step(connection, LEAP_DAY)
            assert not await names(connection) & {"clicks_2028_02"}
        await months.step(connection, LEAP_DAY)
        assert "clicks_2028_02" in await names(connection)
    finally:
        await reader.close()


async def test_who_holds_months_sees_what_there_is_when_it_has_them(connection: Connection, pool: Pool) -> None:
    """Not what there was when it began to wait: a month may have gone meanwhile."""

    async def seen() -> int:
        async with answering.moment(pool, holds_months=True) as taken:
            return int(await taken.fetchval("select count(*) from clicks"))

    async with connection.transaction():
        await connection.execute("lock table clicks")
        await store(connection, LEAP_DAY)
        seeing = asyncio.create_task(seen())
        while not await connection.fetchval("select exists (select from pg_locks where not granted)"):
            assert not seeing.done()
    assert await seeing == 1
