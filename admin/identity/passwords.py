"""Passwords: argon2id, in a thread, and no faster for an account that does not exist."""

import asyncio
from functools import cache

import argon2

MIN_LENGTH = 8
MAX_LENGTH = 1024

# The library's defaults are RFC 9106's second recommendation: 64 MiB, three passes.
_hasher = argon2.PasswordHasher()
_AT_ONCE = 2
"""Each takes 64 MiB and a core for 50 ms."""

_turns: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}


async def hashed(password: str) -> str:
    """What is kept of a password."""
    async with _turn():
        return await asyncio.to_thread(_hasher.hash, password)


async def matches(password: str, kept: str | None) -> bool:
    """Whether this is the password. Takes as long when nothing is kept, and then it is not."""
    async with _turn():
        return await asyncio.to_thread(_matches, password, kept)


def _matches(password: str, kept: str | None) -> bool:
    try:
        return _hasher.verify(kept or _nobodys(), password) and kept is not None
    except argon2.exceptions.VerificationError:
        return False


@cache
def _nobodys() -> str:
    return _hasher.hash("nobody has this password")


def _turn() -> asyncio.Semaphore:
    loop = asyncio.get_running_loop()
    if loop not in _turns:
        _turns.clear()
        _turns[loop] = asyncio.Semaphore(_AT_ONCE)
    return _turns[loop]
