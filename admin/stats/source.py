"""Source: where the clicks of a question are: in packs, as far as there are any, and in rows for the rest.

Rules of this file:

1. Of a whole organization, or of a busy link, all whole hours come from packs. What is left of an hour at both ends,
   other links, and whatever asks for two facts at once, come from rows.
2. Where rows have become packs (retention.py), what only rows can tell is `ClicksNotKept`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from admin.database import Connection
from admin.errors import ClicksNotKept
from admin.stats import packs, retention
from admin.stats.classify import Class
from admin.stats.packs import QUARTER_S, Span, spans

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


class Counted(NamedTuple):
    """How many clicks have a value."""

    value: str | int
    clicks: int


class Edge(NamedTuple):
    """A range of which rows are read."""

    begin: datetime
    end: datetime


def _quarter(at: datetime) -> int:
    return int(at.timestamp()) // QUARTER_S


class Source:
    """Where the clicks of a question are, as SQL with arguments."""

    def __init__(
        self, question: Question, taken: Sequence[Span], edges: Sequence[Edge], folded_until: datetime | None
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
                "/* source.of */ select since from busy_links where link_id = $1", question.link_id
            )
            first = last if since is None else max(first, since)
        folded_until = await retention.folded_until(connection, question.organization_id)
        if question.conditions or first >= last:
            return cls(question, [], [Edge(question.begin, question.end)], folded_until)
        closed = (await packs.closed(connection))[: levels - 1]
        edges = [Edge(question.begin, _hour(first)), Edge(_hour(last), question.end)]
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
        for where they are; its arguments are those of now."""
        if not is_packed and self._folded_until is not None and self._question.begin < self._folded_until:
            raise ClicksNotKept
        edges = self._edges if is_packed else [(self._question.begin, self._question.end)]
        pieces = [rows.format(rows=self._rows(*edge)) for edge in edges]
        if is_packed and self._spans:
            pieces.insert(0, packs.format(packs=self._packs()))
        else:  # many rows, perhaps: so many that it is worth while to begin processes that share them
            await connection.execute("/* source.fetch */ set local max_parallel_workers_per_gather to default")
        arguments, self._arguments = self._arguments, []
        if not pieces:
            return []
        text = sql.format(pieces=f"({' union all '.join(pieces)}) as pieces")
        return await connection.fetch(f"/* {name} */ {text}", *arguments)

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
