"""How long does Linkwire think about a question, with many clicks?

`make bench-stats`. Reach, with 50,000,000 clicks of a year: 50 ms for 95 of 100 questions (100 ms for the top links of
a year), and no more than half as much again as with a tenth of them; with 5,000,000, 1 s for two facts at once over 30
days.

The clicks are made in Postgres. Then each question is asked for 20 ranges that end at different times, of the
organization with 40 % of the clicks, of its busiest link, of the one that has most clicks and no packs, and of one with
few, in Asia/Kathmandu. Before that, answers from packs are compared with answers from rows. In the end it is told how
much longer they take with 50,000,000 clicks than with 5,000,000, where both have been measured.

`tests/benchmarks/test_stats.py` makes a few of these clicks and asks the same, without a clock.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import asyncpg

from admin import database, embedded
from admin.database import Connection, Pool
from admin.stats import questions
from admin.stats.answering import moment
from admin.stats.source import FACTS, HUMANS, Condition, Question
from benchmarks import stats_data
from benchmarks.servers import started
from benchmarks.stats_data import YEAR

RESULTS = Path(__file__).parent / "results"
ZONE = ZoneInfo("Asia/Kathmandu")
ROUNDS = 20
SPANS = {"24 h": timedelta(hours=24), "30 days": timedelta(days=30), "year": YEAR}
PROMISED_MS, PROMISED_TOP_LINKS_MS, PROMISED_TWO_FACTS_MS = 50, 100, 1_000
FEWER, MORE = 5_000_000, 50_000_000
PROMISED_GROWTH, NO_GROWTH_MS = 1.5, 15
"""So much longer with more clicks; or by so little that nobody feels it."""
_PER_MARK_MS = 2


class Of(NamedTuple):
    """Whose clicks are asked for: those of a link, or of all."""

    name: str
    link_id: int | None


class Asked(NamedTuple):
    """A question, and how it is asked."""

    of: Of
    span: str
    what: str
    ask: Callable[[Connection, Question], Awaitable[Any]]
    promised_ms: float
    conditions: tuple[Condition, ...] = ()


class Took(NamedTuple):
    """How long it took."""

    of: str
    span: str
    what: str
    p50_ms: float
    p95_ms: float
    promised_ms: float


def main() -> None:
    """Measure and tell."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clicks", type=int, default=5_000_000)
    arguments.add_argument("--home", type=Path, help="where the clicks stay, to be asked about again")
    arguments.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of Postgres")
    told = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(_measure(told.home or Path(directory), told.clicks, told.set))
    path = RESULTS / "stats.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[str(told.clicks)] = figures
    path.write_text(json.dumps(kept, indent=1) + "\n")
    if {str(FEWER), str(MORE)} <= kept.keys():
        _tell_growth(*([Took(**took) for took in kept[str(count)]["questions"]] for count in (FEWER, MORE)))


async def _measure(home: Path, count: int, settings: list[str]) -> dict[str, Any]:
    (home / "logs").mkdir(parents=True, exist_ok=True)
    options = [part for setting in settings for part in ("-c", setting)]
    async with started(embedded.postgres(home, options=options)) as (url, _pid):
        connection = await asyncpg.connect(url)
        begun = time.monotonic()
        now = await filled(connection, count)
        built_s = time.monotonic() - begun
        sizes = await _sizes(connection, count)
        print(f"{count:,} clicks; made in {built_s:.0f} s; bytes a click: {sizes}", flush=True)
        owners = await owners_of(connection)
        if differences := [difference async for difference in compared(connection, owners, now)]:
            raise SystemExit("\n".join(differences))
        await connection.close()
        pool = await database.open_pool(url, size=1)
        found = [await _time(pool, asked, now) for asked in all_questions(owners)]
        await pool.close()
    return {"bytes_a_click": sizes, "questions": [took._asdict() for took in found]}


async def filled(connection: Connection, count: int) -> datetime:
    """Make the clicks, unless they are there; the end of their year."""
    await database.migrate(connection)
    if await connection.fetchval("select not exists (select from clicks)"):
        await stats_data.fill(connection, count, datetime.now(UTC))
    latest: datetime = await connection.fetchval("select max(clicked_at) from clicks")
    return latest


