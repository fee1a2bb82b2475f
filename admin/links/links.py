"""Links: the rows. Every change takes a version and marks its addresses for publication (`publish.py`).

Changes of one address are serial: they hold an advisory lock on it until they commit, and take their version under that
lock. So per address a higher version is a later commit, which is what publication relies on.
"""

import secrets
from datetime import datetime
from typing import NamedTuple

import asyncpg

from admin.database import Connection
from admin.errors import AlreadyExists, NotFound
from admin.http import ids
from admin.http.lists import Asked, Filter, Found, Listing, since, until
from admin.links.fields import FILTERS
from shared.links import Address

PATH_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
"""Letters and digits without those that look alike (0 O, 1 l I)."""

PATH_LENGTH = 7
_RANDOM_TRIES = 8


class Link(NamedTuple):
    """A row of links."""

    id: int
    public_id: str
    owner_id: str
    hostname: str
    path: str
    destination: str
    title: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def address(self) -> Address:
        """Where it is followed."""
        return Address(self.hostname, self.path)


_COLUMNS = "id, public_id, owner_id, hostname, path, destination, title, created_at, updated_at"

LISTING = Listing(
    prefix="",
    sorts={
        "createdAt": "created_at",
        "updatedAt": "updated_at",
        "title": "coalesce(title, '')",  # nulls would be above all others
        "hostname": "hostname",
        "path": "path",
    },
    filters={
        "hostname": Filter("hostname = {}", FILTERS["hostname"], "Only links on this hostname."),
        "path": Filter("path = {}", FILTERS["path"], "Only links with this path."),
        "destination": Filter("destination = {}", FILTERS["destination"], "Only links that lead here."),
        "title": Filter("title = {}", FILTERS["title"], "Only links with this title."),
        "startDate": since("created_at"),
        "endDate": until("created_at"),
    },
    limit_is_per_page=True,  # as the Linkkit document has it
)


async def get(connection: Connection, organization_id: int, public_id: str, *, lock: bool = False) -> Link:
    """A link of this organization, locked against other changes if asked. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"/* links.get */ select {_COLUMNS} from links where organization_id = $1 and public_id = $2"  # noqa: S608
        + (" for update" if lock else ""),
        organization_id,
        ids.read("", public_id),
    )
    if row is None:
        raise NotFound("There is no such link.")
    return Link(**row)


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """Links of this organization."""
    return await LISTING.run(
        connection,
        f"/* links.page_of */ select {_COLUMNS} from links where organization_id = $1",  # noqa: S608
        [organization_id],
        asked,
    )


async def create(
    connection: Connection,
    *,
    organization_id: int,
    owner_id: str,
    hostname: str,
    path: str | None,
    destination: str,
    title: str | None,
) -> Link:
    """A new link; without a path it gets a random one. Raises `AlreadyExists`."""
    for _ in range(_RANDOM_TRIES):
        address = Address(hostname, path or _random_path())
        await _lock(connection, address)
        row = await connection.fetchrow(
            f"""
            /* links.create */
            insert into links (public_id, organization_id, owner_id, hostname, path, destination, title, version,
                               created_at, updated_at)
            values ($1, $2, $3, $4, $5, $6, $7, nextval('versions'),
                    date_trunc('milliseconds', now()), date_trunc('milliseconds', now()))
            on conflict (hostname, path) do nothing
            returning {_COLUMNS}""",  # noqa: S608
            ids.new_id(),
            organization_id,
            owner_id,
            *address,
            destination,
            title,
        )
        if row is not None:
            await _mark(connection, address)
            return Link(**row)
        if path is not None:
            break
    raise AlreadyExists("There is a link at this hostname and path already.")


async def update(connection: Connection, link: Link, wanted: Link) -> Link:
    """Give a link that was read with `lock` the address, destination and title that are wanted.

    Raises `AlreadyExists`.
    """
    await _lock(connection, link.address, wanted.address)
    try:
        row = await connection.fetchrow(
            f"""
            /* links.update */
            update links
               set hostname = $2, path = $3, destination = $4, title = $5, version = nextval('versions'),
                   updated_at = greatest(date_trunc('milliseconds', now()), updated_at + interval '1 millisecond')
             where id = $1
            returning {_COLUMNS}""",  # noqa: S608
            link.id,
            *wanted.address,
            wanted.destination,
            wanted.title,
        )
    except asyncpg.UniqueViolationError as error:
        raise AlreadyExists("There is a link at this hostname and path already.") from error
    await _mark(connection, link.address, wanted.address)
    assert row is not None
    return Link(**row)


async def delete(connection: Connection, link: Link) -> None:
    """Remove a link that was read with `lock`. Its clicks stay."""
    await _lock(connection, link.address)
    await connection.execute("/* links.delete */ delete from links where id = $1", link.id)
    await _mark(connection, link.address)


async def mark_stray(connection: Connection, address: Address) -> None:
    """Have an address published again, also when no link is there (any more)."""
    await _lock(connection, address)
    await _mark(connection, address)


async def _lock(connection: Connection, *addresses: Address) -> None:
    # In one order everywhere, so that two changes that swap addresses can't wait for each other.
    for key in sorted({address.key for address in addresses}):
        await connection.execute("/* links.lock */ select pg_advisory_xact_lock(hashtextextended($1, 0))", key)


async def _mark(connection: Connection, *addresses: Address) -> None:
    for address in sorted(set(addresses)):
        await connection.execute(
            "/* links.mark */ insert into unpublished (version, hostname, path) values (nextval('versions'), $1, $2)",
            *address,
        )


def _random_path() -> str:
    return "/" + "".join(secrets.choice(PATH_ALPHABET) for _ in range(PATH_LENGTH))
