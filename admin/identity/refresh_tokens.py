"""Refresh tokens, of sessions and of what was granted to OAuth clients. Each is good once and makes the next.

One that is used a second time was stolen, or its answer was lost. Within ten seconds and from the same client it is
taken for lost, and the same next token is given again, so that there is never a second branch; otherwise whoever asks
ends the session or the grant (RFC 9700 §4.14.2).
"""

from datetime import timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.http.ids import random_base62
from admin.identity.keys import sha256
from admin.sealing import Sealer

_GRACE = timedelta(seconds=10)
_LENGTH = 43


class RefreshToken(NamedTuple):
    """A row of refresh_tokens, of a session or of a grant."""

    sha256: bytes
    session_id: int | None
    grant_id: int | None
    is_used: bool
    is_forgiven: bool | None
    """Whether a second use now, by the client that was named, means that an answer was lost."""
    successor: bytes | None
    """Sealed."""


async def make(connection: Connection, *, session_id: int | None = None, grant_id: int | None = None) -> str:
    """A token of this session, or of this grant."""
    token = f"{'rt' if grant_id is None else 'lor'}_{random_base62(_LENGTH)}"
    await connection.execute(
        "/* refresh_tokens.make */ insert into refresh_tokens (sha256, session_id, grant_id) values ($1, $2, $3)",
        sha256(token),
        session_id,
        grant_id,
    )
    return token


async def find(connection: Connection, token: str, client: str = "") -> RefreshToken | None:
    """The token, locked until it is known what becomes of it. `client` tells clients apart."""
    row = await connection.fetchrow(
        """
        /* refresh_tokens.find */
        select sha256, session_id, grant_id, used_at is not null as is_used,
               used_at > now() - $2::interval and used_by = $3 as is_forgiven, successor
          from refresh_tokens where sha256 = $1 for update""",
        sha256(token),
        _GRACE,
        client,
    )
    return RefreshToken(**row) if row else None


async def use(connection: Connection, sealer: Sealer, token: RefreshToken, client: str) -> str | None:
    """The next token; None when this one was stolen."""
    if token.is_used:
        following = sealer.open(token.successor).decode() if token.is_forgiven and token.successor else ""
        found = await find(connection, following)
        return following if found and not found.is_used else None
    following = await make(connection, session_id=token.session_id, grant_id=token.grant_id)
    await connection.execute(
        """
        /* refresh_tokens.use */
        update refresh_tokens set used_at = now(), used_by = $2, successor = $3 where sha256 = $1""",
        token.sha256,
        client,
        sealer.seal(following.encode()),
    )
    return following
