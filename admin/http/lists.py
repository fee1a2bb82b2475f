"""Lists: what may be asked of one, and the rows that answer it. A list is declared once, as a `Listing` beside its SQL.

Rules of this file:

1. A list is read by page or walked by cursor. Pages have numbers and any order, and shift when rows come and go. A walk
   is in the order of ids, which never change: it meets each row that was there at its begin exactly once.
2. Every name in SQL comes from the declaration. What a client sends chooses among those, or is an argument.
3. A query string is understood as a whole or not at all: what is wrong with it is told at once, by parameter.
"""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel, to_snake

from admin.database import Connection
from admin.errors import Detail, Invalid

PAGE_SIZE = 20
WALK_SIZE = 50
MAX_SIZE = 100
_MAX_NUMBER = 10_000_000  # keeps what is computed from it a bigint
_MAX_DETAILS = 100  # or a query string of many small mistakes would get an answer several times its size
_BY_ID = "createdAt"  # what clients call the order of ids
_SPAN = {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}], "examples": ["2026-01-31"]}
_WIRE = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Values(NamedTuple):
    """What a parameter may be."""

    read: Callable[[str], Any]
    """From its text to an argument of SQL. Raises `ValueError` with a sentence for the client."""
    schema: dict[str, Any]
    """The same as JSON schema. A test tries its `examples`, or its `enum`."""


class Filter(NamedTuple):
    """A condition that a client may set."""

    condition: str
    """In SQL; each `{}` of it is what the client sent."""
    values: Values
    description: str = ""


class Asked(NamedTuple):
    """What a client wants to see of a list: a page, or the next step of a walk. `order` is asc or desc."""

    page: int | None
    """Its number, from 1; None for a walk."""
    after: str | None
    """The public id that a walk has come to; None at its begin."""
    size: int
    sort: str
    order: str
    filters: dict[str, Any]
    """Only those that were sent."""


class Pagination(BaseModel):
    """Where a page stands in its list."""

    model_config = _WIRE

    page: int
    per_page: int
    total_pages: int
    total_count: int
    has_next_page: bool
    has_prev_page: bool


class Cursor(BaseModel):
    """Where a walk stands in its list. `next` is the cursor that goes on; null at the end."""

    model_config = _WIRE

    next: str | None
    has_more: bool


class Found(NamedTuple):
    """Rows of a list, and where they stand in it."""

    rows: list[asyncpg.Record]
    place: Pagination | Cursor


