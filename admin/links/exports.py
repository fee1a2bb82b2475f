"""Exports: the links of an organization as a file, as they are at one moment, in the memory of a few hundred of them.

The oldest comes first. Columns are those of `transfer/own.py`, which reads them again; deleted links are left out.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
import orjson
from pydantic.alias_generators import to_snake

from admin.database import Connection
from admin.http.answers import instant
from admin.links import links
from admin.links.transfer.own import COLUMNS
from admin.links.transfer.writing import CSV_HEAD, to_csv, to_json_lines

_AT_ONCE = 200
_MADE_UP = {"id": "public_id", "hasPassword": "password_hash is not null"}
_COLUMNS = ", ".join(f"{_MADE_UP.get(name, to_snake(name))} as {to_snake(name)}" for name in COLUMNS)
_JSON = {name for name in COLUMNS if links.CHANGEABLE.get(name) == "jsonb"}


class Format(NamedTuple):
    """A kind of file."""

    media_type: str
    ending: str
    head: bytes
    lines: Callable[[list[dict[str, Any]]], bytes]


FORMATS = {
    "csv": Format("text/csv; charset=utf-8", "csv", CSV_HEAD, to_csv),
    "json": Format("application/x-ndjson", "jsonl", b"", to_json_lines),
}


async def pieces(
    connection: Connection, organization_id: int, kind: Format, filters: Mapping[str, Any]
) -> AsyncGenerator[bytes]:
    """The file, piece by piece. `filters` are those of `links.LISTING`. In the caller's transaction."""
    select, values = links.LISTING.narrowed(
        f"/* exports.pieces */ select {_COLUMNS} from links where organization_id = $1 and deleted_at is null",  # noqa: S608
        [organization_id],
        filters,
    )
    there = await connection.cursor(f"{select} order by created_at, id", *values)
    rows = await there.fetch(_AT_ONCE)
    yield kind.head + kind.lines([shown(row) for row in rows])
    while rows:
        rows = await there.fetch(_AT_ONCE)
        yield kind.lines([shown(row) for row in rows])


def shown(row: asyncpg.Record) -> dict[str, Any]:
    """A link as the API shows it, as far as the file has it."""
    return {name: _plain(name, value) for name, value in zip(COLUMNS, row.values(), strict=True)}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return instant(value)
    return orjson.loads(value) if name in _JSON else value
