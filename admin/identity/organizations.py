"""Organizations and the people in them."""

import argon2

from admin.database import Connection
from admin.identity.keys import random_base62


async def first(connection: Connection) -> int | None:
    """The id of the oldest organization; None while there is none."""
    organization_id: int | None = await connection.fetchval(
        "/* organizations.first */ select id from organizations order by id limit 1"
    )
    return organization_id


async def create(connection: Connection, *, name: str, tier: str, email: str, password: str) -> int:
    """An organization and its owner; the organization's id. The password is kept as argon2id."""
    organization_id: int = await connection.fetchval(
        "/* organizations.create */ insert into organizations (public_id, name, tier) values ($1, $2, $3) returning id",
        random_base62(16),
        name,
        tier,
    )
    await connection.execute(
        """
        /* organizations.create */
        with owner as (
            insert into users (public_id, email, password_hash) values ($2, $3, $4) returning id
        )
        insert into memberships (organization_id, user_id, role) select $1, id, 'owner' from owner""",
        organization_id,
        random_base62(16),
        email,
        argon2.PasswordHasher().hash(password),
    )
    return organization_id
