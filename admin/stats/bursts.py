"""Bursts: several links of one message, clicked at once.

Who scans mail follows all its links within a second or two, and comes with the agent of a browser; nothing else tells
so many of them. But the first click of a burst is like any other, until there is the second.

Rules of this file:

1. A click is compared with all that are stored and all that come with it, whichever came first, and from which edge.
2. What is stored and turns out to be of a burst is judged again in the transaction that stores the next click of it. So
   a burst is never counted as visits, however it is cut into batches.
3. Somebody may click one link without end. So nobody asks how many clicks there are near another, but only whether
   there is one: an index tells that of each link by itself.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from admin.database import Connection
from admin.stats.classify import LINKS_AT_ONCE_MS, REASONS, SEVERAL_LINKS, VERSION
from admin.stats.rows import COLUMNS, REASON_NUMBERS, Row

WITHIN = timedelta(milliseconds=LINKS_AT_ONCE_MS)
_REASON = "scanner-many-links"
_UNLESS_BURST = tuple(REASON_NUMBERS[reason] for reason in ("human", "repeat", "scanner-too-soon", "scanner-network"))
"""What is not asked for any more in a burst (classify.py)."""


class Clicked(NamedTuple):
    """A click of a message's link."""

    message_id: int
    link_id: int
    at: datetime


class Found(NamedTuple):
    """A row that is of a burst, as it was and as it is now."""

    before: Row
    now: Row


async def links_at_once(connection: Connection, clicks: Sequence[Clicked]) -> list[int]:
    """Of each of these clicks, how many links of its message were clicked within `WITHIN` of it, its own included."""
    if not clicks:
        return []
    stored = await connection.fetch(
        """
        /* bursts.links_at_once */
        select number, other.link_id
          from unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) with ordinality as one (message, link, at, number)
               join carried_links as other on carrier_id = message and link_id <> link
         where exists (
               select from clicks
                where clicks.link_id = other.link_id and clicked_at >= at - $4::interval
                  and clicked_at <= at + $4::interval)""",
        *zip(*clicks, strict=True),
        WITHIN,
    )
    links = links_near(clicks)
    for row in stored:
        links[row["number"] - 1].add(row["link_id"])
    return [len(near) for near in links]


def links_near(clicks: Sequence[Clicked]) -> list[set[int]]:
    """Of each of some clicks, which links of its message have one of them within `WITHIN` of it."""
    near: list[set[int]] = [set()] * len(clicks)
    by_message = defaultdict[int, list[int]](list)
    for number in sorted(range(len(clicks)), key=lambda number: clicks[number].at):
        by_message[clicks[number].message_id].append(number)
    for own in by_message.values():
        first = behind = 0
        links = Counter[int]()
        for number in own:  # a window that moves: a click among many costs no more than one among few
            at = clicks[number].at
            while behind < len(own) and clicks[own[behind]].at <= at + WITHIN:
                links[clicks[own[behind]].link_id] += 1
                behind += 1
            while clicks[own[first]].at < at - WITHIN:
                left = clicks[own[first]].link_id
                links[left] -= 1
                if not links[left]:
                    del links[left]
                first += 1
            near[number] = set(links)
    return near


async def judge_again(connection: Connection, bursting: Sequence[Clicked]) -> list[Found]:
    """Call what it is whatever is of a burst with one of these clicks, which are of one. All are stored by now."""
    stored = await _near(connection, bursting)
    rows = [Row(*list(row.values())[2:]) for row in stored]
    clicks = [Clicked(row.message_id or 0, row.link_id, row.clicked_at) for row in rows]
    at_once = await links_at_once(connection, clicks)
    found = [number for number, links in enumerate(at_once) if links >= SEVERAL_LINKS]
    if found:
        await connection.execute(
            """
            /* bursts.judge_again */
            update clicks set class = $3, reason = $4, version = $5
              from unnest($1::oid[], $2::tid[]) as place (part, tuple)
             where clicks.tableoid = part and clicks.ctid = tuple and clicked_at >= $6 and clicked_at <= $7""",
            [stored[number]["tableoid"] for number in found],
            [stored[number]["ctid"] for number in found],
            REASONS[_REASON],
            REASON_NUMBERS[_REASON],
            VERSION,
            min(rows[number].clicked_at for number in found),
            max(rows[number].clicked_at for number in found),
        )
    return [Found(rows[number], _judged(rows[number])) for number in found]


def _judged(row: Row) -> Row:
    return row._replace(class_=REASONS[_REASON], reason=REASON_NUMBERS[_REASON], version=VERSION)


async def _near(connection: Connection, bursting: Sequence[Clicked]) -> list[Any]:
    """The stored clicks within `WITHIN` of these, of the same messages, that may have to be judged again."""
    windows = _windows(bursting)
    return await connection.fetch(
        f"""
        /* bursts.near */
        select clicks.tableoid, clicks.ctid, {", ".join(f"clicks.{name}" for name in COLUMNS)}
          from unnest($1::bigint[], $2::timestamptz[], $3::timestamptz[]) as span (message, low, high)
               join carried_links on carrier_id = message
               join clicks on clicks.link_id = carried_links.link_id and clicked_at >= low and clicked_at <= high
         where reason = any($4::smallint[])""",  # noqa: S608
        *zip(*windows, strict=True),
        _UNLESS_BURST,
    )


def _windows(clicks: Sequence[Clicked]) -> list[tuple[int, datetime, datetime]]:
    """What time is near these clicks, by message; no moment is in two windows of one."""
    windows: list[tuple[int, datetime, datetime]] = []
    for message_id, _, at in sorted(clicks, key=lambda one: (one.message_id, one.at)):
        if windows and windows[-1][0] == message_id and windows[-1][2] >= at - WITHIN:
            windows[-1] = (message_id, windows[-1][1], at + WITHIN)
        else:
            windows.append((message_id, at - WITHIN, at + WITHIN))
    return windows
