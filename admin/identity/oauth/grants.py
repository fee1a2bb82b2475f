"""Grants: what was granted to a client. A code makes the first tokens of one; a refresh token makes the next.

Both are good once. A code that is used twice was stolen and ends its grant (RFC 9700 §2.1.1), and so does a stolen
refresh token. What a person has granted ends with their membership and their password, too. Whoever ends a grant, and
why, is in the audit log of the organization that it was for.
"""

import base64
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from asyncpg import Record

from admin.database import Connection
from admin.errors import NotFound
from admin.http import ids
from admin.http.ids import new_id, random_base62
from admin.http.lists import Asked, Filter, Found, Listing, since, text, until
from admin.identity import access_tokens, audit, refresh_tokens
from admin.identity.keys import sha256
from admin.identity.principal import Principal
from admin.sealing import Sealer

PREFIX = "grant"

_CODE_LASTS = timedelta(seconds=60)
_LASTS = timedelta(days=30)
_LASTS_ALONE = timedelta(seconds=access_tokens.LASTS_S + 60)
"""Of a client that acts for itself: as long as its only access token, whatever the clock says."""
_MOST = 100
"""Grants of one person: so many can be ended at once."""
_LENGTH = 43

Reason = Literal[
    "revoked", "code_reused", "refresh_token_reused", "password_changed", "member_removed", "too_many_grants"
]
"""Why a grant has ended."""


class Grant(NamedTuple):
    """A row of oauth_grants that has not ended, and whom it concerns."""

    id: int
    public_id: str
    client_id: int
    client: str
    """The public id of the client."""
    client_name: str
    organization_id: int
    organization: str
    """The public id of the organization that the client acts for."""
    organization_name: str
    user: str | None
    """The public id of whoever gave it; None for a client that acts for itself."""
    user_name: str | None
    permissions: list[str]
    created_at: datetime
    expires_at: datetime

    @property
    def shown_id(self) -> str:
        """Its id on the wire."""
        return ids.shown(PREFIX, self.public_id)

    @property
    def subject(self) -> str:
        """Whom its tokens speak for: the person, or the client itself (RFC 9068 §2.2)."""
        return ids.shown("client", self.client) if self.user is None else ids.shown("user", self.user)


_NOT_OVER = """
    select g.id, g.public_id, g.client_id, c.public_id as client, c.name as client_name,
           g.organization_id, o.public_id as organization, o.name as organization_name,
           u.public_id as "user", coalesce(nullif(u.name, ''), u.email) as user_name,
           g.permissions, g.created_at, g.expires_at
      from oauth_grants g
      join oauth_clients c on c.id = g.client_id
      join organizations o on o.id = g.organization_id
      left join users u on u.id = g.user_id
      left join memberships m on m.organization_id = g.organization_id and m.user_id = g.user_id
     where g.revoked_at is null and g.expires_at > now()"""
_LIVING = f"{_NOT_OVER} and c.revoked_at is null and (g.user_id is null or m.user_id is not null)"

LISTING = Listing(
    prefix=PREFIX,
    sorts={"createdAt": "g.created_at", "expiresAt": "g.expires_at", "clientName": "c.name"},
    filters={
        "clientId": Filter("'client_' || c.public_id = {}", text),
        "startDate": since("g.created_at"),
        "endDate": until("g.created_at"),
    },
    id_column="g.public_id",
)


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """What people have granted for this organization."""
    return await LISTING.run(
        connection,
        f"/* grants.page_of */ {_LIVING} and g.organization_id = $1 and g.user_id is not null",
        [organization_id],
        asked,
    )


async def page_by(connection: Connection, user_id: int, asked: Asked) -> Found:
    """What this user has granted, for whichever organization."""
    return await LISTING.run(connection, f"/* grants.page_by */ {_LIVING} and g.user_id = $1", [user_id], asked)


async def get(connection: Connection, organization_id: int, public_id: str) -> Grant:
    """What a person has granted for this organization. Raises `NotFound`."""
    return _found(
        await connection.fetchrow(
            f"/* grants.get */ {_LIVING} and g.public_id = $2 and g.organization_id = $1 and g.user_id is not null",
            organization_id,
            public_id,
        )
    )


async def get_by(connection: Connection, user_id: int, public_id: str) -> Grant:
    """What this user has granted. Raises `NotFound`."""
    return _found(
        await connection.fetchrow(
            f"/* grants.get_by */ {_LIVING} and g.public_id = $2 and g.user_id = $1", user_id, public_id
        )
    )


def _found(row: Record | None) -> Grant:
    if row is None:
        raise NotFound("There is no such grant.")
    return Grant(**row)


async def give(
    connection: Connection, client_id: int, organization_id: int, user_id: int | None, permissions: list[str]
) -> Grant:
    """A grant without tokens. The user is a member of the organization."""
    grant_id = await connection.fetchval(
        """
        /* grants.give */
        insert into oauth_grants (public_id, client_id, organization_id, user_id, permissions, expires_at)
        values ($1, $2, $3, $4, $5, now() + $6)
        returning id""",
        new_id(),
        client_id,
        organization_id,
        user_id,
        permissions,
        _LASTS_ALONE if user_id is None else _LASTS,
    )
    grant = await _living(connection, grant_id)
    assert grant is not None
    return grant


