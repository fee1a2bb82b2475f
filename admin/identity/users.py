"""Users: people with an e-mail address and a password, and their memberships in organizations."""

from datetime import datetime
from typing import NamedTuple

import asyncpg

from admin.database import Connection
from admin.errors import EmailAlreadyExists, InvalidCredentials
from admin.http.ids import new_id


class User(NamedTuple):
    """A row of users."""

    id: int
    public_id: str
    email: str
    name: str
    avatar: str | None
    password_hash: str
    email_verified_at: datetime | None
    created_at: datetime
    last_login_at: datetime | None


_COLUMNS = "id, public_id, email, name, avatar, password_hash, email_verified_at, created_at, last_login_at"


async def create(connection: Connection, *, email: str, name: str, password_hash: str, is_verified: bool) -> User:
    """A user without an organization. Raises `EmailAlreadyExists`."""
    try:
        row = await connection.fetchrow(
            f"""
            /* users.create */
            insert into users (public_id, email, name, password_hash, email_verified_at)
            values ($1, $2, $3, $4, case when $5 then now() end)
            returning {_COLUMNS}""",  # noqa: S608
            new_id(),
            email,
            name,
            password_hash,
            is_verified,
        )
    except asyncpg.UniqueViolationError as error:
        raise EmailAlreadyExists from error
    assert row is not None
    return User(**row)


async def by_email(connection: Connection, email: str) -> User | None:
    """The user with this address (in normal form)."""
    row = await connection.fetchrow(
        f"/* users.by_email */ select {_COLUMNS} from users where email = $1",  # noqa: S608
        email,
    )
    return User(**row) if row else None


async def get(connection: Connection, user_id: int) -> User:
    """A user that exists."""
    row = await connection.fetchrow(
        f"/* users.get */ select {_COLUMNS} from users where id = $1",  # noqa: S608
        user_id,
    )
    assert row is not None
    return User(**row)


async def still(connection: Connection, user: User) -> User:
    """The user as they are now, locked. Raises `InvalidCredentials` when the password was changed meanwhile."""
    row = await connection.fetchrow(
        f"/* users.still */ select {_COLUMNS} from users where id = $1 and password_hash = $2 for update",  # noqa: S608
        user.id,
        user.password_hash,
    )
    if row is None:
        raise InvalidCredentials
    return User(**row)


async def change(connection: Connection, user_id: int, *, name: str, avatar: str | None) -> User:
    """What people may change of themselves."""
    row = await connection.fetchrow(
        f"/* users.change */ update users set name = $2, avatar = $3 where id = $1 returning {_COLUMNS}",  # noqa: S608
        user_id,
        name,
        avatar,
    )
    assert row is not None
    return User(**row)


async def set_password(connection: Connection, user_id: int, password_hash: str) -> None:
    """From now on this one counts."""
    await connection.execute(
        "/* users.set_password */ update users set password_hash = $2 where id = $1", user_id, password_hash
    )


async def verify_email(connection: Connection, user_id: int) -> None:
    """The user has shown that the address is theirs."""
    await connection.execute(
        "/* users.verify_email */ update users set email_verified_at = coalesce(email_verified_at, now())"
        " where id = $1",
        user_id,
    )


async def logged_in(connection: Connection, user_id: int) -> User:
    """Remember the login."""
    row = await connection.fetchrow(
        f"/* users.logged_in */ update users set last_login_at = now() where id = $1 returning {_COLUMNS}",  # noqa: S608
        user_id,
    )
    assert row is not None
    return User(**row)
