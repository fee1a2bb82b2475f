"""API keys: `lk_live_` or `lk_test_`, 32 random characters, and six that check them. Only the SHA-256 of a key is kept.

A key that is revoked stays as a row, so that a list that asks for it can tell; otherwise it is gone.
"""

import hashlib
import zlib
from datetime import datetime, timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.errors import NotFound
from admin.http.ids import base62, new_id, random_base62
from admin.http.lists import Asked, Filter, Found, Listing, one_of, since, until

PREFIXES = {"live": "lk_live_", "test": "lk_test_"}
_PREFIX_LENGTH = 8
_RANDOM = 32
_CHECK = 6
_ENDING = 4


def new_key(environment: str = "live") -> str:
    """A key that nobody has; 190 bits of it are random."""
    body = random_base62(_RANDOM)
    return f"{PREFIXES[environment]}{body}{_check(body)}"


def is_well_formed(key: str) -> bool:
    """Whether the shape and the check characters are right: a typing mistake costs no query."""
    body, check = key[_PREFIX_LENGTH:-_CHECK], key[-_CHECK:]
    return (
        key[:_PREFIX_LENGTH] in PREFIXES.values()
        and len(body) == _RANDOM
        and body.isascii()
        and body.isalnum()
        and check == _check(body)
    )


def _check(body: str) -> str:
    return base62(zlib.crc32(body.encode("ascii")), _CHECK)


def sha256(secret: str) -> bytes:
    """What is kept of a secret with so much chance in it that nobody can try them all."""
    return hashlib.sha256(secret.encode()).digest()


class ApiKey(NamedTuple):
    """A row of api_keys, without what the key is."""

    id: int
    public_id: str
    name: str
    environment: str
    ending: str
    permissions: list[str]
    created_at: datetime
    created_by: str | None
    """The public id of a user; None for the command line and for keys and apps that make keys."""
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    status: str
    """active, expired or revoked."""
    is_replaced: bool


_STATUS = "case when revoked_at is not null then 'revoked' when expires_at <= now() then 'expired' else 'active' end"

_MAKER = "(select u.public_id from users u where u.id = created_by)"
_COLUMNS = (
    "id, public_id, name, environment, ending, permissions, created_at, expires_at, last_used_at, revoked_at, "
    f"{_MAKER} as created_by, {_STATUS} as status, replaced_at is not null as is_replaced"
)

LISTING = Listing(
    prefix="key",
    sorts={"createdAt": "created_at", "name": "name", "lastUsedAt": "last_used_at", "expiresAt": "expires_at"},
    filters={
        "status": Filter(f"{_STATUS} = {{}}", one_of("active", "expired", "revoked")),
        "startDate": since("created_at"),
        "endDate": until("created_at"),
    },
)


async def add(
    connection: Connection,
    organization_id: int,
    key: str,
    *,
    name: str,
    permissions: frozenset[str],
    created_by: int | None = None,
    expires_at: datetime | None = None,
) -> ApiKey:
    """Let this key act for the organization."""
    environment = next(name for name, prefix in PREFIXES.items() if key.startswith(prefix))
    row = await connection.fetchrow(
        f"""
        /* keys.add */
        insert into api_keys (public_id, organization_id, created_by, name, sha256, environment, ending, permissions,
                              expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        returning {_COLUMNS}""",  # noqa: S608
        new_id(),
        organization_id,
        created_by,
        name,
        sha256(key),
        environment,
        key[-_ENDING:],
        sorted(permissions),
        expires_at,
    )
    assert row is not None
    return ApiKey(**row)


async def exists(connection: Connection, key: str) -> bool:
    """Whether this key is known, in whatever state."""
    return bool(
        await connection.fetchval(
            "/* keys.exists */ select exists (select from api_keys where sha256 = $1)", sha256(key)
        )
    )


async def get(connection: Connection, organization_id: int, public_id: str, *, lock: bool = False) -> ApiKey:
    """A key of this organization, locked against other changes if asked. Raises `NotFound`, also for a revoked one."""
    row = await connection.fetchrow(
        f"/* keys.get */ select {_COLUMNS} from api_keys"  # noqa: S608
        " where organization_id = $1 and public_id = $2 and revoked_at is null" + (" for update" if lock else ""),
        organization_id,
        public_id,
    )
    if row is None:
        raise NotFound("There is no such API key.")
    return ApiKey(**row)


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """Keys of this organization; revoked ones only when `status` asks for them."""
    return await LISTING.run(
        connection,
        f"/* keys.page_of */ select {_COLUMNS} from api_keys where organization_id = $1"  # noqa: S608
        + ("" if "status" in asked.filters else " and revoked_at is null"),
        [organization_id],
        asked,
    )


async def revoke(connection: Connection, key: ApiKey) -> None:
    """The key is of no use any more: within a second, everywhere."""
    await connection.execute("/* keys.revoke */ update api_keys set revoked_at = now() where id = $1", key.id)


async def replace(connection: Connection, key: ApiKey, overlap: timedelta) -> None:
    """Let a key that was replaced work for a while, never for longer than it would have."""
    await connection.execute(
        """
        /* keys.replace */
        update api_keys set replaced_at = now(), expires_at = least(expires_at, now() + $2) where id = $1""",
        key.id,
        overlap,
    )


async def touch(connection: Connection, key_id: int) -> None:
    """Remember that the key was used, to the minute; whoever changes the key at this moment is not waited for."""
    await connection.execute(
        """
        /* keys.touch */
        update api_keys set last_used_at = now()
         where id = (select id from api_keys where id = $1 for update skip locked)
           and (last_used_at is null or last_used_at < now() - interval '1 minute')""",
        key_id,
    )