@dataclass(frozen=True)
class Listing:
    """A list as it is declared."""

    prefix: str
    """Of the ids that clients see; empty where they have none."""
    sorts: Mapping[str, str]
    """What it can be sorted by, and the SQL of that."""
    filters: Mapping[str, Filter] = field(default_factory=dict)
    """`startDate` and `endDate` are the ends of one span (`since`, `until`)."""
    default_sort: str = _BY_ID
    id_column: str = "public_id"
    """In SQL. Bytes are compared: it is `collate "C"`."""
    limit_is_per_page: bool = False
    """Whether `limit` alone asks for a page; else it begins a walk."""

    def asked(self, pairs: Iterable[tuple[str, str]], wrong: Iterable[Detail] = ()) -> Asked:
        """What a query string asks for. Raises `Invalid`, also for what was found `wrong` with it before."""
        sent = Sent(pairs, [one["name"] for one in self.parameters], wrong)
        page, per_page, limit = (sent.read(name, _whole_number) for name in ("page", "perPage", "limit"))
        sort = sent.read("sortBy", self._sort)
        order = sent.read("sortOrder", one_of("asc", "desc").read)
        after = sent.read("cursor", lambda text: self._after(text) if text else None)
        filters = {name: sent.read(name, one.values.read) for name, one in self.filters.items() if name in sent}
        start, end = filters.get("startDate"), filters.get("endDate")
        if start and end and start >= end:
            sent.refuse("endDate", "It must not be before startDate.")
        is_limit_alone = "limit" in sent and not ("page" in sent or "perPage" in sent)
        is_walk = "cursor" in sent or (is_limit_alone and not self.limit_is_per_page)
        if is_walk and "page" in sent:
            sent.refuse("page", "There are no page numbers with a cursor; send one or the other.")
        if is_walk and sort not in (None, _BY_ID):
            sent.refuse("sortBy", f"A cursor goes by {_BY_ID}, which never changes; send page to sort by another.")
        sent.check()
        return Asked(
            page=None if is_walk else page or 1,
            after=after,
            size=min(per_page or limit or (WALK_SIZE if is_walk else PAGE_SIZE), MAX_SIZE),
            sort=sort or self.default_sort,
            order=order or "desc",
            filters=filters,
        )

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The `parameters` of its route in the OpenAPI document."""
        number = {"type": "integer", "minimum": 1, "maximum": _MAX_NUMBER}
        alone = "like `perPage`" if self.limit_is_per_page else "like an empty `cursor`"
        described: list[tuple[str, dict[str, Any], str]] = [
            ("page", number | {"default": 1}, "The page, counted from 1."),
            ("perPage", number | {"default": PAGE_SIZE}, f"Rows per page; more than {MAX_SIZE} mean {MAX_SIZE}."),
            ("limit", number, f"Rows with a `cursor`, {WALK_SIZE} unless given; alone it is {alone}."),
            ("cursor", {"type": "string"}, "Empty to begin; then `meta.cursor.next` of the answer before."),
            ("sortBy", one_of(*self.sorts).schema | {"default": self.default_sort}, "What to sort pages by."),
            ("sortOrder", one_of("asc", "desc").schema | {"default": "desc"}, "Ascending or descending."),
        ]
        for name, one in self.filters.items():
            described.append((name, one.values.schema, one.description or f"Only what has this `{name}`."))
        return [
            {"name": name, "in": "query", "required": False, "description": description, "schema": schema}
            for name, schema, description in described
        ]

    async def run(self, connection: Connection, select: str, arguments: Sequence[Any], asked: Asked) -> Found:
        """What was asked for. `select` begins with its name, has `public_id`, ends in conditions; more are added."""
        select, values = self.narrowed(select, arguments, asked.filters)
        if asked.page is None:
            return await self._walk(connection, select, values, asked)
        return await self._page(connection, select, values, asked, asked.page)

    def narrowed(self, select: str, arguments: Sequence[Any], filters: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """A query that ends in conditions, with those of these filters, and its arguments."""
        values = list(arguments)
        for name, value in filters.items():
            values.append(value)
            select += f" and ({self.filters[name].condition.replace('{}', f'${len(values)}')})"
        return select, values

    async def _page(self, connection: Connection, select: str, values: list[Any], asked: Asked, number: int) -> Found:
        order = f"{self.sorts[asked.sort]} {asked.order}, {self.id_column} {asked.order}"
        part = f"{select} order by {order} offset ${len(values) + 1} limit ${len(values) + 2}"
        rows = await connection.fetch(part, *values, (number - 1) * asked.size, asked.size)
        name, _end, matching = select.partition("*/")
        count = f"{name}*/ select count(*) from ({matching}) as matching"  # noqa: S608
        total = await connection.fetchval(count, *values)
        pages = -(-total // asked.size)
        pagination = Pagination(
            page=number,
            per_page=asked.size,
            total_pages=pages,
            total_count=total,
            has_next_page=number < pages,
            has_prev_page=number > 1,
        )
        return Found(rows, pagination)

    async def _walk(self, connection: Connection, select: str, values: list[Any], asked: Asked) -> Found:
        if asked.after is not None:
            values = [*values, asked.after]
            select += f" and {self.id_column} {'>' if asked.order == 'asc' else '<'} ${len(values)}"
        select += f" order by {self.id_column} {asked.order} limit ${len(values) + 1}"
        rows = await connection.fetch(select, *values, asked.size + 1)  # one more than is shown: are there more?
        has_more = len(rows) > asked.size
        after = rows[asked.size - 1]["public_id"] if has_more else None
        return Found(rows[: asked.size], Cursor(next=after and self._cursor(after), has_more=has_more))

    def _sort(self, text: str) -> str:
        return str(one_of(*self.sorts).read(_spellings(self.sorts).get(text, text)))

    def _cursor(self, public_id: str) -> str:
        """Where a walk goes on after this row: base64url without padding of compact JSON."""
        shown = f"{self.prefix}_{public_id}" if self.prefix else public_id
        return base64.urlsafe_b64encode(f'{{"id":"{shown}"}}'.encode()).decode().rstrip("=")

    def _after(self, cursor: str) -> str:
        """The public id in a cursor; no row needs to have it (any more). Raises `ValueError`."""
        try:
            text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        except ValueError:
            text = ""
        found = re.fullmatch(r'\{"id":"(?:([a-z]+)_)?([0-9A-Za-z]{1,64})"\}', text)
        # There is one spelling of each cursor; the decoder takes others too.
        if found is None or (found[1] or "") != self.prefix or self._cursor(found[2]) != cursor:
            raise ValueError("It is no cursor of this list.")
        return found[2]


def one_of(*names: str) -> Values:
    """One of these, spelled as here."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"It must be one of: {', '.join(names)}.")
        return text

    return Values(read, {"type": "string", "enum": list(names)})


