"""Passwords: argon2id, in a thread, and no faster for an account that does not exist."""

import asyncio

import argon2

from admin.turns import Turns

MIN_LENGTH = 8
MAX_LENGTH = 1024

# The library's defaults are RFC 9106's second recommendation: 64 MiB, three passes.
_hasher = argon2.PasswordHasher()
# Each takes 64 MiB and a core for 50 ms.
_turns = Turns(2, wait_s=1.0, sorry="Too many log in at the moment. Please try again.")

_NOBODYS = "$argon2id$v=19$m=65536,t=3,p=4$26Q5GORjoySlp6MWk4v6gg$LAjjgWSqiPmsUJrPC9lFOdEZKz0jqhkN2XKj63mhtC8"


async def hashed(password: str) -> str:
    """What is kept of a password. Raises `Unavailable` when too many wait."""
    async with _turns:
        return await asyncio.to_thread(_hasher.hash, password)


async def matches(password: str, kept: str | None) -> bool:
    """Whether this is the password. Takes as long when nothing is kept, and then it is not.

    Raises `Unavailable` when too many wait.
    """
    async with _turns:
        return await asyncio.to_thread(_matches, password, kept)


def _matches(password: str, kept: str | None) -> bool:
    try:
        return _hasher.verify(kept or _NOBODYS, password) and kept is not None
    except argon2.exceptions.VerificationError:
        return False
