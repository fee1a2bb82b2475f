"""The checker: whether there still is something where links lead. It asks for each destination once a day at most.

Rules of this file:

1. A step claims links that are due with a lease, commits that, and only then asks; what died with its worker is asked
   for by another when the lease is over. What changed meanwhile is not recorded.
2. A host is asked for one destination at a time, with a pause behind each, and for a few in one step; a destination of
   several links once. So a large host takes long, and keeps no other one from being asked.
3. HEAD comes first, GET where HEAD brings nothing good. Whatever answers is there, but for 404, 410 and faults of its
   own (5xx): who is sent away, as a robot or without a password, learns that a page exists.
4. A link is dead when its destination was gone (404, 410) twice in a row, or has failed three times or more over two
   days. That is told, and nothing else comes of it: dead links lead where they led, and are asked for again.
5. Only the destination is asked for, not those of rules and variants, and only of links that lead somewhere.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg

from admin.database import Connection
from admin.fetch import CannotFetch, Fetcher
from admin.links.destinations import hostname_of

_CLAIMED = 200
_PER_HOST = 10
_AT_ONCE = 10
_WITHIN_S = 10.0
_LEASE_S = 900.0
"""Longer than a step may take."""
_ENROLLED = 50_000
_GONE = ("404", "410")
_FAILURES = 3
_FAILED_FOR = timedelta(days=2)
_SAYS_NOTHING = ("private", "redirects")
"""Visitors may well get there: they are in another network, or send the cookie that ends the redirects."""
_NOTHING_TO_ASK = ("dns", "private", "connection", "url")
"""Where GET would fare no better than HEAD."""


class Standing(NamedTuple):
    """What is known of a destination."""

    status: str = "unchecked"
    """unchecked, ok or dead."""
    outcome: str = ""
    """Of the last time: a status of HTTP, or the word of `CannotFetch` for why there was none."""
    failures: int = 0
    """Since it last was there."""
    failed_since: datetime | None = None

    def after(self, outcome: str, at: datetime) -> "Standing":
        """What is known when it has been asked for once more."""
        if outcome in _SAYS_NOTHING:
            return self._replace(outcome=outcome)
        if is_there(outcome):
            return Standing("ok", outcome)
        since = self.failed_since or at
        is_gone = outcome in _GONE and self.outcome in _GONE
        is_down = self.failures + 1 >= _FAILURES and at - since >= _FAILED_FOR
        return Standing("dead" if is_gone or is_down else self.status, outcome, self.failures + 1, since)


def is_there(outcome: str) -> bool:
    """Whether something answers that is more than an error of the host."""
    return outcome.isdigit() and outcome not in _GONE and not outcome.startswith("5")


class _Due(NamedTuple):
    link_id: int
    destination: str
    standing: Standing
    at: datetime


class Checker:
    """Asks for destinations. `pause_s` is how long a host is left alone behind each."""

    def __init__(self, fetcher: Fetcher, *, pause_s: float = 1.0) -> None:
        self._fetcher = fetcher
        self._pause_s = pause_s

    async def step(self, connection: Connection) -> int:
        """Ask for some of the destinations that are due; how many links were due. Not in a transaction."""
        rows = await _claim(connection)
        due = [_due(row) for row in rows if row["leads"]]
        chosen = _few_of_each_host({one.destination for one in due})
        at_once = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._host(at_once, destinations)) for destinations in chosen.values()]
        outcomes = {destination: outcome for task in asked for destination, outcome in task.result().items()}
        await _record(connection, [one for one in due if one.destination in outcomes], outcomes)
        await _put_back(connection, [one.link_id for one in due if one.destination not in outcomes])
        return len(rows)

    async def _host(self, at_once: asyncio.Semaphore, destinations: Sequence[str]) -> dict[str, str]:
        outcomes = {}
        for destination in destinations:
            async with at_once:
                outcomes[destination] = await self._outcome(destination)
            await asyncio.sleep(self._pause_s)
        return outcomes

    async def _outcome(self, destination: str) -> str:
        outcome = await self._asked("HEAD", destination)
        if is_there(outcome) or outcome in _NOTHING_TO_ASK:
            return outcome
        return await self._asked("GET", destination)

    async def _asked(self, method: str, destination: str) -> str:
        try:
            answer = await self._fetcher.get(destination, max_bytes=1, within_s=_WITHIN_S, method=method)
        except CannotFetch as error:
            return error.why
        return str(answer.status)


def _few_of_each_host(destinations: set[str]) -> dict[str, list[str]]:
    hosts: dict[str, list[str]] = {}
    for destination in sorted(destinations):
        of_host = hosts.setdefault(hostname_of(destination), [])
        if len(of_host) < _PER_HOST:
            of_host.append(destination)
    return hosts


async def enrol(connection: Connection) -> None:
    """Have links checked that were not known here. One that was just made may be ahead of its page, and waits."""
    done = f"INSERT 0 {_ENROLLED}"
    while done == f"INSERT 0 {_ENROLLED}":
        done = await connection.execute(
            """
            /* checker.enrol */
            insert into destination_checks (link_id)
            select id from links
             where created_at < now() - interval '1 hour'
               and not exists (select from destination_checks where link_id = links.id)
             limit $1
            on conflict do nothing""",
            _ENROLLED,
        )


async def forget(connection: Connection, link_id: int) -> None:
    """Begin anew with a link, because it leads elsewhere."""
    await connection.execute(
        """
        /* checker.forget */
        update destination_checks
           set status = default, outcome = default, failures = default, failed_since = default, checked_at = default,
               due_at = default
         where link_id = $1""",
        link_id,
    )


async def _claim(connection: Connection) -> list[asyncpg.Record]:
    """Those that lead nowhere just now are put off until tomorrow."""
    # An array, because Postgres might run a plain subquery again for each row, and claim more than the limit.
    return await connection.fetch(
        """
        /* checker.claim */
        update destination_checks
           set due_at = now() + case when leads then make_interval(secs => $1) else interval '1 day' end
          from (select id, destination,
                       num_nulls(deleted_at, reported_at) = 2 and not archived and not disabled as leads
                  from links) as link
         where link_id = id and link_id = any(array(
               select link_id from destination_checks where due_at <= now() order by due_at limit $2
                  for update skip locked))
        returning link_id, destination, leads, status, outcome, failures, failed_since, now() as at""",
        _LEASE_S,
        _CLAIMED,
    )


def _due(row: asyncpg.Record) -> _Due:
    standing = Standing(row["status"], row["outcome"], row["failures"], row["failed_since"])
    return _Due(row["link_id"], row["destination"], standing, row["at"])


async def _record(connection: Connection, asked: Sequence[_Due], outcomes: Mapping[str, str]) -> None:
    known = [one.standing.after(outcomes[one.destination], one.at) for one in asked]
    await connection.execute(
        """
        /* checker.record */
        update destination_checks
           set status = told.status, outcome = told.outcome, failures = told.failures,
               failed_since = told.failed_since, checked_at = now(), due_at = now() + interval '1 day'
          from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::timestamptz[])
               as told (link_id, destination, status, outcome, failures, failed_since)
          join links on links.id = told.link_id and links.destination = told.destination
         where destination_checks.link_id = told.link_id""",
        [one.link_id for one in asked],
        [one.destination for one in asked],
        [standing.status for standing in known],
        [standing.outcome for standing in known],
        [standing.failures for standing in known],
        [standing.failed_since for standing in known],
    )


async def _put_back(connection: Connection, link_ids: Sequence[int]) -> None:
    await connection.execute(
        "/* checker.put_back */ update destination_checks set due_at = now() where link_id = any($1)", link_ids
    )
