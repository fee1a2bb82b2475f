"""Clients: apps that were registered. One with a secret is confidential; one without can only ask people."""

import hmac
import re
from datetime import datetime
from typing import NamedTuple

from admin.database import Connection
from admin.errors import NotFound
from admin.http import ids
from admin.http.ids import new_id, random_base62
from admin.http.lists import Asked, Found, Listing, since, until
from admin.identity.keys import sha256

PREFIX = "client"
_SECRET_LENGTH = 43
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\])):[0-9]{1,5}(.*)", re.DOTALL)


class Client(NamedTuple):
    """A row of oauth_clients."""

    id: int
    public_id: str
    organization_id: int
    name: str
    redirect_uris: list[str]
    permissions: list[str]
    is_confidential: bool
    created_at: datetime

    @property
    def client_id(self) -> str:
        """What it calls itself."""
        return ids.shown(PREFIX, self.public_id)

    def may_be_answered_at(self, uri: str) -> bool:
        """Whether this is a redirect URI of its own, letter by letter, but for the port on the loopback interface.

        A native app learns its port from the system when it starts (RFC 8252 §7.3).
        """
        return _without_port(uri) in [_without_port(registered) for registered in self.redirect_uris]


def _without_port(uri: str) -> str:
    """Without the port if it is one on the loopback interface; `localhost` may be somewhere else (RFC 8252 §8.3)."""
    on_loopback = _LOOPBACK.fullmatch(uri)
    return on_loopback[1] + on_loopback[2] if on_loopback else uri


_COLUMNS = (
    "id, public_id, organization_id, name, redirect_uris, permissions, created_at,"
    " sha256 is not null as is_confidential"
)

LISTING = Listing(
    prefix=PREFIX,
    sorts={"createdAt": "created_at", "name": "name"},
    filters={"startDate": since("created_at"), "endDate": until("created_at")},
)


async def register(
    connection: Connection,
    organization_id: int,
    *,
    name: str,
    redirect_uris: list[str],
    permissions: list[str],
    is_confidential: bool,
) -> tuple[Client, str | None]:
    """A client, and its secret, which is kept nowhere."""
    secret = f"lcs_{random_base62(_SECRET_LENGTH)}" if is_confidential else None
    row = await connection.fetchrow(
        f"""
        /* clients.register */
        insert into oauth_clients (public_id, organization_id, name, redirect_uris, permissions, sha256)
        values ($1, $2, $3, $4, $5, $6)
        returning {_COLUMNS}""",  # noqa: S608
        new_id(),
        organization_id,
        name,
        redirect_uris,
        permissions,
        sha256(secret) if secret else None,
    )
    assert row is not None
    return Client(**row), secret


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """Clients that this organization has registered."""
    return await LISTING.run(
        connection,
        f"/* clients.page_of */ select {_COLUMNS} from oauth_clients"  # noqa: S608
        " where organization_id = $1 and revoked_at is null",
        [organization_id],
        asked,
    )


async def get(connection: Connection, organization_id: int, public_id: str) -> Client:
    """A client that this organization has registered. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"/* clients.get */ select {_COLUMNS} from oauth_clients"  # noqa: S608
        " where organization_id = $1 and public_id = $2 and revoked_at is null",
        organization_id,
        public_id,
    )
    if row is None:
        raise NotFound("There is no such OAuth client.")
    return Client(**row)


async def find(connection: Connection, client_id: str, secret: str | None = None) -> Client | None:
    """The client that calls itself so; None when there is none, or when it shows a secret that is not its own."""
    try:
        public_id = ids.read(PREFIX, client_id)
    except NotFound:
        return None
    row = await connection.fetchrow(
        f"/* clients.find */ select {_COLUMNS}, sha256 as kept from oauth_clients"  # noqa: S608
        " where public_id = $1 and revoked_at is null",
        public_id,
    )
    if row is None:
        return None
    facts = dict(row)
    kept = facts.pop("kept")
    if secret is not None and (kept is None or not hmac.compare_digest(kept, sha256(secret))):
        return None
    return Client(**facts)


async def revoke(connection: Connection, client: Client) -> None:
    """The client, and all that it was granted, is of no use within a second."""
    await connection.execute(
        "/* clients.revoke */ update oauth_clients set revoked_at = now() where id = $1", client.id
    )
