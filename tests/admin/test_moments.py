"""At every moment that a reader can see, totals are what details say and what the rows are."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from admin.database import Connection
from admin.stats import ingest, packs, questions
from admin.stats.source import EVERY_CLASS, FACTS, Question
from shared.clicks import Batch, Click
from shared.redis import Redis
from tests.admin.test_ingest import AT_MS, deliver
from tests.houses import BROWSER

BEGIN = datetime.fromtimestamp(AT_MS / 1000, UTC)
AGENTS = [BROWSER, BROWSER, "curl/8", "Googlebot/2.1 (+http://www.google.com/bot.html)"]


def records(chance: random.Random, count: int, days: float) -> list[bytes]:
    """Clicks of some days, in no order."""
    return [
        Click(
            AT_MS + int(chance.random() * days * 86_400_000),
            chance.choice([1, 1, 2, 3]),
            7,
            chance.choice(["GET", "GET", "HEAD"]),
            f"192.0.2.{chance.randrange(20)}",
            chance.choice(AGENTS),
            chance.choice(["", "https://google.com/", "https://t.co/x"]),
        ).to_bytes()
        for _ in range(count)
    ]


async def look(connection: Connection, span: timedelta) -> int:
    """Compare, in one snapshot; how many clicks there were."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for link_id in (None, 1):
            question = Question(7, BEGIN, BEGIN + span, EVERY_CLASS, link_id)
            rows = await connection.fetch(
                "select class, count(*) as count from clicks where $1::bigint in (0, link_id) group by class",
                link_id or 0,
            )
            totals = await questions.totals(connection, question)
            assert totals.clicks == {row["class"]: row["count"] for row in rows}, link_id
            for name in ("country", "referrer", "device", "link"):
                counted, others = await questions.breakdown(connection, question, FACTS[name], 2)
                assert sum(one.clicks for one in counted) + others == sum(totals.clicks.values()), name
    return sum(totals.clicks.values())


async def as_it_is(*_: object) -> None:
    """Nothing to do."""


@pytest.mark.parametrize("seed", range(2))
async def test_while_clicks_come_in_and_packs_are_folded_and_closed(
    connection: Connection, redis: Redis, database_url: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(packs, "BUSY", 400)
    monkeypatch.setattr("admin.stats.months.step", as_it_is)  # a month is made ahead of its clicks, and never of these
    chance, span = random.Random(seed), timedelta(days=20)
    is_done = asyncio.Event()

    async def read() -> list[int]:
        reader, seen = await asyncpg.connect(database_url), [0]
        try:
            while not is_done.is_set():
                seen.append(await look(reader, span))
        finally:
            await reader.close()
        return seen

    reading = asyncio.create_task(read())
    lane = await ingest.Lane.begin(connection)
    for number in range(12):
        await deliver(redis, Batch("s", number * 100, records(chance, 100, 1 + number * 1.5)))
        while not await ingest.step(connection, redis, lane, wait_ms=1):
            pass
        await lane.tend(connection, BEGIN + timedelta(days=1 + number * 1.5))
    is_done.set()
    seen = await reading
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert await look(connection, span) > 0
    assert await connection.fetchval("select count(*) from busy_links") == 1
    assert await connection.fetchval("select count(distinct level) from packs") >= 3
