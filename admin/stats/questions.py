"""Questions: what can be asked of clicks, answered from packs where there are any, and from rows for the rest.

Rules of this file:

1. A question is answered in one snapshot (`database.snapshot`), in which packs and rows are of one moment. So numbers
   that are asked for together agree.
2. Of a whole organization, or of a busy link, all whole hours come from packs. What is left of an hour at both ends,
   other links, and whatever asks for two facts at once, come from rows.
3. Where rows have become packs (retention.py), what only rows can tell is `ClicksNotKept`.
4. Visitors are visitors of days of the organization: who comes on two days is two. A hash lasts for a day, so counting
   different ones is just that.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from admin.database import Connection
from admin.errors import ClicksNotKept
from admin.stats import packs, retention, visitor_days
from admin.stats.classify import Class
from admin.stats.packs import QUARTER_S, Span, spans
from admin.stats.visitor_days import Piece, VisitorDay

_EVER = datetime(1970, 1, 1, tzinfo=UTC)
EVERY_CLASS = frozenset(Class)
HUMANS = frozenset({Class.HUMAN})


class Fact(NamedTuple):
    """Something that is known of clicks, and where."""

    pack: str
    """The array of packs that counts it: `links` of organizations, `rules` and `variants` of links; empty for none."""
    row: str
    """The column of rows."""
    part: int = 0
    """Of a word that has several, which one, from 1 on; 0 for a number that is no word."""


FACTS = {
    "country": Fact("locations", "location", 1),
    "city": Fact("locations", "location", 2),
    "referrer": Fact("referrers", "referrer", 1),
    "referrerGroup": Fact("referrers", "referrer", 2),
    "device": Fact("platforms", "platform", 1),
    "os": Fact("platforms", "platform", 2),
    "browser": Fact("platforms", "platform", 3),
    "language": Fact("languages", "language", 1),
    "utmSource": Fact("campaigns", "campaign", 1),
    "utmMedium": Fact("campaigns", "campaign", 2),
    "utmCampaign": Fact("campaigns", "campaign", 3),
    "utmTerm": Fact("campaigns", "campaign", 4),
    "utmContent": Fact("campaigns", "campaign", 5),
    "link": Fact("links", "link_id"),
    "rule": Fact("rules", "coalesce(rule_id, 0)"),
    "variant": Fact("variants", "coalesce(variant_id, 0)"),
    "message": Fact("", "coalesce(message_id, 0)"),
}


class Condition(NamedTuple):
    """What rows must be like: SQL with `{}` for its argument."""

    sql: str
    value: Any


@dataclass(frozen=True)
class Question:
    """Which clicks are asked for."""

    organization_id: int
    begin: datetime
    end: datetime
    """Exclusively."""
    classes: frozenset[Class] = HUMANS
    link_id: int | None = None
    conditions: tuple[Condition, ...] = ()


class Totals(NamedTuple):
    """What all of them come to."""

    clicks: dict[Class, int]
    anonymous: int
    """Of all classes together, those without a visitor."""
    scans: int


class Counted(NamedTuple):
    """How many clicks have a value."""

    value: str | int
    clicks: int


async def totals(connection: Connection, question: Question) -> Totals:
    """How many there are."""
    source = await Source.of(connection, question)
    rows = await source.fetch(
        connection,
        "totals",
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
        "series",
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
        "breakdown",
        f"""
        select number as value, clicks, sum(clicks) over ()::bigint as total from ({grouped}) as counted
         order by clicks desc, number limit {most}""",  # noqa: S608
        packs=f"select item >> 32, item & 4294967295 from {{packs}}, unnest({fact.pack}) as item",  # noqa: S608
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
    if pieces:
        source = Source(question, [], [_Edge(question.begin, question.end)], None)
        numbers, begins, ends = (source.argument(list(values)) for values in zip(*pieces, strict=True))
        rows = await source.fetch(
            connection,
            "visitors",
            "select number, visitors from {pieces} (number, visitors)",
            packs="",
            rows=f"""
            select number, count(distinct visitor)
              from unnest({numbers}::integer[], {begins}::timestamptz[], {ends}::timestamptz[])
                   as piece (number, low, high)
              join {{rows}} on clicked_at >= low and clicked_at < high
             group by number""",  # noqa: S608
        )
        for row in rows:
            counts[row["number"]] += row["visitors"]
    return counts


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
        "classes_by_day",
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


class _Edge(NamedTuple):
    """A range of which rows are read."""

    begin: datetime
    end: datetime


def _quarter(at: datetime) -> int:
    return int(at.timestamp()) // QUARTER_S


class Source:
    """Where the clicks of a question are, as SQL with arguments."""

    def __init__(
        self, question: Question, taken: Sequence[Span], edges: Sequence[_Edge], folded_until: datetime | None
    ) -> None:
        """`folded_until`: until when packs have taken the place of rows. Raises `ClicksNotKept`."""
        folded = [edge for edge in edges if edge.begin < (folded_until or _EVER)]
        cuts = any(
            bound.timestamp() % QUARTER_S for edge in folded for bound in edge if bound < (folded_until or _EVER)
        )
        if folded and (question.conditions or cuts):
            raise ClicksNotKept
        self._question = question
        self._spans = [*taken, *(Span(packs.QUARTERS, _quarter(edge.begin), _quarter(edge.end)) for edge in folded)]
        self._edges = edges
        self._folded_until = folded_until
        self._arguments: list[Any] = []

    @classmethod
    async def of(cls, connection: Connection, question: Question, *, levels: int = len(packs.HOURS)) -> "Source":
        """`levels`: how many of packs can answer it."""
        first, last = -(-int(question.begin.timestamp() * 1000) // 3_600_000), int(question.end.timestamp()) // 3600
        if question.link_id is not None:
            since = await connection.fetchval(
                "/* questions.of */ select since from busy_links where link_id = $1", question.link_id
            )
            first = last if since is None else max(first, since)
        folded_until = await retention.folded_until(connection, question.organization_id)
        if question.conditions or first >= last:
            return cls(question, [], [_Edge(question.begin, question.end)], folded_until)
        closed = (await packs.closed(connection))[: levels - 1]
        edges = [_Edge(question.begin, _hour(first)), _Edge(_hour(last), question.end)]
        taken = spans(first, last, closed)
        return cls(question, taken, [edge for edge in edges if edge.begin < edge.end], folded_until)

    def argument(self, value: Any) -> str:
        """A place for a value in the SQL."""
        self._arguments.append(value)
        return f"${len(self._arguments)}"

    async def fetch(
        self, connection: Connection, name: str, sql: str, *, packs: str, rows: str, is_packed: bool = True
    ) -> list[Any]:
        """Put together what packs and what rows have. In the SQL, `{pieces}` stands for that, `{packs}` and `{rows}`
        for where they are."""
        if not is_packed and self._folded_until is not None and self._question.begin < self._folded_until:
            raise ClicksNotKept
        edges = self._edges if is_packed else [(self._question.begin, self._question.end)]
        pieces = [rows.format(rows=self._rows(*edge)) for edge in edges]
        if is_packed and self._spans:
            pieces.insert(0, packs.format(packs=self._packs()))
        if not pieces:
            return []
        text = sql.format(pieces=f"({' union all '.join(pieces)}) as pieces")
        return await connection.fetch(f"/* questions.{name} */ {text}", *self._arguments)

    def _packs(self) -> str:
        question = self._question
        own, link = self.argument(question.organization_id), self.argument(question.link_id or 0)
        levels, begins, ends = (self.argument(list(values)) for values in zip(*self._spans, strict=True))
        classes = self.argument(sorted(question.classes))
        return f"""(
            select packs.*
              from unnest({levels}::smallint[], {begins}::integer[], {ends}::integer[]) as span (at, low, high)
              join packs on organization_id = {own} and link_id = {link}
                        and level = at and bucket >= low and bucket < high
             where class = any({classes}::smallint[])) as packs"""  # noqa: S608

    def _rows(self, begin: datetime, end: datetime) -> str:
        question = self._question
        told = [
            f"organization_id = {self.argument(question.organization_id)}",
            f"clicked_at >= {self.argument(begin)}",
            f"clicked_at < {self.argument(end)}",
        ]
        if question.link_id is not None:
            told.append(f"link_id = {self.argument(question.link_id)}")
        if question.classes != EVERY_CLASS:
            told.append(f"class = any({self.argument(sorted(question.classes))}::smallint[])")
        told += [condition.sql.format(self.argument(condition.value)) for condition in question.conditions]
        return f"(select * from clicks where {' and '.join(told)}) as rows"  # noqa: S608


def _hour(number: int) -> datetime:
    return datetime.fromtimestamp(number * 3600, UTC)


async def minutes(connection: Connection, question: Question) -> dict[int, int]:
    """How many there are in each minute since 1970 that has any."""
    source = await Source.of(connection, question, levels=0)
    rows = await source.fetch(
        connection,
        "minutes",
        "select minute, clicks from {pieces} (minute, clicks)",
        packs="",
        rows="select floor(extract(epoch from clicked_at) / 60)::integer, count(*) from {rows} group by 1",
        is_packed=False,
    )
    return {row["minute"]: row["clicks"] for row in rows}
