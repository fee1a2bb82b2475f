"""Reclassification: afterwards everything is as if the rules of today had judged all clicks, in their order."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from admin.database import Connection
from admin.stats import ingest, packs, questions, reclassify, rows, visitor_days
from admin.stats.classify import Class
from admin.stats.packs import Packs
from admin.stats.rows import COLUMNS, Row
from admin.stats.source import EVERY_CLASS, Question
from shared.clicks import Batch, Click
from shared.redis import Redis
from tests.admin.test_ingest import AT_MS, deliver
from tests.houses import BROWSER

DAY = datetime.fromtimestamp(AT_MS / 1000, UTC).date()
WIDE = Question(7, datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), EVERY_CLASS)


def click(at_s: float, *, agent: str = BROWSER, **more: Any) -> bytes:
    return Click(AT_MS + int(at_s * 1000), 1, 7, "GET", "192.0.2.1", agent, "", **more).to_bytes()


async def stored(connection: Connection, redis: Redis, spool: str, records: list[bytes]) -> ingest.Lane:
    lane = await ingest.Lane.begin(connection)
    await deliver(redis, Batch(spool, 0, records))
    while not await ingest.step(connection, redis, lane, wait_ms=1):
        pass
    return lane


async def step(connection: Connection) -> bool:
    known = Packs()
    await known.load(connection)
    return await reclassify.step(connection, known)


async def reclassified(connection: Connection) -> reclassify.Progress:
    number = await reclassify.request(connection, date(1970, 1, 1), DAY + timedelta(days=3))
    while await step(connection):
        pass
    return await reclassify.progress(connection, number)


async def classes(connection: Connection) -> dict[Class, int]:
    """After a look at packs and rows, which must agree on every level."""
    totals = await questions.totals(connection, WIDE)
    counted = await connection.fetch("select class, count(*) as count from clicks group by class")
    assert totals.clicks == {Class(row["class"]): row["count"] for row in counted}
    levels = await connection.fetch(
        """
        select level, sum(clicks) as clicks from packs where link_id = 0 and class = 1
         group by level having sum(clicks) <> (select count(*) from clicks where class = 1)"""
    )
    assert levels == []
    return totals.clicks


async def judge_wrongly(connection: Connection, known: Packs, *, until_s: float) -> None:
    """Have clicks of people counted as those of crawlers."""
    until = datetime.fromtimestamp(AT_MS / 1000 + until_s, UTC)
    async with connection.transaction():
        found = await connection.fetch(
            f"update clicks set class = 7 where clicked_at < $1 returning {', '.join(COLUMNS)}", until
        )
        wrong = [Row(*row.values()) for row in found]
        await known.replace(connection, [row._replace(class_=Class.HUMAN) for row in wrong], wrong)


@pytest.fixture(autouse=True)
def salted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Visitors of long ago are told apart, which ends two days after their day."""
    monkeypatch.setattr("admin.stats.visitors._KEPT", timedelta(days=36500))


async def test_a_repeat_that_came_late_is_told_by_the_time_of_its_click(connection: Connection, redis: Redis) -> None:
    lane = await stored(connection, redis, "later", [click(30), click(50)])
    await stored(connection, redis, "late", [click(21), click(0)])
    assert await classes(connection) == {Class.HUMAN: 4}
    await lane.tend(connection, datetime.now(UTC))
    done = await reclassified(connection)
    assert await classes(connection) == {Class.HUMAN: 3, Class.REPEAT: 1}
    assert (done.rows, done.changed) == (4, 1)
    assert done.finished_at is not None
    [repeat] = await connection.fetch("select clicked_at, reason, version from clicks where class = 2")
    assert repeat["clicked_at"].timestamp() * 1000 == AT_MS + 30_000
    assert repeat["reason"] == rows.REASON_NUMBERS["repeat"]
    assert (await reclassified(connection)).changed == 0


async def test_a_busy_link_and_its_coarser_buckets_are_counted_again(
    connection: Connection, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "BUSY", 2)
    await stored(connection, redis, "first", [click(-7200), click(-7100)])
    lane = await stored(connection, redis, "others", [click(100 * number) for number in range(3)])
    await lane.tend(connection, datetime.now(UTC))
    assert await connection.fetchval("select count(*) from packs where link_id = 1") > 3
    await judge_wrongly(connection, lane.packs, until_s=150)
    await reclassified(connection)
    assert await classes(connection) == {Class.HUMAN: 5}
    of_link = await questions.totals(connection, replace(WIDE, link_id=1))
    assert of_link.clicks == {Class.HUMAN: 5}


async def test_a_class_whose_evidence_is_gone_stays(connection: Connection, redis: Redis) -> None:
    own = "(id, public_id, name, tier, plan) overriding system value values (7, 'o', 'o', 'free', 'free')"
    await connection.execute(f"insert into organizations {own}")
    await connection.execute("insert into counting (organization_id, heeds_opt_out) values (7, true)")
    records = [click(0, has_opted_out=True), click(1, agent=""), click(2, agent="curl/8", has_opted_out=True)]
    await stored(connection, redis, "s", records)
    before = await classes(connection)
    assert before == {Class.HUMAN: 1, Class.TOOL: 2}
    assert (await reclassified(connection)).changed == 0
    assert await classes(connection) == before


async def test_a_crash_leaves_an_hour_as_it_was(
    connection: Connection, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(connection, redis, "s", [click(0), click(1)])
    await connection.execute("update clicks set class = 7")
    await connection.execute("update packs set class = 7")
    await reclassify.request(connection, DAY, DAY + timedelta(days=1))

    async def dies(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(visitor_days, "reopen", dies)
        with pytest.raises(ConnectionError):
            while await step(connection):
                pass
    assert await classes(connection) == {Class.CRAWLER: 2}
    while await step(connection):
        pass
    assert await classes(connection) == {Class.HUMAN: 1, Class.REPEAT: 1}
    assert not await step(connection)


async def test_hours_without_clicks_are_passed_over(connection: Connection, redis: Redis) -> None:
    long_ago = 3_600 - AT_MS / 1000  # by a clock without a battery
    await stored(connection, redis, "s", [click(long_ago), click(0), click(1), click(7200)])
    await reclassify.request(connection, date(1970, 1, 1), DAY + timedelta(days=1))
    steps = 0
    while await step(connection):
        steps += 1
    row = await connection.fetchrow("select rows, finished_at from reclassifications")
    assert row is not None
    assert row["rows"] == 4 and row["finished_at"] is not None
    assert steps <= 4  # an hour each, and the end
