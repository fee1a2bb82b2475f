"""Bursts: several links of one message, clicked at once.

Who scans mail follows all its links within a second or two, and comes with the agent of a browser; nothing else tells
so many of them. But the first click of a burst is like any other, until there is the second.

Rules of this file:

1. A click is compared with all that are stored and all that come with it, whichever came first, and from which edge.
2. What is stored and turns out to be of a burst is judged again in the transaction that stores the next click of it. So
   a burst is never counted as a visit, however it is cut into batches.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.stats.classify import LINKS_AT_ONCE_MS, REASONS, SEVERAL_LINKS, VERSION, Class
from admin.stats.rows import COLUMNS, REASON_NUMBERS, Row

WITHIN = timedelta(milliseconds=LINKS_AT_ONCE_MS)
_REASON = "scanner-many-links"
_JUDGED = (REASONS[_REASON], REASON_NUMBERS[_REASON], VERSION)
_UNLESS_BURST = (Class.HUMAN, Class.REPEAT)
"""What classes may turn out to be of a burst: all others have a reason that comes before it."""


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
    begin, end = min(one.at for one in clicks) - WITHIN, max(one.at for one in clicks) + WITHIN
    stored = await connection.fetch(
        """
        /* bursts.links_at_once */
        select distinct message_id, link_id, clicked_at from clicks
         where message_id = any($1::bigint[]) and clicked_at >= $2 and clicked_at <= $3""",
        list({one.message_id for one in clicks}),
        begin,
        end,
    )
    return counted([*clicks, *(Clicked(*row) for row in stored)])[: len(clicks)]


def counted(clicks: Sequence[Clicked]) -> list[int]:
    """The same for each of some clicks, beside which there are no others."""
    numbers = [0] * len(clicks)
    by_message = defaultdict[int, list[int]](list)
    for number in sorted(range(len(clicks)), key=lambda number: clicks[number].at):
        by_message[clicks[number].message_id].append(number)
    for own in by_message.values():
        first = behind = 0
        links = Counter[int]()
        for number in own:  # the window moves: whoever clicks without end costs no more each time
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
            numbers[number] = len(links)
    return numbers


async def judge_again(connection: Connection, rows: Iterable[Row]) -> list[Found]:
    """Call those clicks what they are that are of a burst with one of these rows, all of them stored by now."""
    carried = [row for row in rows if row.message_id is not None]
    if not carried:
        return []
    begin, end = min(row.clicked_at for row in carried) - WITHIN, max(row.clicked_at for row in carried) + WITHIN
    stored = await connection.fetch(
        f"""
        /* bursts.judge_again */
        select tableoid, ctid, {", ".join(COLUMNS)} from clicks
         where message_id = any($1::bigint[]) and clicked_at >= $2 and clicked_at <= $3""",  # noqa: S608
        list({row.message_id for row in carried}),
        begin,
        end,
    )
    found = [Row(*list(row.values())[2:]) for row in stored]
    at_once = counted([Clicked(row.message_id or 0, row.link_id, row.clicked_at) for row in found])
    different = [
        (place[0], place[1], row)
        for place, row, links in zip(stored, found, at_once, strict=True)
        if links >= SEVERAL_LINKS and row.class_ in _UNLESS_BURST
    ]
    if different:
        parts, places, _ = zip(*different, strict=True)
        await connection.execute(
            """
            /* bursts.judge_again */
            update clicks set class = $3, reason = $4, version = $5
              from unnest($1::oid[], $2::tid[]) as place (part, tuple)
             where clicks.tableoid = part and clicks.ctid = tuple
               and message_id = any($6::bigint[]) and clicked_at >= $7 and clicked_at <= $8""",
            parts,
            places,
            *_JUDGED,
            list({row.message_id for *_, row in different}),
            begin,
            end,
        )
    return [Found(row, row._replace(class_=_JUDGED[0], reason=_JUDGED[1], version=_JUDGED[2])) for *_, row in different]
