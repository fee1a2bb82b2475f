"""Singles: one click after the other, as the API shows them, in lists and in files.

A walk goes from the newest to the oldest and meets each click that was there at its begin once, whatever comes
meanwhile, and whatever other classes are given: `Place` is where it stands.
"""

import base64
import csv
import io
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import orjson

from admin.database import Connection
from admin.http.answers import instant
from admin.links.transfer.cells import guarded
from admin.stats import retention, words
from admin.stats.classify import REASONS, Class
from admin.stats.networks import KINDS
from admin.stats.source import Question, Source

_AT_ONCE = 5000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REASONS = list(REASONS)
_PARTS = {
    "location": ("country", "city"),
    "referrer": ("referrer", "referrerGroup"),
    "platform": ("device", "os", "browser"),
    "language": ("language",),
    "campaign": ("utmSource", "utmMedium", "utmCampaign", "utmTerm", "utmContent"),
    "agent": ("userAgent",),
}
_UNCHANGING = """visitor, location, referrer, platform, language, campaign, agent, rule_id, variant_id, is_head,
                 is_prefetch, is_internal, is_use, is_scan, address, click_id"""
_MORE = 8


class Place(NamedTuple):
    """Where a walk through single clicks has come to.

    Rows have no id: one is known by its time, its link, and `mark`, a hash of all in it that never changes. Of those
    that are alike nobody can tell which is which, so they are counted.
    """

    at: datetime
    link_id: int
    mark: int
    passed: int
    """How many that are alike were seen."""


async def page(
    connection: Connection, question: Question, after: Place | None, limit: int
) -> tuple[list[dict[str, Any]], Place | None]:
    """Clicks behind a place, and the place behind them; None at the end."""
    rows = await _newest(connection, question, after, limit + 1)
    place = _place_behind(rows[:limit], after) if len(rows) > limit else None
    return await _shown(connection, rows[:limit]), place


async def _newest(connection: Connection, question: Question, after: Place | None, limit: int) -> list[asyncpg.Record]:
    """The newest single clicks, with their `mark`s, after a place. Those that are not kept are none."""
    kept_since = await retention.folded_until(connection, question.organization_id)
    if kept_since is not None:
        question = replace(question, begin=max(question.begin, kept_since))
    if after is not None:
        question = replace(question, end=min(question.end, after.at + timedelta(microseconds=1)))
    count = limit + (after.passed if after else 0)
    while True:
        # There is no index by time of an organization's rows; but packs know in which hours there are so many.
        begin = await _begin_of_newest(connection, question, count)
        rows = await _newest_since(connection, replace(question, begin=begin), after, limit)
        if len(rows) == limit or begin == question.begin:
            return rows
        count *= _MORE  # conditions leave some out


async def _newest_since(
    connection: Connection, question: Question, after: Place | None, limit: int
) -> list[asyncpg.Record]:
    source = await Source.of(connection, question, levels=0)
    passed = ""
    if after is not None:
        at, link_id, mark = (source.argument(value) for value in after[:3])
        passed = f"where (clicked_at, link_id, mark) <= ({at}, {link_id}, {mark})"
    offset, most = source.argument(after.passed if after else 0), source.argument(limit)
    return await source.fetch(
        connection,
        "newest",
        f"""
        select * from {{pieces}} {passed}
         order by clicked_at desc, link_id desc, mark desc offset {offset} limit {most}""",  # noqa: S608
        packs="",
        rows=f"select *, hash_record_extended(row({_UNCHANGING}), 0) as mark from {{rows}}",  # noqa: S608
        is_packed=False,
    )


async def _begin_of_newest(connection: Connection, question: Question, count: int) -> datetime:
    """Since when there are so many clicks, without the conditions; for one link, which has an index, since ever."""
    if question.link_id is not None:
        return question.begin
    hour = await connection.fetchval(
        """
        /* singles.begin_of_newest */
        select max(bucket)
          from (select bucket, sum(sum(clicks)) over (order by bucket desc) as so_far from packs
                 where organization_id = $1 and link_id = 0 and level = 0 and bucket between $2 and $3
                   and class = any($4::smallint[])
                 group by bucket) as hours
         where so_far >= $5""",
        question.organization_id,
        int(question.begin.timestamp()) // 3600,
        int(question.end.timestamp()) // 3600,
        sorted(question.classes),
        count,
    )
    return question.begin if hour is None else max(question.begin, datetime.fromtimestamp(hour * 3600, UTC))


def _place_behind(rows: Sequence[asyncpg.Record], after: Place | None) -> Place:
    keys = [(row["clicked_at"], row["link_id"], row["mark"]) for row in rows]
    alike = sum(key == keys[-1] for key in keys)
    is_same = after is not None and after[:3] == keys[-1]
    return Place(*keys[-1], alike + (after.passed if after and is_same else 0))


