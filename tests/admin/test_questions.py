"""Questions: every answer is what a plain look at the rows would say, at every moment."""

import itertools
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.database import Connection
from admin.errors import ClicksNotKept
from admin.stats import months, packs, questions, retention, visitor_days
from admin.stats.classify import Class
from admin.stats.packs import HOURS, Packs, spans
from admin.stats.rows import COLUMNS, Row
from admin.stats.source import EVERY_CLASS, FACTS, HUMANS, Condition, Question
from admin.stats.visitor_days import VisitorDay, VisitorDays, told
from admin.stats.visitors import Salts, day_of

HOME = ZoneInfo("America/St_Johns")
"""Where the organization is: its days begin at half past an hour, and once an hour sooner."""

NOW = datetime(2026, 3, 10, 12, 34, 56, tzinfo=UTC)
BEGIN = datetime(2025, 9, 1, tzinfo=UTC)
WORDS = ["", "BR\tRio", "PT\t", "google.com", "x\ty\tz", "pt-BR", "a\tb\tc\td\te"]


def rows_of(chance: random.Random, count: int, *, begin: datetime = BEGIN, end: datetime = NOW) -> list[Row]:
    """Some clicks of two organizations, of which link 1 has many."""
    spread = (end - begin).total_seconds()
    return [
        Row(
            clicked_at=(at := begin + timedelta(seconds=chance.random() * spread)),
            link_id=(link := chance.choice([1, 1, 1, 2, 3, 4])),
            organization_id=8 if link == 4 else 7,
            visitor=chance.choice([None, *range(1, 10)]) and at.astimezone(HOME).toordinal() * 10 + chance.randrange(9),
            location=chance.randrange(len(WORDS)),
            referrer=chance.randrange(len(WORDS)),
            platform=chance.randrange(len(WORDS)),
            language=chance.randrange(len(WORDS)),
            campaign=chance.randrange(len(WORDS)),
            agent=0,
            rule_id=chance.choice([None, 1, 2]),
            variant_id=chance.choice([None, 1]),
            class_=chance.choice([1, 1, 1, 2, 4, 7]),
            reason=0,
            version=1,
            is_head=False,
            is_prefetch=False,
            is_internal=False,
            is_use=False,
            is_scan=chance.random() < 0.1,
            address=None,
            click_id=None,
            message_id=chance.choice([None, None, 5]),
        )
        for _ in range(count)
    ]


class History(NamedTuple):
    """A database and what was stored in it."""

    connection: Connection
    rows: list[Row]

    def __repr__(self) -> str:
        return f"{len(self.rows)} rows"


async def store(connection: Connection, known: Packs, rows: list[Row]) -> None:
    async with connection.transaction():
        await connection.copy_records_to_table("clicks", records=rows, columns=COLUMNS)
        await known.add(connection, rows)
        await connection.execute(
            """
            insert into link_counts (link_id, total, last_at)
            select link_id, count(*), max(clicked_at) from clicks group by link_id
            on conflict (link_id) do update set total = excluded.total, last_at = excluded.last_at"""
        )
    await known.promote(connection, {row.link_id for row in rows})


def naive(rows: list[Row], question: Question) -> list[Row]:
    """The rows that are asked for."""
    return [
        row
        for row in rows
        if row.organization_id == question.organization_id
        and question.begin <= row.clicked_at < question.end
        and Class(row.class_) in question.classes
        and question.link_id in (None, row.link_id)
        and all(row.language == condition.value for condition in question.conditions)
    ]


def part(number: int, which: int) -> str:
    parts = WORDS[number].split("\t")
    return parts[which - 1] if which <= len(parts) else ""


