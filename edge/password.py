"""Passwords of links: guessed at a bounded pace, verified beside the redirects, and remembered by a cookie.

Rules of this file:

1. argon2 runs in a thread, one at a time per worker; a few may wait, more are told to come again. Redirects go on.
2. Guesses are counted in Redis, per link and per address, before they are looked at; what was right is no guess. Redis
   away: nobody may guess.
3. The cookie says until when it holds, signed with a key that is made of the password's hash: nobody else can make one,
   every edge understands it, and another password ends it.
"""

import asyncio
import contextlib
import hmac
import time
from functools import lru_cache
from hashlib import blake2b

import argon2

from edge.lookup import Unavailable
from shared.addresses import client_network
from shared.entries import Entry
from shared.redis import LOST, Redis, RedisError

MAX_FORM = 4096
"""Bytes of a form with a password."""

REMEMBERED_S = 12 * 3600
WINDOW_S = 600
"""Guesses are counted for so long."""

_GUESSES_PER_LINK = 100
_GUESSES_PER_ADDRESS = 10
_MAY_WAIT = 8

_hasher = argon2.PasswordHasher()

# KEYS: a count each. ARGV: the seconds that it lives, then a limit for each.
_COUNT = """
local longest = 0
for number, key in ipairs(KEYS) do
  local count = redis.call('INCR', key)
  if count == 1 then redis.call('EXPIRE', key, ARGV[1]) end
  if count > tonumber(ARGV[number + 1]) then longest = math.max(longest, redis.call('TTL', key), 1) end
end
return longest
"""


class TooManyGuesses(Exception):
    """The visitor may guess again in `retry_after_s`."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s


class Passwords:
    """One per worker."""

    def __init__(self, redis: Redis, *, timeout_s: float = 0.2) -> None:
        self._redis = redis
        self._count = redis.register_script(_COUNT)
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def is_right(self, entry: Entry, address: str, password: str) -> bool:
        """Whether this is the link's password. Raises `TooManyGuesses`, `Unavailable`."""
        if self._waiting >= _MAY_WAIT:
            raise TooManyGuesses(1)
        self._waiting += 1
        try:
            keys = [f"guesses:link:{entry.link_id}", f"guesses:address:{client_network(address)}"]
            await self._charge(keys)
            async with self._turn:
                is_right = await asyncio.to_thread(_matches, entry.terms.password_hash, password)
            if is_right:
                await self._give_back(keys)
            return is_right
        finally:
            self._waiting -= 1

    async def _give_back(self, keys: list[str]) -> None:
        """Who knows the password has not guessed: many may come from one office."""
        with contextlib.suppress(*LOST, RedisError):
            async with asyncio.timeout(self._timeout_s):
                writing = self._redis.pipeline(transaction=False)
                for key in keys:
                    writing.decr(key)
                await writing.execute()

    async def _charge(self, keys: list[str]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                wait_s = await self._count(keys=keys, args=[WINDOW_S, _GUESSES_PER_LINK, _GUESSES_PER_ADDRESS])
        except (*LOST, RedisError) as error:
            raise Unavailable from error
        if wait_s:
            raise TooManyGuesses(int(wait_s))


def cookie_name(entry: Entry) -> str:
    """The cookie that remembers that a visitor knows the password."""
    return f"lw{entry.link_id:x}"


def cookie_value(entry: Entry, until_s: int) -> str:
    """What it says: until when, in seconds since 1970, and the proof that we said so."""
    proof = blake2b(b"%d %d" % (entry.link_id, until_s), key=_key(entry.terms.password_hash), digest_size=24)
    return f"{until_s}.{proof.hexdigest()}"


def is_remembered(entry: Entry, cookie: str | None) -> bool:
    """Whether a cookie is one that we gave for this password, and still holds."""
    until = (cookie or "").partition(".")[0]
    if not (until.isascii() and until.isdigit() and len(until) <= 12):
        return False
    is_ours = hmac.compare_digest(cookie_value(entry, int(until)).encode(), (cookie or "").encode("utf-8", "replace"))
    return is_ours and int(until) > time.time()


@lru_cache(maxsize=1024)
def _key(password_hash: str) -> bytes:
    return blake2b(password_hash.encode(), person=b"link cookie").digest()


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False