async def _shown(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[dict[str, Any]]:
    texts = await words.texts(connection, {row[column] for row in rows for column in _PARTS})
    found = await connection.fetch(
        "/* singles.shown */ select id, public_id from links where id = any($1::bigint[])",
        list({row["link_id"] for row in rows}),
    )
    links = {row["id"]: row["public_id"] for row in found}
    found = await connection.fetch(
        "/* singles.shown */ select id, public_id from carriers where id = any($1::bigint[])",
        list({row["message_id"] for row in rows}),
    )
    messages = {row["id"]: row["public_id"] for row in found}
    return [_click(row, texts, links.get(row["link_id"]), messages.get(row["message_id"])) for row in rows]


def _click(row: asyncpg.Record, texts: dict[int, str], link: str | None, message: str | None) -> dict[str, Any]:
    facts: dict[str, str] = {}
    for column, names in _PARTS.items():
        parts = [texts[row[column]]] if column == "agent" else texts[row[column]].split("\t")
        facts |= dict(zip(names, [*parts, *[""] * len(names)], strict=False))
    return {
        "at": instant(row["clicked_at"]),
        "linkId": link,
        "class": Class(row["class"]).name.lower(),
        "reason": _REASONS[row["reason"]] if row["version"] else None,
        **facts,
        "referrerGroup": facts["referrerGroup"] or "direct",
        "qr": row["is_scan"],
        "ruleId": row["rule_id"],
        "variantId": row["variant_id"],
        "visitor": None if row["visitor"] is None else f"{row['visitor'] % 2**64:016x}",
        "address": None if row["address"] is None else str(row["address"]),
        "network": KINDS[row["network"] - 1] if row["network"] else "",
        "messageId": message,
        "clickId": row["click_id"],
    }


COLUMNS = (
    *("at", "linkId", "class", "reason"),
    *(name for names in _PARTS.values() for name in names),
    *("qr", "ruleId", "variantId", "visitor", "address", "network", "messageId", "clickId"),
)


def cursor_of(place: Place) -> str:
    """The cursor that goes on there: base64url without padding of four numbers."""
    at = (place.at - _EPOCH) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{at}.{place.link_id}.{place.mark}.{place.passed}".encode()).decode().rstrip("=")


def place_of(cursor: str) -> Place:
    """Raises ValueError for what is no cursor."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        text = ""
    found = re.fullmatch(r"([0-9]{1,16})\.([0-9]{1,18})\.(-?[0-9]{1,19})\.([0-9]{1,9})", text)
    place = found and Place(_EPOCH + timedelta(microseconds=int(found[1])), *(int(part) for part in found.groups()[1:]))
    # There is one spelling of each cursor; the decoder takes others, too.
    if not place or not -(2**63) <= place.mark < 2**63 or cursor_of(place) != cursor:
        raise ValueError("It is no cursor of these clicks.")
    return place


class Format(NamedTuple):
    """A kind of file: what is before the clicks, between two of them, and behind them."""

    media_type: str
    head: bytes
    lines: Callable[[list[dict[str, Any]]], list[bytes]]
    between: bytes
    end: bytes


def _csv_lines(clicks: list[dict[str, Any]]) -> list[bytes]:
    out = io.StringIO()
    csv.writer(out).writerows([_cell(click[name]) for name in COLUMNS] for click in clicks)
    return [out.getvalue().encode()]


def _cell(value: Any) -> str:
    """No spreadsheet takes it for a formula."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return guarded(value) if value else ""
    return "" if value is None else str(value)


def _json_lines(clicks: list[dict[str, Any]]) -> list[bytes]:
    return [orjson.dumps(click) for click in clicks]


FORMATS = {
    # The byte order mark is for spreadsheets, which take a file without one for anything but UTF-8.
    "csv": Format("text/csv; charset=utf-8", ("\ufeff" + ",".join(COLUMNS) + "\r\n").encode(), _csv_lines, b"", b""),
    "json": Format("application/json", b"[", _json_lines, b",\n", b"]\n"),
    "ndjson": Format("application/x-ndjson", b"", _json_lines, b"\n", b"\n"),
}


async def file(connection: Connection, question: Question, kind: Format) -> AsyncGenerator[bytes]:
    """All of them as a file, piece by piece, in the memory of some thousand. In the caller's snapshot, which
    should hold the months."""
    before, place = kind.head, None
    while True:
        clicks, place = await page(connection, question, place, _AT_ONCE)
        lines = kind.between.join(kind.lines(clicks))
        yield before + lines + (kind.end if place is None and (clicks or kind.head) else b"")
        if place is None:
            return
        before = kind.between
