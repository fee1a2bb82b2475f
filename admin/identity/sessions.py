"""Sessions: one per login, for one organization. A refresh token is good once and makes the next one.

A refresh token that is used a second time was stolen, or its answer was lost: within ten seconds and from the same
client it is taken for lost, and the same answer is given again, so that there is never a second branch; otherwise the
session ends (RFC 9700 §4.14.2).
"""

from datetime import timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.errors import InvalidRefreshToken, TokenRevoked
from admin.http.ids import new_id, random_base62
from admin.identity.keys import sha256
from admin.sealing import Sealer

LASTS = timedelta(days=7)
LASTS_REMEMBERED = timedelta(days=30)
_GRACE = timedelta(seconds=10)
_TOKEN_LENGTH = 43


class Session(NamedTuple):
    """A login that has not ended."""

    id: int
    public_id: str
    user_id: int
    organization_id: int


_COLUMNS = "id, public_id, user_id, organization_id"


async def begin(
    connection: Connection, user_id: int, organization_id: int, *, is_remembered: bool
) -> tuple[Session, str]:
    """A session and its first refresh token."""
    row = await connection.fetchrow(
        f"""
        /* sessions.begin */
        insert into sessions (public_id, user_id, organization_id, is_remembered, expires_at)
        values ($1, $2, $3, $4, now() + $5)
        returning {_COLUMNS}""",  # noqa: S608
        new_id(),
        user_id,
        organization_id,
        is_remembered,
        LASTS_REMEMBERED if is_remembered else LASTS,
    )
    assert row is not None
    session = Session(**row)
    return session, await _refresh_token(connection, session.id)


async def refresh(connection: Connection, sealer: Sealer, token: str, client: str) -> tuple[Session, str] | None:
    """The session and its next refresh token; it lasts as long from now on as it did from its begin.

    `client` tells clients apart. None when the token was used before: then the session has been ended, and the caller
    commits that before it says so. Raises `InvalidRefreshToken`, `TokenRevoked`.
    """
    row = await connection.fetchrow(
        """
        /* sessions.refresh */
        select s.id, s.public_id, s.revoked_at is not null as is_revoked, s.expires_at <= now() as is_over,
               t.used_at is not null as is_used, t.used_at > now() - $2::interval and t.used_by = $3 as is_forgiven,
               t.successor
          from refresh_tokens t join sessions s on s.id = t.session_id
         where t.sha256 = $1
           for update""",
        sha256(token),
        _GRACE,
        client,
    )
    if row is None or row["is_over"]:
        raise InvalidRefreshToken
    if row["is_revoked"]:
        raise TokenRevoked
    if not row["is_used"]:
        following = await _refresh_token(connection, row["id"])
        await _use(connection, token, client, sealer.seal(following.encode()))
    elif row["is_forgiven"] and await _is_unused(connection, opened := sealer.open(row["successor"]).decode()):
        following = opened
    else:
        await end(connection, row["public_id"])
        return None
    session = await connection.fetchrow(
        f"""
        /* sessions.refresh */
        update sessions set expires_at = now() + case when is_remembered then $2::interval else $3 end where id = $1
        returning {_COLUMNS}""",  # noqa: S608
        row["id"],
        LASTS_REMEMBERED,
        LASTS,
    )
    assert session is not None
    return Session(**session), following


async def _use(connection: Connection, token: str, client: str, successor: bytes) -> None:
    await connection.execute(
        "/* sessions.use */ update refresh_tokens set used_at = now(), used_by = $2, successor = $3 where sha256 = $1",
        sha256(token),
        client,
        successor,
    )


async def _is_unused(connection: Connection, token: str) -> bool:
    return bool(
        await connection.fetchval(
            "/* sessions.is_unused */ select used_at is null from refresh_tokens where sha256 = $1", sha256(token)
        )
    )


async def by_token(connection: Connection, token: str) -> Session | None:
    """The session that a refresh token was made for, used or not; None when there is none or it has ended."""
    row = await connection.fetchrow(
        """
        /* sessions.by_token */
        select s.id, s.public_id, s.user_id, s.organization_id
          from refresh_tokens t join sessions s on s.id = t.session_id
         where t.sha256 = $1 and s.revoked_at is null and s.expires_at > now()""",
        sha256(token),
    )
    return Session(**row) if row else None


async def by_public_id(connection: Connection, public_id: str) -> Session | None:
    """The session; None when it has ended."""
    row = await connection.fetchrow(
        f"/* sessions.by_public_id */ select {_COLUMNS} from sessions"  # noqa: S608
        " where public_id = $1 and revoked_at is null and expires_at > now()",
        public_id,
    )
    return Session(**row) if row else None


async def end(connection: Connection, public_id: str) -> None:
    """The session is over: within a second, everywhere."""
    await connection.execute(
        "/* sessions.end */ update sessions set revoked_at = coalesce(revoked_at, now()) where public_id = $1",
        public_id,
    )


async def end_all(connection: Connection, user_id: int, *, but: str = "") -> None:
    """All sessions of a user are over, but the one with this public id."""
    await connection.execute(
        """
        /* sessions.end_all */
        update sessions set revoked_at = now() where user_id = $1 and revoked_at is null and public_id <> $2""",
        user_id,
        but,
    )


async def end_membership(connection: Connection, user_id: int, organization_id: int) -> None:
    """All sessions of a user for one organization are over."""
    await connection.execute(
        """
        /* sessions.end_membership */
        update sessions set revoked_at = now() where user_id = $1 and organization_id = $2 and revoked_at is null""",
        user_id,
        organization_id,
    )


async def clear(connection: Connection) -> None:
    """Remove what has long been over."""
    await connection.execute("/* sessions.clear */ delete from sessions where expires_at < now() - interval '30 days'")


async def _refresh_token(connection: Connection, session_id: int) -> str:
    token = f"rt_{random_base62(_TOKEN_LENGTH)}"
    await connection.execute(
        "/* sessions.refresh_token */ insert into refresh_tokens (sha256, session_id) values ($1, $2)",
        sha256(token),
        session_id,
    )
    return token
