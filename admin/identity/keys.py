"""API keys: `lk_live_`, 32 random characters, and six that check them. Only the SHA-256 of a key is kept."""

import hashlib
import secrets
import string
import zlib

from admin.database import Connection

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PREFIX = "lk_live_"
_RANDOM = 32
_CHECK = 6


def random_base62(length: int) -> str:
    """Unguessable characters."""
    return "".join(secrets.choice(BASE62) for _ in range(length))


def new_key() -> str:
    """A key that nobody has."""
    body = random_base62(_RANDOM)
    return f"{_PREFIX}{body}{_check(body)}"


def is_well_formed(key: str) -> bool:
    """Whether the shape and the check characters are right: a typing mistake costs no query."""
    body, check = key[len(_PREFIX) : -_CHECK], key[-_CHECK:]
    return (
        key.startswith(_PREFIX) and len(body) == _RANDOM and body.isascii() and body.isalnum() and check == _check(body)
    )


def _check(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    characters = ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(BASE62))
        characters += BASE62[digit]
    return characters


async def add(connection: Connection, organization_id: int, name: str, key: str) -> None:
    """Let this key act for the organization."""
    await connection.execute(
        "/* keys.add */ insert into api_keys (organization_id, name, sha256) values ($1, $2, $3)",
        organization_id,
        name,
        _sha256(key),
    )


async def owner(connection: Connection, key: str) -> tuple[int, str] | None:
    """The organization that a key acts for, by id and public id; None for an unknown key."""
    row = await connection.fetchrow(
        """
        /* keys.owner */
        select o.id, o.public_id
          from api_keys k join organizations o on o.id = k.organization_id
         where k.sha256 = $1""",
        _sha256(key),
    )
    return (row["id"], row["public_id"]) if row else None


def _sha256(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