async def check(
    connection: Connection, rows: list[Row], question: Question, zone: ZoneInfo, *, are_all_kept: bool = True
) -> None:
    """Compare every answer with the rows."""
    wanted = naive(rows, question)
    totals = await questions.totals(connection, question)
    assert totals.clicks == Counter(Class(row.class_) for row in wanted)
    assert totals.anonymous == sum(row.visitor is None for row in wanted)
    assert totals.scans == sum(row.is_scan for row in wanted)
    for name, fact in FACTS.items():
        if not are_all_kept and name in ("message", *(("link",) if question.link_id else ("rule", "variant"))):
            continue  # nobody asks for these
        column = {name: f"{name}_id" for name in ("link", "rule", "variant", "message")}.get(name, fact.row)
        numbers = [getattr(row, column) or 0 for row in wanted]
        expected: Counter[Any] = Counter(part(number, fact.part) if fact.part else number for number in numbers)
        counted, others = await questions.breakdown(connection, question, fact, None)
        assert dict(counted) == expected, name
        assert not others
        some, others = await questions.breakdown(connection, question, fact, 2)
        assert [one.clicks for one in some] == [count for _, count in expected.most_common(2)]
        assert others == sum(expected.values()) - sum(one.clicks for one in some)
    day = question.begin.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    bounds = [question.begin]
    while (day := (day + timedelta(days=1)).replace(fold=0)) < question.end:
        bounds.append(day)
    days = Counter(row.clicked_at.astimezone(zone).date() for row in wanted)
    counts = await questions.series(connection, question, bounds)
    assert counts == [days[bound.astimezone(zone).date()] for bound in bounds]
    found = await questions.visitors(connection, question, bounds)
    assert found == [
        len(
            {row.visitor for row in wanted if row.clicked_at.astimezone(zone).date() == bound.astimezone(zone).date()}
            - {None}
        )
        for bound in bounds
    ]


QUARTERS = st.integers(0, int((NOW - BEGIN).total_seconds()) // 900 + 8)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    ends=st.tuples(QUARTERS, QUARTERS).filter(lambda ends: ends[0] < ends[1]),
    offset=st.integers(0, 899_999),
    zone=st.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe", "America/Sao_Paulo"]),
    link=st.sampled_from([None, None, 1, 2]),
    classes=st.sampled_from([HUMANS, EVERY_CLASS, frozenset({Class.REPEAT, Class.HEAD})]),
    is_narrow=st.booleans(),
)
async def test_every_answer_is_what_the_rows_say(
    filled: History,
    seed: int,
    ends: tuple[int, int],
    offset: int,
    zone: str,
    link: int | None,
    classes: frozenset[Class],
    is_narrow: bool,
) -> None:
    connection, rows = filled
    begin, end = (BEGIN + timedelta(seconds=900 * quarter) for quarter in ends)
    conditions = (Condition("language = {}", 5),) if is_narrow else ()
    question = Question(7, begin, end, classes, link, conditions)
    await check(connection, rows, question, ZoneInfo(zone))
    # Numbers without a calendar may begin at any moment.
    question = Question(7, begin + timedelta(milliseconds=offset), end, classes, link, conditions)
    wanted = naive(rows, question)
    totals = await questions.totals(connection, question)
    assert totals.clicks == Counter(Class(row.class_) for row in wanted)
    assert await questions.visitors(connection, question, [question.begin]) == [
        len({row.visitor for row in wanted} - {None})
    ]


def test_days_that_overlap_are_told_once() -> None:
    """As those before and after an organization has changed its time zone do."""
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    utc = VisitorDay(begin, begin + timedelta(days=1), [1] * 96, [1] * 96)
    later = VisitorDay(begin + timedelta(hours=5), begin + timedelta(hours=29), [1] * 96, [1] * 96)
    counts, pieces = told([utc, later], [begin], begin + timedelta(days=2))
    assert counts == [96 + 20]
    assert pieces == [(0, begin + timedelta(hours=29), begin + timedelta(days=2))]


