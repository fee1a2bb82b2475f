"""Tokens that are sent by mail: whoever has one can read that mailbox. Each is good once; only its SHA-256 is kept."""

from datetime import timedelta

from admin.database import Connection
from admin.http.ids import random_base62
from admin.identity.keys import sha256

_LENGTH = 40
_VALID_FOR = {"verify": timedelta(days=2), "reset": timedelta(hours=1)}


async def make(connection: Connection, user_id: int, purpose: str) -> str:
    """A token to verify the user's address (`verify`) or to choose a new password (`reset`); older ones end."""
    await connection.execute(
        "/* mailed_tokens.make */ delete from mailed_tokens where user_id = $1 and purpose = $2", user_id, purpose
    )
    token = f"{purpose}_{random_base62(_LENGTH)}"
    await connection.execute(
        """
        /* mailed_tokens.make */
        insert into mailed_tokens (sha256, user_id, purpose, expires_at) values ($1, $2, $3, now() + $4)""",
        sha256(token),
        user_id,
        purpose,
        _VALID_FOR[purpose],
    )
    return token


async def is_good(connection: Connection, token: str, purpose: str) -> bool:
    """Whether it could be used now."""
    return bool(
        await connection.fetchval(
            """
            /* mailed_tokens.is_good */
            select exists (select from mailed_tokens
                            where sha256 = $1 and purpose = $2 and used_at is null and expires_at > now())""",
            sha256(token),
            purpose,
        )
    )


async def use(connection: Connection, token: str, purpose: str) -> int | None:
    """The user that it was sent to; None for a token that is unknown, used or too old."""
    user_id: int | None = await connection.fetchval(
        """
        /* mailed_tokens.use */
        update mailed_tokens set used_at = now()
         where sha256 = $1 and purpose = $2 and used_at is null and expires_at > now()
        returning user_id""",
        sha256(token),
        purpose,
    )
    return user_id


async def clear(connection: Connection) -> None:
    """Remove what is of no use any more."""
    await connection.execute("/* mailed_tokens.clear */ delete from mailed_tokens where expires_at < now()")