async def make_room(connection: Connection, user_id: int, who: Principal) -> None:
    """End the oldest grants of a user, so that there is room for another one."""
    rows = await connection.fetch(
        f"/* grants.make_room */ {_NOT_OVER} and g.user_id = $1 order by g.public_id desc offset $2", user_id, _MOST - 1
    )
    for row in rows:
        await end(connection, Grant(**row), who, "too_many_grants")


async def make_code(connection: Connection, grant: Grant, *, redirect_uri: str, challenge: str) -> str:
    """A code that is good once, for a minute, at this redirect URI, with the verifier of this challenge."""
    code = f"lac_{random_base62(_LENGTH)}"
    await connection.execute(
        """
        /* grants.make_code */
        insert into oauth_codes (sha256, grant_id, redirect_uri, challenge, expires_at)
        values ($1, $2, $3, $4, now() + $5)""",
        sha256(code),
        grant.id,
        redirect_uri,
        challenge,
        _CODE_LASTS,
    )
    return code


async def use_code(
    connection: Connection, code: str, *, client_id: int, redirect_uri: str, verifier: str, who: Principal
) -> Grant | None:
    """The grant of a code; None for one that is none, or not for this client, or used: then its grant ends."""
    row = await connection.fetchrow(
        """
        /* grants.use_code */
        select c.grant_id, c.redirect_uri, c.challenge, c.used_at is not null as is_used,
               c.expires_at <= now() as is_old
          from oauth_codes c join oauth_grants g on g.id = c.grant_id
         where c.sha256 = $1 and g.client_id = $2
           for update of c""",
        sha256(code),
        client_id,
    )
    grant = await _living(connection, row["grant_id"]) if row else None
    if row is None or grant is None:
        return None
    if row["is_used"]:
        await end(connection, grant, who, "code_reused")
        return None
    await connection.execute(
        "/* grants.use_code */ update oauth_codes set used_at = now() where sha256 = $1", sha256(code)
    )
    is_right = hmac.compare_digest(s256(verifier), row["challenge"]) and redirect_uri == row["redirect_uri"]
    return grant if is_right and not row["is_old"] else None


def s256(verifier: str) -> str:
    """The challenge of a verifier (RFC 7636 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


async def use_refresh_token(
    connection: Connection, sealer: Sealer, token: str, *, client_id: int, used_by: str, who: Principal
) -> tuple[Grant, str] | None:
    """The grant of a refresh token, which lasts on, and the next one.

    None for a token that is none of this client's, or was stolen: then its grant has ended.
    """
    found = await refresh_tokens.find(connection, token, used_by)
    if found is None or not (grant := await _of_client(connection, found.grant_id, client_id)):
        return None
    if (following := await refresh_tokens.use(connection, sealer, found, used_by)) is None:
        await end(connection, grant, who, "refresh_token_reused")
        return None
    await connection.execute(
        "/* grants.use_refresh_token */ update oauth_grants set expires_at = now() + $2 where id = $1",
        grant.id,
        _LASTS,
    )
    return grant, following


async def by_refresh_token(
    connection: Connection, token: str, client_id: int, *, even_used: bool = False
) -> Grant | None:
    """The grant of a refresh token that can still be used, or of any that it ever had."""
    found = await refresh_tokens.find(connection, token)
    if found is None or (found.is_used and not even_used):
        return None
    return await _of_client(connection, found.grant_id, client_id)


async def by_public_id(connection: Connection, public_id: str, client_id: int) -> Grant | None:
    """The grant that an access token names."""
    row = await connection.fetchrow(
        f"/* grants.by_public_id */ {_LIVING} and g.public_id = $1 and g.client_id = $2", public_id, client_id
    )
    return Grant(**row) if row else None


async def end(connection: Connection, grant: Grant, who: Principal, reason: Reason) -> None:
    """Its tokens are of no use within a second."""
    has_ended = await connection.fetchval(
        """
        /* grants.end */
        update oauth_grants set revoked_at = now() where id = $1 and revoked_at is null returning true""",
        grant.id,
    )
    if has_ended:
        actor = who._replace(organization_id=grant.organization_id)
        client = ids.shown("client", grant.client)
        await audit.record(connection, actor, "grant.ended", grant.shown_id, client=client, reason=reason)


async def end_all(connection: Connection, user_id: int, who: Principal, reason: Reason) -> None:
    """All that a user has granted ends."""
    for row in await connection.fetch(f"/* grants.end_all */ {_NOT_OVER} and g.user_id = $1", user_id):
        await end(connection, Grant(**row), who, reason)


async def end_membership(connection: Connection, user_id: int, organization_id: int, who: Principal) -> None:
    """All that a user has granted for one organization ends with their membership in it."""
    rows = await connection.fetch(
        f"/* grants.end_membership */ {_NOT_OVER} and g.user_id = $1 and g.organization_id = $2",
        user_id,
        organization_id,
    )
    for row in rows:
        await end(connection, Grant(**row), who, "member_removed")


async def clear(connection: Connection) -> None:
    """Remove what has long been over; what a client got for itself, at once: there may be much of it."""
    await connection.execute(
        """
        /* grants.clear */
        delete from oauth_grants
         where expires_at < now() and (user_id is null or expires_at < now() - interval '30 days')"""
    )


async def _living(connection: Connection, grant_id: int | None) -> Grant | None:
    row = await connection.fetchrow(f"/* grants.living */ {_LIVING} and g.id = $1", grant_id)
    return Grant(**row) if row else None


async def _of_client(connection: Connection, grant_id: int | None, client_id: int) -> Grant | None:
    grant = await _living(connection, grant_id)
    return grant if grant and grant.client_id == client_id else None
