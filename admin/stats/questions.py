"""Questions: what can be asked of clicks.

Rules of this file:

1. A question is answered in one snapshot (`database.snapshot`), in which packs and rows are of one moment. So numbers
   that are asked for together agree.
2. Visitors are visitors of days of the organization: who comes on two days is two. A hash lasts for a day, so counting
   different ones is just that.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple

from admin.database import Connection
from admin.errors import ClicksNotKept
from admin.stats import retention, tops, visitor_days
from admin.stats.classify import Class
from admin.stats.packs import QUARTER_S
from admin.stats.source import EVERY_CLASS, FACTS, HUMANS, Counted, Edge, Fact, Question, Source
from admin.stats.visitor_days import Piece, VisitorDay

_FEW = 3


class Totals(NamedTuple):
    """What all of them come to."""

    clicks: dict[Class, int]
    anonymous: int
    """Of all classes together, those without a visitor."""
    scans: int


async def totals(connection: Connection, question: Question) -> Totals:
    """How many there are."""
    source = await Source.of(connection, question)
    rows = await source.fetch(
        connection,
        "questions.totals",
        """
        select class, sum(clicks)::bigint as clicks, sum(anonymous)::bigint as anonymous, sum(scans)::bigint as scans
          from {pieces} (class, clicks, anonymous, scans) group by class""",
        packs="select class, clicks, anonymous, scans from {packs}",
        rows="""
        select class, count(*), count(*) filter (where visitor is null), count(*) filter (where is_scan)
          from {rows} group by class""",
    )
    return Totals(
        {Class(row["class"]): row["clicks"] for row in rows},
        sum(row["anonymous"] for row in rows),
        sum(row["scans"] for row in rows),
    )


async def series(connection: Connection, question: Question, bounds: Sequence[datetime]) -> list[int]:
    """How many there are from each bound to the next, and from the last on. Bounds are at quarters of an hour."""
    source = await Source.of(connection, question, levels=2)
    at = source.argument([int(bound.timestamp()) // QUARTER_S for bound in bounds])
    found = await source.fetch(
        connection,
        "questions.series",
        "select number, sum(clicks)::bigint as clicks from {pieces} (number, clicks) group by number",
        packs=f"""
        select width_bucket((item >> 32)::integer, {at}::integer[]), item & 4294967295
          from {{packs}}, unnest(quarters) as item""",  # noqa: S608
        rows=f"""
        select width_bucket(floor(extract(epoch from clicked_at) / {QUARTER_S})::integer, {at}::integer[]), count(*)
          from {{rows}} group by 1""",  # noqa: S608
    )
    counts = [0] * len(bounds)
    for row in found:
        counts[max(row["number"], 1) - 1] += row["clicks"]  # the first bound may be within the first quarter
    return counts


async def breakdown(
    connection: Connection, question: Question, fact: Fact, limit: int | None
) -> tuple[list[Counted], int]:
    """The values of a fact that come most often, and how many clicks have others."""
    is_of_packs = question.link_id is None and not question.conditions
    if fact == FACTS["link"] and is_of_packs and limit is not None and limit <= tops.MOST:
        found = await tops.links(connection, question, limit)
        if found is not None:
            return found
    source = await Source.of(connection, question)
    most = source.argument(limit)
    # As exact as bigints, whose sums are numeric and take twice as long.
    grouped = "select number, sum(clicks::float8)::bigint as clicks from {pieces} (number, clicks) group by number"
    if fact.part:
        grouped = f"""
        select coalesce(split_part(text, E'\\t', {fact.part}), '') as number, sum(clicks)::bigint as clicks
          from ({grouped}) as by_word left join words on words.id = number group by 1"""  # noqa: S608
    rows = await source.fetch(
        connection,
        "questions.breakdown",
        f"""
        select number as value, clicks, sum(clicks) over ()::bigint as total from ({grouped}) as counted
         order by clicks desc, number limit {most}""",  # noqa: S608
        packs=f"select item >> 32, item & 4294967295 from (select unnest({fact.pack}) as item from {{packs}}) as items",  # noqa: S608
        rows=f"select {fact.row}, count(*) from {{rows}} group by 1",  # noqa: S608
        is_packed=fact.pack not in ("", *(("links",) if question.link_id is not None else ("rules", "variants"))),
    )
    counted = [Counted(row["value"], row["clicks"]) for row in rows]
    return counted, (rows[0]["total"] if rows else 0) - sum(one.clicks for one in counted)


async def visitors(connection: Connection, question: Question, bounds: Sequence[datetime]) -> list[int]:
    """How many different visitors there are from each bound to the next, and from the last on, by day of the
    organization. The first bound is the begin of the question. Raises `ClicksNotKept`."""
    days = []
    if question.classes == HUMANS and not question.conditions:
        own, link = question.organization_id, question.link_id or 0
        days = await visitor_days.counted(connection, own, link, question.begin, question.end)
    counts, pieces = visitor_days.told(days, bounds, question.end)
    folded_until = await retention.folded_until(connection, question.organization_id)
    if folded_until is not None and question.begin < folded_until:
        _ensure_known(question, days, pieces, folded_until)
    for number, visitors in await _different(connection, question, pieces):
        counts[number] += visitors
    return counts


async def _different(connection: Connection, question: Question, pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """How many different visitors there are in rows, by the number of the piece."""
    if len(pieces) <= _FEW:  # such as today, which almost everybody asks for: the join below takes half as long again
        sources = [(piece.number, Source(question, [], [Edge(piece.begin, piece.end)], None)) for piece in pieces]
        return [
            (number, row["visitors"])
            for number, source in sources
            for row in await source.fetch(
                connection,
                "questions.different",
                "select visitors from {pieces} (visitors)",
                packs="",
                rows="select count(distinct visitor) from {rows}",
            )
        ]
    source = Source(question, [], [Edge(question.begin, question.end)], None)
    numbers, begins, ends = (source.argument(list(values)) for values in zip(*pieces, strict=True))
    rows = await source.fetch(
        connection,
        "questions.different",
        "select number, visitors from {pieces} (number, visitors)",
        packs="",
        rows=f"""
        select number, count(distinct visitor)
          from unnest({numbers}::integer[], {begins}::timestamptz[], {ends}::timestamptz[]) as piece (number, low, high)
          join {{rows}} on clicked_at >= low and clicked_at < high
         group by number""",  # noqa: S608
    )
    return [(row["number"], row["visitors"]) for row in rows]


def _ensure_known(
    question: Question, days: Sequence[VisitorDay], pieces: Sequence[Piece], folded_until: datetime
) -> None:
    """Where rows are gone, visitors are known of whole days, or of their begins or ends, and of humans alone."""
    cuts = (
        piece.begin < min(day.ends_at, folded_until) and day.begins_at < piece.end for piece in pieces for day in days
    )
    if question.classes != HUMANS or question.conditions or any(cuts):
        raise ClicksNotKept


async def classes_by_day(connection: Connection, organization_id: int, link_id: int) -> list[tuple[date, Class, int]]:
    """For ever: of each day (UTC) with a click of this link, how many there are in each class."""
    begin, end = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
    source = await Source.of(connection, Question(organization_id, begin, end, EVERY_CLASS, link_id), levels=2)
    rows = await source.fetch(
        connection,
        "questions.classes_by_day",
        """
        select day, class, sum(clicks)::bigint as clicks from {pieces} (day, class, clicks)
         group by day, class order by day, class""",
        packs="""
        select date '1970-01-01' + (case level when 1 then bucket when 0 then bucket / 24 else bucket / 96 end),
               class, clicks
          from {packs}""",
        rows="select (clicked_at at time zone 'UTC')::date, class, count(*) from {rows} group by 1, 2",
    )
    return [(row["day"], Class(row["class"]), row["clicks"]) for row in rows]


def of_classes(clicks: Collection[tuple[Class, int]], wanted: Collection[Class]) -> int:
    """How many of some clicks are in these classes."""
    return sum(count for class_, count in clicks if class_ in wanted)


async def minutes(connection: Connection, question: Question) -> dict[int, int]:
    """How many there are in each minute since 1970 that has any."""
    source = await Source.of(connection, question, levels=0)
    rows = await source.fetch(
        connection,
        "questions.minutes",
        "select minute, clicks from {pieces} (minute, clicks)",
        packs="",
        rows="select floor(extract(epoch from clicked_at) / 60)::integer, count(*) from {rows} group by 1",
        is_packed=False,
    )
    return {row["minute"]: row["clicks"] for row in rows}
