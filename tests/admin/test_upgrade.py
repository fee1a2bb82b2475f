"""An upgrade: what was stored by an older version is counted by this one."""

import hashlib
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib import resources

import asyncpg
import pytest

from admin import database
from admin.database import Connection
from admin.stats import questions
from admin.stats.classify import Class
from admin.stats.source import EVERY_CLASS, FACTS, Question
from tests.conftest import Servers, at_database

BEGIN = datetime(2026, 9, 30, 23, 50, tzinfo=UTC)
LAST_WITHOUT_STATISTICS = "0011"


WITH_FIRST_STATISTICS = "0014"


@pytest.fixture(params=[LAST_WITHOUT_STATISTICS])
async def older(servers: Servers, request: pytest.FixtureRequest) -> AsyncIterator[Connection]:
    """A database as it was after a migration, the last one before statistics if not told, without anything in it."""
    name = f"older_{secrets.token_hex(4)}"
    owner = await asyncpg.connect(servers.postgres_url)
    await owner.execute(f"create database {name}")
    connection = await asyncpg.connect(at_database(servers.postgres_url, name))
    await connection.execute("create table migrations (name text primary key, sha256 text, applied_at timestamptz)")
    files = sorted((resources.files("admin") / "migrations").iterdir(), key=lambda file: file.name)
    for file in files:
        if file.name[:4] <= request.param and file.name.endswith(".sql"):
            text = file.read_text(encoding="utf-8")
            await connection.execute(text)
            checksum = hashlib.sha256(text.encode()).hexdigest()
            await connection.execute("insert into migrations values ($1, $2, now())", file.name, checksum)
    yield connection
    await connection.close()
    await owner.execute(f"drop database {name} with (force)")
    await owner.close()


async def test_clicks_of_an_older_version_are_counted(older: Connection) -> None:
    rows = [
        (BEGIN + timedelta(minutes=7 * number), 7, number % 3, number % 4 == 0, "HEAD" if number % 5 == 0 else "GET")
        for number in range(60)
    ]
    await older.executemany(
        """
        insert into clicks (clicked_at, organization_id, link_id, is_bot, method, user_agent, referrer)
        values ($1, $2, $3, $4, $5, case when $4 then 'a bot' else '' end, '')""",
        rows,
    )
    await database.migrate(older)
    assert await older.fetchval("select count(*) from clicks_2026_09") == 2
    assert await older.fetchval("select count(*) from clicks_2026_10") == 58
    question = Question(7, BEGIN - timedelta(days=1), BEGIN + timedelta(days=1), EVERY_CLASS)
    heads = sum(method == "HEAD" for *_, method in rows)
    bots = sum(is_bot and method == "GET" for *_, is_bot, method in rows)
    found = await questions.totals(older, question)
    assert found.clicks == {Class.HEAD: heads, Class.CRAWLER: bots, Class.HUMAN: 60 - heads - bots}
    assert found.anonymous == 60
    links, _ = await questions.breakdown(older, question, FACTS["link"], None)
    assert {one.value: one.clicks for one in links} == {0: 20, 1: 20, 2: 20}
    hours = [BEGIN + timedelta(minutes=10) + timedelta(hours=number) for number in range(7)]
    begin = question.begin + timedelta(minutes=10)
    counts = await questions.series(older, Question(7, begin, question.end, EVERY_CLASS), [begin, *hours])
    assert counts == [2, *(sum(hour <= row[0] < hour + timedelta(hours=1) for row in rows) for hour in hours)]


@pytest.mark.parametrize("older", [WITH_FIRST_STATISTICS], indirect=True)
async def test_packs_get_heads_and_what_is_to_be_reclassified_stays_so(older: Connection) -> None:
    links = [number << 32 | number for number in range(1, 2_001)]
    await older.executemany(
        """
        insert into packs (organization_id, link_id, bucket, level, class, is_part, clicks, anonymous, scans, quarters,
                           locations, referrers, platforms, languages, campaigns, links)
        values (7, 0, 20000, $1, 1, false, 2001000, 0, 0, null, '{}', '{}', '{}', '{}', '{}', $2)""",
        [(level, links) for level in (0, 1, 2)],
    )
    await older.execute("set timezone = 'Asia/Kathmandu'")
    await older.execute("insert into reclassifications (next, until) values ('2026-11-01', '2026-12-01')")
    await database.migrate(older)
    rows = await older.fetch("select level, heads from packs order by level")
    assert [row["heads"] for row in rows] == [None, *[links[:-257:-1]] * 2]
    row = await older.fetchrow("select next, until from reclassifications")
    assert row is not None
    assert tuple(row) == (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))
