"""Tops: the links with most clicks are those that a sum of all says, or nobody says anything."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.database import Connection
from admin.stats import questions, tops
from admin.stats.classify import Class
from admin.stats.packs import Packs
from admin.stats.rows import Row
from admin.stats.source import EVERY_CLASS, FACTS, HUMANS, Question
from tests.admin.test_questions import naive, rows_of, store

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 1, 21, 7, 20, tzinfo=UTC)
LINKS = 3_000


def zipf(chance: random.Random) -> int:
    return int((LINKS + 1) ** chance.random())


def flat(chance: random.Random) -> int:
    return chance.randrange(1, LINKS)


async def filled(connection: Connection, draw: Callable[[random.Random], int]) -> list[Row]:
    chance = random.Random(11)
    drawn = rows_of(chance, 30_000, begin=BEGIN, end=END)
    rows = [
        row._replace(link_id=draw(chance), organization_id=7, class_=Class.HUMAN if number % 9 else Class.REPEAT)
        for number, row in enumerate(drawn)
    ]
    known = Packs()
    await known.load(connection)
    await store(connection, known, rows[:25_000])
    await known.close(connection, END.timestamp())
    await store(connection, known, rows[25_000:])  # late ones, which are parts of all levels
    return rows


def wanted(rows: list[Row], question: Question) -> list[tuple[int, int]]:
    counts = Counter(row.link_id for row in naive(rows, question))
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))


async def test_what_heads_tell_is_what_all_counters_tell(connection: Connection) -> None:
    rows = await filled(connection, zipf)
    assert await connection.fetchval("select count(*) from packs where heads is not null") >= 2
    for begin in (BEGIN, BEGIN + timedelta(days=3, hours=5, minutes=7)):
        question = Question(7, begin, END, EVERY_CLASS if begin == BEGIN else HUMANS)
        expected = wanted(rows, question)
        for limit in (1, 10, 40):
            others = sum(clicks for _, clicks in expected[limit:])
            assert await tops.links(connection, question, limit) == (expected[:limit], others)
        for limit in (10, 1000):
            found, others = await questions.breakdown(connection, question, FACTS["link"], limit)
            assert found == expected[:limit]
            assert others == sum(clicks for _, clicks in expected[limit:])


async def test_where_many_links_are_alike_nobody_guesses(connection: Connection) -> None:
    rows = await filled(connection, flat)
    question = Question(7, BEGIN, END)
    assert await tops.links(connection, question, 10) is None
    found, _ = await questions.breakdown(connection, question, FACTS["link"], 10)
    assert found == wanted(rows, question)[:10]


async def test_without_heads_there_may_be_more_links_than_are_looked_up(connection: Connection) -> None:
    rows = await filled(connection, zipf)
    question = Question(7, END - timedelta(hours=6), END)
    expected = wanted(rows, question)
    await connection.execute("delete from packs where level > 0")
    for limit in (10, 1000):
        found, others = await questions.breakdown(connection, question, FACTS["link"], limit)
        assert found == expected[:limit]
        assert others == sum(clicks for _, clicks in expected[limit:])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tops, "MOST", 5)
        found, _ = await questions.breakdown(connection, question, FACTS["link"], 7)
        assert found == expected[:7]


class Counter32(NamedTuple):
    """A count, how much of it is taken away, and whether it is asked for."""

    whole: int
    taken: int
    is_asked: bool


COUNTS = st.integers(1, 2**32 - 1).flatmap(
    lambda count: st.builds(Counter32, st.just(count), st.integers(0, count) | st.just(count), st.booleans())
)


def packed(counters: dict[int, int]) -> list[int]:
    return [value << 32 | count for value, count in sorted(counters.items())]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counters=st.dictionaries(st.integers(0, 2**31 - 1), COUNTS, max_size=30),
    others=st.lists(st.integers(0, 2**31 - 1), max_size=8),
)
async def test_counters_are_found_taken_away_and_put_in_order(
    connection: Connection, counters: dict[int, Counter32], others: list[int]
) -> None:
    counts = {value: one.whole for value, one in counters.items()}
    asked = [*others, *(value for value, one in counters.items() if one.is_asked)]
    found = await connection.fetchval("select counts_in($1::bigint[], $2::bigint[])", packed(counts), asked)
    assert (found or []) == [counts.get(value, 0) for value in asked]
    taken = {value: one.taken for value, one in counters.items() if one.taken}
    left = {value: one.whole - one.taken for value, one in counters.items() if one.whole > one.taken}
    less = await connection.fetchval("select less($1::bigint[], $2::bigint[])", packed(counts), packed(taken))
    assert less == packed(left)
    assert await connection.fetchval("select less($1::bigint[], null)", packed(counts)) == packed(counts)
    heads = await connection.fetchval("select heads_of($1::bigint[])", packed(counts))
    assert [item % 2**32 for item in heads or []] == sorted(counts.values(), reverse=True)