text = Values(str, {"type": "string"})
"""Any text."""


def since(column: str) -> Filter:
    """`startDate`: not before this day or instant."""
    return Filter(f"{column} >= {{}}", Values(lambda text: _span(text)[0], _SPAN), "Not before this day or instant.")


def until(column: str) -> Filter:
    """`endDate`: not after this day or instant."""
    return Filter(f"{column} < {{}}", Values(lambda text: _span(text)[1], _SPAN), "Not after this day or instant.")


def _span(text: str) -> tuple[datetime, datetime]:
    """The begin of a day, or of an instant's millisecond (answers tell no less), and the begin of the next one."""
    parts = re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}(T.+)?", text)
    try:
        at = datetime.fromisoformat(text if parts else "")
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        sentence = "It must be a date (2026-01-31) or an instant (2026-01-31T09:30:00Z); a + is written %2B."
        raise ValueError(sentence) from error
    start = at.replace(microsecond=at.microsecond // 1000 * 1000)
    length = timedelta(milliseconds=1) if parts and parts[1] else timedelta(days=1)
    return start, start + min(length, datetime.max.replace(tzinfo=UTC) - start)


def _whole_number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= _MAX_NUMBER:
        raise ValueError(f"It must be a whole number from 1 to {_MAX_NUMBER}.")
    return int(text)


def _spellings(names: Iterable[str]) -> dict[str, str]:
    """The name of each spelling: `perPage` is also `per_page`."""
    return {spelling: name for name in names for spelling in (name, to_snake(name))}


class Sent:
    """The parameters of a query string by name, however they are spelled, and what is wrong with them."""

    def __init__(self, pairs: Iterable[tuple[str, str]], names: Iterable[str], wrong: Iterable[Detail] = ()) -> None:
        self.wrong = {detail.field: detail.message for detail in wrong}
        self._sent: dict[str, tuple[str, str]] = {}
        spellings = _spellings(names)
        if "perPage" in spellings:
            spellings["page_size"] = "perPage"
        for parameter, text in pairs:
            name = spellings.get(parameter)
            if name is None:
                self.wrong.setdefault(parameter, "There is no such parameter.")
            elif name in self._sent:
                self.wrong.setdefault(parameter, "It is given twice.")
            elif "\0" in text:
                self.wrong.setdefault(parameter, "It must not contain NUL.")
            else:
                self._sent[name] = (parameter, text)

    def __contains__(self, name: str) -> bool:
        return name in self._sent

    def read(self, name: str, read: Callable[[str], Any]) -> Any:
        """What a parameter says; None if it is missing or refused."""
        try:
            return read(self._sent[name][1]) if name in self else None
        except ValueError as error:
            return self.refuse(name, str(error))

    def refuse(self, name: str, message: str) -> None:
        """Refuse a parameter that was sent."""
        self.wrong.setdefault(self._sent[name][0], message)

    def check(self) -> None:
        """Raises `Invalid` with all that is wrong, if anything is."""
        if self.wrong:
            raise Invalid(details=[Detail(*one) for one in self.wrong.items()][:_MAX_DETAILS])