async def owners_of(connection: Connection) -> list[Of]:
    """Whose clicks are asked for."""
    rows = await connection.fetch("""
        select link_id, link_id in (select link_id from busy_links) as is_busy
          from clicks where organization_id = 1 group by link_id order by count(*) desc""")
    links = [row["link_id"] for row in rows]  # the busiest first
    nearly = next(row["link_id"] for row in rows if not row["is_busy"])
    return [
        Of("organization", None),
        Of("busy link", links[0]),
        Of("nearly busy", nearly),
        Of("small link", links[len(links) // 2]),
    ]


async def _sizes(connection: Connection, count: int) -> dict[str, float]:
    rows = await connection.fetch("""
        select coalesce(inhparent::regclass::text, relname) as name, sum(pg_total_relation_size(pg_class.oid)) as size
          from pg_class left join pg_inherits on inhrelid = pg_class.oid
         where relkind = 'r' and (relname in ('packs', 'words', 'visitor_days') or inhparent = 'clicks'::regclass)
         group by 1 order by 1""")
    return {row["name"]: round(float(row["size"]) / count, 1) for row in rows}


def all_questions(owners: list[Of]) -> Iterator[Asked]:
    """What is asked of them."""
    for of in owners:
        for span in SPANS:
            yield Asked(of, span, "total", questions.totals, PROMISED_MS)
            yield Asked(of, span, "visitors", _visitors, PROMISED_MS)
            yield Asked(of, span, "by day", _by_day, PROMISED_MS)
            if span != "year":
                yield Asked(of, span, "by hour", _by_hour, PROMISED_MS)
            for fact in ("country", "referrer", "browser"):
                yield Asked(of, span, f"by {fact}", _breakdown(fact), PROMISED_MS)
            if of.link_id is None:
                promised_ms = PROMISED_TOP_LINKS_MS if span == "year" else PROMISED_MS
                yield Asked(of, span, "top links", _breakdown("link"), promised_ms)
    referrer = Condition("referrer = (select id from words where text = {}::text)", "www1.example.com")
    yield Asked(owners[0], "30 days", "two facts", _breakdown("country"), PROMISED_TWO_FACTS_MS, (referrer,))


def _breakdown(fact: str) -> Callable[[Connection, Question], Awaitable[Any]]:
    return lambda connection, question: questions.breakdown(connection, question, FACTS[fact], 10)


async def _visitors(connection: Connection, question: Question) -> list[int]:
    return await questions.visitors(connection, question, [question.begin])


async def _by_day(connection: Connection, question: Question) -> list[int]:
    midnight = question.begin.astimezone(ZONE).replace(hour=0, minute=0)
    days = (midnight + timedelta(days=number) for number in range(1, 367))
    return await questions.series(connection, question, [question.begin, *(day for day in days if day < question.end)])


async def _by_hour(connection: Connection, question: Question) -> list[int]:
    hours = (question.begin + timedelta(hours=number) for number in range(24 * 31))
    return await questions.series(connection, question, [hour for hour in hours if hour < question.end])


async def answer(connection: Connection, asked: Asked, now: datetime, number: int = 0) -> Any:
    """Ask for one of the ranges, of which each is earlier. All begin and end at a quarter of an hour."""
    last = now.astimezone(ZONE).replace(second=0, microsecond=0)
    end = last - timedelta(minutes=last.minute % 15) - number * timedelta(hours=5, minutes=45)
    question = Question(1, end - SPANS[asked.span], end, HUMANS, asked.of.link_id, asked.conditions)
    return await asked.ask(connection, question)


async def _time(pool: Pool, asked: Asked, now: datetime) -> Took:
    took_ms = []
    for number in range(-1, ROUNDS):
        begun = time.perf_counter()
        async with moment(pool) as connection:  # as requests do
            await answer(connection, asked, now, abs(number))
        if number >= 0:  # the first one has found its tables and plans
            took_ms.append((time.perf_counter() - begun) * 1000)
    p50, p95 = statistics.median(took_ms), sorted(took_ms)[ROUNDS * 95 // 100 - 1]
    marks = "#" * min(round(p95 / _PER_MARK_MS), 60)
    late = "" if p95 <= asked.promised_ms else f"   later than {asked.promised_ms:g} ms"
    print(f"{asked.of.name:12} {asked.span:8} {asked.what:12} {p50:8.1f} {p95:8.1f} ms {marks}{late}", flush=True)
    return Took(asked.of.name, asked.span, asked.what, round(p50, 2), round(p95, 2), asked.promised_ms)


async def compared(
    connection: Connection, owners: list[Of], now: datetime, spans: Iterable[str] = ("24 h", "30 days")
) -> AsyncIterator[str]:
    """Ask a few questions of packs, and the same of rows; a sentence for each that has two answers."""
    from_rows = (Condition("{}::boolean", True),)
    for of in owners:
        for number, span in enumerate(spans, start=3):
            for what, ask in (
                ("total", questions.totals),
                ("visitors", _visitors),
                ("by day", _by_day),
                *((fact, _breakdown(fact)) for fact in FACTS),
            ):
                asked = Asked(of, span, what, ask, PROMISED_MS)
                of_packs = await answer(connection, asked, now, number)
                of_rows = await answer(connection, asked._replace(conditions=from_rows), now, number)
                if of_packs != of_rows:
                    yield f"{of.name}, {span}, {what}: packs say {of_packs}, rows say {of_rows}"


def _tell_growth(fewer: list[Took], more: list[Took]) -> None:
    """A table of p95 with fewer clicks and with more, of what both were asked."""
    before_ms = {took[:3]: took.p95_ms for took in fewer}
    print(f"\n{'p95, with so many clicks':34} {FEWER:12,} {MORE:12,}")
    for took in more:
        if (before := before_ms.get(took[:3])) is None:
            continue
        has_grown = took.p95_ms > max(before * PROMISED_GROWTH, before + NO_GROWTH_MS)
        print(
            f"{took.of:12} {took.span:8} {took.what:12} {before:12.1f} {took.p95_ms:12.1f} ms"
            f" {took.p95_ms / before:5.1f} times{'   more than promised' if has_grown else ''}"
        )
    print(f"promised: no more than {PROMISED_GROWTH:g} times, or {NO_GROWTH_MS} ms longer")


if __name__ == "__main__":
    main()