async def test_what_is_not_kept_is_answered_as_before(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for two facts at once, for parts of a quarter, and for visitors of parts of a day and of other classes."""
    monkeypatch.setattr(packs, "BUSY", 500)
    await connection.executemany(
        "insert into words (id, text) overriding system value values ($1, $2)", list(enumerate(WORDS))[1:]
    )
    rows = await fill(connection)
    own = "(id, public_id, name, tier, plan) overriding system value values (7, 'o', 'o', 'free', 'free')"
    await connection.execute(f"insert into organizations {own}")
    await connection.execute(
        "insert into counting (organization_id, time_zone, kept_days) values (7, $1, 30)", HOME.key
    )
    limit = datetime.combine(NOW.astimezone(HOME).date() - timedelta(days=30), time(), HOME)
    while await retention.step(connection, NOW):
        pass
    kept = await connection.fetchval("select min(clicked_at) from clicks where organization_id = 7")
    assert kept >= limit
    assert await connection.fetchval("select min(clicked_at) from clicks where organization_id = 8") < limit
    begin = datetime(2025, 10, 3, 4, 30, tzinfo=UTC)
    for zone, link in itertools.product(["UTC", "Asia/Kathmandu"], [None, 1, 2]):
        days = datetime(2025, 10, 4, tzinfo=ZoneInfo(zone)), datetime(2026, 3, 2, tzinfo=ZoneInfo(zone))
        await check(connection, rows, Question(7, *days, HUMANS, link), ZoneInfo(zone), are_all_kept=False)
        some = Question(7, begin, begin + timedelta(hours=5, minutes=15), EVERY_CLASS, link)
        assert (await questions.totals(connection, some)).clicks == Counter(
            Class(row.class_) for row in naive(rows, some)
        )
        with pytest.raises(ClicksNotKept):
            await questions.visitors(connection, some, [some.begin])
        for asked in (
            replace(some, begin=begin + timedelta(seconds=1)),
            replace(some, conditions=(Condition("language = {}", 5),)),
        ):
            with pytest.raises(ClicksNotKept):
                await questions.totals(connection, asked)
    # What nobody can count again stays as it was counted, whatever else changes on that day.
    [before] = await questions.visitors(connection, Question(7, BEGIN, limit), [BEGIN])
    await visitor_days.reopen(connection, 7, BEGIN, limit - timedelta(hours=1))
    assert await questions.visitors(connection, Question(7, BEGIN, limit), [BEGIN]) == [before]
    assert before > 100
    late = rows_of(random.Random(3), 20, begin=begin, end=begin + timedelta(days=1))
    late = [row._replace(visitor=None) for row in late]
    known = Packs()
    await known.load(connection)
    await store(connection, known, late)
    wide = Question(7, BEGIN, NOW, EVERY_CLASS)
    for _ in range(2):
        assert sum((await questions.totals(connection, wide)).clicks.values()) == len(naive(rows + late, wide))
        while await retention.step(connection, NOW):
            pass


@pytest.fixture
async def filled(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> History:
    """Clicks that came in several batches, of which some were late, with coarser buckets closed in between."""
    monkeypatch.setattr(packs, "BUSY", 500)
    await connection.executemany(
        "insert into words (id, text) overriding system value values ($1, $2)", list(enumerate(WORDS))[1:]
    )
    return History(connection, await fill(connection))


async def fill(connection: Connection) -> list[Row]:
    chance = random.Random(1)
    await months.step(connection, NOW)
    known, counted = Packs(), VisitorDays()
    await known.load(connection)
    await Salts().of(
        connection, {day_of(own, BEGIN + timedelta(days=n), HOME.key) for n in range(192) for own in (7, 8)}, BEGIN
    )
    rows: list[Row] = []
    for share in (0.3, 0.6, 0.9, 1.0):
        until = BEGIN + (NOW - BEGIN) * share
        some = rows_of(chance, 600, end=until)
        await store(connection, known, some)
        rows += some
        await counted.add(connection, some)
        if share < 1:
            await known.close(connection, until.timestamp())
            await counted.count(connection, until)
    assert await connection.fetchval("select count(*) from busy_links") == 1
    return rows


def test_spans_cover_each_hour_once() -> None:
    chance = random.Random(2)
    for _ in range(300):
        begin = chance.randrange(400_000, 500_000)
        end = begin + chance.randrange(1, 9000)
        closed = [chance.randrange(0, 500_000 // length) for length in HOURS[1:]]
        found = spans(begin, end, closed)
        hours = [
            hour
            for span in found
            for bucket in range(span.begin, span.end)
            for hour in range(bucket * HOURS[span.level], (bucket + 1) * HOURS[span.level])
        ]
        assert sorted(hours) == list(range(begin, end))
        assert all(span.end <= closed[span.level - 1] for span in found if span.level)
