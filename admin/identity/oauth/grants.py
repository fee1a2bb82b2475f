"""Grants: what was granted to a client. A code makes the first tokens of one; a refresh token makes the next.

Both are good once. One that is used twice was stolen, and ends its grant (RFC 9700 §2.1.1, §4.14.2). Within ten seconds
and from the same client the answer is taken for lost, and the same refresh token is given again (as in sessions.py).
"""

import base64
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.http.ids import new_id, random_base62
from admin.identity.keys import sha256
from admin.sealing import Sealer

_CODE_LASTS = timedelta(seconds=60)
_LASTS = timedelta(days=30)
_GRACE = timedelta(seconds=10)
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


async def make_refresh_token(connection: Connection, grant_id: int) -> str:
    """The first refresh token of a grant."""
    token = f"lor_{random_base62(_LENGTH)}"
    await connection.execute(
        "/* grants.make_refresh_token */ insert into oauth_refresh_tokens (sha256, grant_id) values ($1, $2)",
        sha256(token),
        grant_id,
    )
    return token


async def use_refresh_token(
    connection: Connection, sealer: Sealer, token: str, *, client_id: int, used_by: str
) -> tuple[Grant, str] | None:
    """The grant of a refresh token, which lasts on, and the next one.

    None for a token that is none, or was used: then its grant has ended.
    """
    row = await connection.fetchrow(
        """
        /* grants.use_refresh_token */
        select t.grant_id, t.used_at is not null as is_used, t.successor,
               t.used_at > now() - $3::interval and t.used_by = $4 as is_forgiven
          from oauth_refresh_tokens t join oauth_grants g on g.id = t.grant_id
         where t.sha256 = $1 and g.client_id = $2
           for update of t""",
        sha256(token),
        client_id,
        _GRACE,
        used_by,
    )
    if row is None:
        return None
    if not row["is_used"]:
        following = await make_refresh_token(connection, row["grant_id"])
        await _use(connection, token, used_by, sealer.seal(following.encode()))
    elif row["is_forgiven"] and await _is_unused(connection, opened := sealer.open(row["successor"]).decode()):
        following = opened
    else:
        await end(connection, row["grant_id"])
        return None
    await connection.execute(
        "/* grants.use_refresh_token */ update oauth_grants set expires_at = now() + $2"
        " where id = $1 and expires_at > now()",
        row["grant_id"],
        _LASTS,
    )
    grant = await _get(connection, row["grant_id"])
    return (grant, following) if grant else None


async def _use(connection: Connection, token: str, used_by: str, successor: bytes) -> None:
    await connection.execute(
        """
        /* grants.use */
        update oauth_refresh_tokens set used_at = now(), used_by = $2, successor = $3 where sha256 = $1""",
        sha256(token),
        used_by,
        successor,
    )


async def _is_unused(connection: Connection, token: str) -> bool:
    return bool(
        await connection.fetchval(
            "/* grants.is_unused */ select used_at is null from oauth_refresh_tokens where sha256 = $1", sha256(token)
        )
    )


async def by_refresh_token(connection: Connection, token: str, client_id: int) -> Grant | None:
    """The grant of a refresh token that has not been used."""
    grant_id = await connection.fetchval(
        """
        /* grants.by_refresh_token */
        select t.grant_id from oauth_refresh_tokens t join oauth_grants g on g.id = t.grant_id
         where t.sha256 = $1 and g.client_id = $2 and t.used_at is null""",
        sha256(token),
        client_id,
    )
    return await _get(connection, grant_id) if grant_id else None


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


async def _get(connection: Connection, grant_id: int) -> Grant | None:
    row = await connection.fetchrow(f"/* grants.get */ {_GRANT} and g.id = $1", grant_id)
    return Grant(**row) if row else None
