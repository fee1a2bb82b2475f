"""What is taken: addresses and external ids, which one link has at most, and random paths that nobody has yet.

A deleted link keeps both until it is cleared. It may be there for a while when it should be no more; whoever wants what
it has then clears it on the way.
"""

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple, Protocol

import asyncpg

from admin.database import Connection
from shared.links import Address

PATH_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
"""Letters and digits without those that look alike (0 O, 1 l I)."""

PATH_LENGTH = 7
RESTORABLE_H = 24
"""How long a deleted link keeps its address, and can be restored."""

IS_THERE = f"""
    (deleted_at is null or reported_at is not null or deleted_at > now() - interval '{RESTORABLE_H} hours')"""
"""In SQL: whether a link is still anybody's. Others are as good as cleared, and only wait for it."""


class Wanted(Protocol):
    """What a link wants to have."""

    @property
    def id(self) -> int:
        """0 while it is new."""

    @property
    def organization_id(self) -> int:
        """Whose it is."""

    @property
    def address(self) -> Address:
        """Without a path for one that gets a random one."""

    @property
    def known_as(self) -> tuple[int, str] | None:
        """The organization and its own id of the link, if it has one."""


class Holders(NamedTuple):
    """The ids of links that have addresses and external ids which others want."""

    of_addresses: dict[Address, int]
    of_external_ids: dict[tuple[int, str], int]

    def of(self, wanted: Wanted) -> set[int]:
        """Those that have what this one wants, apart from itself."""
        ids = {self.of_addresses.get(wanted.address, wanted.id)}
        if wanted.known_as:
            ids.add(self.of_external_ids.get(wanted.known_as, wanted.id))
        return ids - {wanted.id}

    def entangle(self, wanted: Sequence[Wanted], changing: Set[int]) -> bool:
        """Whether one wants what another one wants, too, or has that is changing: then it matters which is first."""
        times = Counter[object]([*(one.address for one in wanted), *known_as(wanted)])
        return any(self.of(one) & changing for one in wanted) or max(times.values(), default=0) > 1


async def holders(connection: Connection, wanted: Sequence[Wanted]) -> Holders:
    """Who has what these want, which must be locked. Links that are there no more are cleared, and have nothing."""
    ids = known_as(wanted)
    rows = await connection.fetch(
        f"""
        /* taken.holders */
        select id, hostname, path, organization_id, external_id, {IS_THERE} as is_there from links
         where (hostname, path) in (select * from unnest($1::text[], $2::text[]))
        union
        select id, hostname, path, organization_id, external_id, {IS_THERE} as is_there from links
         where (organization_id, external_id) in (select * from unnest($3::bigint[], $4::text[]))""",  # noqa: S608
        [one.address.hostname for one in wanted],
        [one.address.path for one in wanted],
        [organization_id for organization_id, _ in ids],
        [external_id for _, external_id in ids],
    )
    gone = [row["id"] for row in rows if not row["is_there"]]
    cleared = await _clear(connection, gone) if gone else set()
    there = [row for row in rows if row["id"] not in cleared]
    return Holders(
        {Address(row["hostname"], row["path"]): row["id"] for row in there},
        {(row["organization_id"], row["external_id"]): row["id"] for row in there},
    )


async def _clear(connection: Connection, link_ids: Sequence[int]) -> set[int]:
    """Clear those of these links that nobody else is at just now: two that wait for each other would wait for ever."""
    rows = await connection.fetch(
        f"""
        /* taken.clear */
        delete from links
         where id in (select id from links where id = any($1) and not {IS_THERE} for update skip locked)
        returning id""",  # noqa: S608
        link_ids,
    )
    return {row["id"] for row in rows}


def known_as(wanted: Iterable[Wanted]) -> list[tuple[int, str]]:
    """The external ids of those that have one."""
    return [one.known_as for one in wanted if one.known_as]


async def why(connection: Connection, wanted: Sequence[Wanted]) -> list[str]:
    """Why there can't be links like these, for whoever wants them."""
    rows = await connection.fetch(
        """
        /* taken.why */
        select hostname, path, organization_id, deleted_at is not null as is_deleted,
               reported_at is not null as is_reported
          from links
         where (hostname, path) in (select * from unnest($1::text[], $2::text[]))""",
        [one.address.hostname for one in wanted],
        [one.address.path for one in wanted],
    )
    there = {Address(row["hostname"], row["path"]): row for row in rows}
    return [_why(one, there.get(one.address)) for one in wanted]


def _why(wanted: Wanted, there: asyncpg.Record | None) -> str:
    if there is None:
        return "There is a link with this externalId already."
    if there["is_deleted"] and there["organization_id"] == wanted.organization_id:
        how_long = "" if there["is_reported"] else f" for {RESTORABLE_H} hours"
        return f"A deleted link keeps this address{how_long}; {way_out(there['is_reported'])}"
    return "There is a link at this hostname and path already."


def way_out(is_reported: bool) -> str:
    """What its owner can do about a deleted link that keeps what another one wants."""
    return "it was reported, and can only be restored." if is_reported else "restore it, or delete it with purge=true."


def random_path() -> str:
    """For a link whose path nobody chose."""
    return "/" + "".join(secrets.choice(PATH_ALPHABET) for _ in range(PATH_LENGTH))
