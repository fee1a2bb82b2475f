"""Erasing: afterwards everything is as if the clicks had never been."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from admin.database import Connection
from admin.errors import ClicksNotKept
from admin.stats import erasing, packs, questions, retention
from admin.stats.classify import Class
from admin.stats.packs import Packs
from admin.stats.source import EVERY_CLASS, FACTS, HUMANS, Question
from tests.admin.conftest import Api, made
from tests.admin.test_questions import BEGIN, HOME, NOW, WORDS, fill, naive, rows_of, store

FIRST = datetime(2026, 1, 4, 10, 7, 0, tzinfo=UTC)
LAST = datetime(2026, 1, 14, 1, 0, 30, tzinfo=UTC)
WIDE = Question(7, BEGIN, datetime(2026, 3, 10, tzinfo=UTC), EVERY_CLASS)


async def carried_out(connection: Connection) -> None:
    known = Packs()
    await known.load(connection)
    while await erasing.step(connection, known):
        pass


async def erased(connection: Connection, link_id: int) -> int:
    await erasing.request(connection, 7, link_id, FIRST, LAST)
    await carried_out(connection)
    count: int = await connection.fetchval("select clicks from erasures where finished_at is not null order by id desc")
    return count


@pytest.mark.parametrize("link_id", [1, 2])
async def test_all_that_was_counted_of_them_is_gone(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, link_id: int
) -> None:
    monkeypatch.setattr(packs, "BUSY", 500)
    await connection.executemany(
        "insert into words (id, text) overriding system value values ($1, $2)", list(enumerate(WORDS))[1:]
    )
    rows = await fill(connection)
    left = [row for row in rows if row.link_id != link_id or not FIRST <= row.clicked_at < LAST]
    assert await erased(connection, link_id) == len(rows) - len(left)
    for question in (WIDE, Question(7, BEGIN + timedelta(minutes=15), NOW, EVERY_CLASS, link_id)):
        wanted = naive(left, question)
        assert (await questions.totals(connection, question)).clicks == Counter(Class(row.class_) for row in wanted)
        counted, _ = await questions.breakdown(connection, question, FACTS["link"], None)
        assert dict(counted) == Counter(row.link_id for row in wanted)
    humans = Question(7, BEGIN, NOW)
    found = await questions.visitors(connection, humans, [BEGIN])
    assert found == [len({row.visitor for row in naive(left, humans)} - {None})]
    total = await connection.fetchval("select total from link_counts where link_id = $1", link_id)
    assert total == sum(row.link_id == link_id for row in left)
    assert await erased(connection, link_id) == 0


async def test_whoever_asks_has_to_say_from_when_on(api: Api, connection: Connection) -> None:
    link = await made(api.one.api)
    row = await connection.fetchrow("select id, organization_id from links where public_id = $1", link["id"])
    assert row is not None
    path = f"/v1/links/{link['id']}/clicks"
    for query, field in (("", "startDate"), ("?startDate=2026-02-01&endDate=2026-01-01", "endDate"), ("?tag=a", "tag")):
        answer = await api.one.api.delete(path + query)
        assert (answer.status_code, answer.json()["error"]["details"][0]["field"]) == (400, field)
    assert (await api.other.api.delete(f"{path}?startDate=2026-01-01")).status_code == 404
    rows = [one._replace(link_id=row[0], organization_id=row[1]) for one in rows_of(random.Random(5), 50)]
    known = Packs()
    await known.load(connection)
    await store(connection, known, rows)
    answer = await api.one.api.delete(f"{path}?startDate=2025-12-31&endDate=2026-01-31&timezone=Asia/Kathmandu")
    assert answer.status_code == 202
    begin, end = datetime(2025, 12, 30, 18, 15, tzinfo=UTC), datetime(2026, 1, 31, 18, 15, tzinfo=UTC)
    assert answer.json()["data"] == {"begin": "2025-12-30T18:15:00.000Z", "end": "2026-01-31T18:15:00.000Z"}
    await carried_out(connection)
    stats = (await api.one.api.get(f"/v1/links/{link['id']}/stats")).json()["data"]
    assert stats["total"] == sum(not begin <= row.clicked_at < end for row in rows) < 50


async def test_what_has_taken_the_place_of_rows_goes_by_the_quarter(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "BUSY", 500)
    rows = await fill(connection)
    known = Packs()
    await known.load(connection)
    before = rows_of(random.Random(4), 40, begin=FIRST - timedelta(hours=6), end=FIRST - timedelta(hours=1))
    await store(connection, known, before)
    rows += before
    own = "(id, public_id, name, tier, plan) overriding system value values (7, 'o', 'o', 'free', 'free')"
    await connection.execute(f"insert into organizations {own}")
    await connection.execute(
        "insert into counting (organization_id, time_zone, kept_days) values (7, $1, 60)", HOME.key
    )
    while await retention.step(connection, NOW):
        pass
    late = [row._replace(visitor=None) for row in rows_of(random.Random(9), 200, end=LAST)]
    await store(connection, known, late)
    rows += late
    await erased(connection, 1)
    low, high = FIRST.replace(minute=0, second=0), LAST
    folded = await retention.folded_until(connection, 7)
    assert folded is not None
    gone = [
        row
        for row in rows
        if row.link_id == 1 and (FIRST <= row.clicked_at < LAST or (low <= row.clicked_at < FIRST and row not in late))
    ]
    assert FIRST < folded < high
    left = [row for row in rows if row not in gone]
    for link_id in (None, 1, 3):
        question = Question(7, WIDE.begin, WIDE.end, EVERY_CLASS, link_id)
        wanted = naive(left, question)
        assert (await questions.totals(connection, question)).clicks == Counter(Class(row.class_) for row in wanted)
    of_all, _ = await questions.breakdown(connection, WIDE, FACTS["link"], None)
    assert dict(of_all) == Counter(row.link_id for row in naive(left, WIDE))
    for day, is_known in ((2, True), (4, False), (6, True)):
        begin = datetime(2026, 1, day, tzinfo=HOME).astimezone(UTC)
        question = Question(7, begin, begin + timedelta(days=1), HUMANS, 1)
        if is_known:
            visitors = {row.visitor for row in naive(left, question)} - {None}
            assert await questions.visitors(connection, question, [begin]) == [len(visitors)]
            assert len(visitors) > 0 if day == 2 else not visitors
        else:  # some of its clicks are left, and nobody knows whose
            with pytest.raises(ClicksNotKept):
                await questions.visitors(connection, question, [begin])
