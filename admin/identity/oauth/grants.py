"""Grants: what was granted to a client. A code makes the first tokens of one; a refresh token makes the next.

Both are good once. A code that is used twice was stolen and ends its grant (RFC 9700 §2.1.1), and so does a stolen
refresh token.
"""

import base64
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.http.ids import new_id, random_base62
from admin.identity import refresh_tokens
from admin.identity.keys import sha256
from admin.sealing import Sealer

_CODE_LASTS = timedelta(seconds=60)
_LASTS = timedelta(days=30)
_LENGTH = 43


class Grant(NamedTuple):
    """A row of oauth_grants that has not ended."""

    id: int
    public_id: str
    client_id: int
    organization_id: int
    user: str | None
    """The public id of whoever gave it; None for client credentials."""
    permissions: list[str]
    expires_at: datetime


_GRANT = """
    select g.id, g.public_id, g.client_id, g.organization_id, u.public_id as "user", g.permissions, g.expires_at
      from oauth_grants g left join users u on u.id = g.user_id
     where g.revoked_at is null and g.expires_at > now()"""


async def give(
    connection: Connection, client_id: int, organization_id: int, user_id: int | None, permissions: list[str]
) -> Grant:
    """A grant without tokens."""
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
        _LASTS,
    )
    grant = await _get(connection, grant_id)
    assert grant is not None
    return grant


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
    connection: Connection, code: str, *, client_id: int, redirect_uri: str, verifier: str
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
    if row is None:
        return None
    if row["is_used"]:
        await end(connection, row["grant_id"])
        return None
    await connection.execute(
        "/* grants.use_code */ update oauth_codes set used_at = now() where sha256 = $1", sha256(code)
    )
    is_right = hmac.compare_digest(s256(verifier), row["challenge"]) and redirect_uri == row["redirect_uri"]
    return await _get(connection, row["grant_id"]) if is_right and not row["is_old"] else None


def s256(verifier: str) -> str:
    """The challenge of a verifier (RFC 7636 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


async def use_refresh_token(
    connection: Connection, sealer: Sealer, token: str, *, client_id: int, used_by: str
) -> tuple[Grant, str] | None:
    """The grant of a refresh token, which lasts on, and the next one.

    None for a token that is none of this client's, or was stolen: then its grant has ended.
    """
    found = await refresh_tokens.find(connection, token, used_by)
    if found is None or not (grant := await _of_client(connection, found.grant_id, client_id)):
        return None
    if (following := await refresh_tokens.use(connection, sealer, found, used_by)) is None:
        await end(connection, grant.id)
        return None
    await connection.execute(
        "/* grants.use_refresh_token */ update oauth_grants set expires_at = now() + $2 where id = $1",
        grant.id,
        _LASTS,
    )
    return grant, following


async def by_refresh_token(connection: Connection, token: str, client_id: int) -> Grant | None:
    """The grant of a refresh token that has not been used."""
    found = await refresh_tokens.find(connection, token)
    return await _of_client(connection, found.grant_id, client_id) if found and not found.is_used else None


async def _of_client(connection: Connection, grant_id: int | None, client_id: int) -> Grant | None:
    grant = await _get(connection, grant_id)
    return grant if grant and grant.client_id == client_id else None


async def by_public_id(connection: Connection, public_id: str, client_id: int) -> Grant | None:
    """The grant that an access token names."""
    row = await connection.fetchrow(
        f"/* grants.by_public_id */ {_GRANT} and g.public_id = $1 and g.client_id = $2", public_id, client_id
    )
    return Grant(**row) if row else None


async def end(connection: Connection, grant_id: int) -> None:
    """Its tokens are of no use within a second."""
    await connection.execute(
        "/* grants.end */ update oauth_grants set revoked_at = coalesce(revoked_at, now()) where id = $1", grant_id
    )


async def clear(connection: Connection) -> None:
    """Remove what has long been over."""
    await connection.execute(
        "/* grants.clear */ delete from oauth_grants where expires_at < now() - interval '30 days'"
    )


async def _get(connection: Connection, grant_id: int | None) -> Grant | None:
    row = await connection.fetchrow(f"/* grants.get */ {_GRANT} and g.id = $1", grant_id)
    return Grant(**row) if row else None
