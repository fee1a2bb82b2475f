"""Sessions: one per login, for one organization. They are kept with refresh tokens, and end when one was stolen."""

from datetime import timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.errors import InvalidRefreshToken, TokenRevoked
from admin.http.ids import new_id
from admin.identity import refresh_tokens
from admin.identity.keys import sha256
from admin.sealing import Sealer

LASTS = timedelta(days=7)
LASTS_REMEMBERED = timedelta(days=30)


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
    return session, await refresh_tokens.make(connection, session_id=session.id)


async def refresh(connection: Connection, sealer: Sealer, token: str, client: str) -> tuple[Session, str] | None:
    """The session and its next refresh token; it lasts as long from now on as it did from its begin.

    `client` tells clients apart. None when the token was used before: then the session has been ended, and the caller
    commits that before it says so. Raises `InvalidRefreshToken`, `TokenRevoked`.
    """
    found = await refresh_tokens.find(connection, token, client)
    row = await connection.fetchrow(
        """
        /* sessions.refresh */
        select id, public_id, revoked_at is not null as is_revoked, expires_at <= now() as is_over
          from sessions where id = $1 for update""",
        found.session_id if found else None,
    )
    if found is None or row is None or row["is_over"]:
        raise InvalidRefreshToken
    if row["is_revoked"]:
        raise TokenRevoked
    if (following := await refresh_tokens.use(connection, sealer, found, client)) is None:
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
