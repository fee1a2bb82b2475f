"""What `make bench-stats` does, with a few clicks and without a clock."""

from datetime import datetime

import pytest

from admin.database import Connection, Pool
from admin.stats import packs
from admin.stats.answering import moment
from benchmarks import stats

CLICKS, BUSY = 60_000, 1_000


@pytest.fixture
async def now(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> datetime:
    """The end of a year of clicks, in which a few links have become busy."""
    monkeypatch.setattr(packs, "BUSY", BUSY)
    return await stats.filled(connection, CLICKS)


async def test_packs_and_rows_give_the_same_answers_and_every_question_has_one(
    connection: Connection, pool: Pool, now: datetime
) -> None:
    owners = await stats.owners_of(connection)
    busy = await connection.fetch("select distinct link_id from packs where link_id <> 0 and level = 1")
    assert [of.link_id in {row["link_id"] for row in busy} for of in owners] == [False, True, False, False]

    assert [difference async for difference in stats.compared(connection, owners, now, stats.SPANS)] == []

    for asked in stats.all_questions(owners):
        async with moment(pool) as snapshot:
            assert await stats.answer(snapshot, asked, now)
