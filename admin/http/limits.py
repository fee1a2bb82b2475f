"""How much somebody may ask for: so many requests in a window of time, whoever is asked.

Rules of this file:

1. It knows no nouns: `who` is any text, and limits are values. Two things that are limited apart need different `who`s.
   The limits of one call, at least one, differ in their windows.
2. A window begins with the first request in it and ends `window_s` later, by the clock of Redis. Each is a key of Redis
   that counts and expires. What is refused by one window is charged to none.
3. Redis decides and counts in one script, so that a limit is exact however many processes there are.
4. A request never fails and hardly waits because of its limit. While Redis is away, each process holds a quarter of
   every limit against what it sees itself.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from shared.redis import LOST, Redis, RedisError

log = logging.getLogger(__name__)

NOW_S = 0.25
"""How long a request may wait for Redis to say whether it may go on."""

PATIENCE_S = 1.0

_LOCAL_PART = 4
_LOCAL_WINDOWS = 20_000

# KEYS: the windows. ARGV: the cost, 1 to charge it or 0 to look, then the count and the milliseconds of each window.
# Answers with the time in milliseconds, and for each window with what was used of it before and the milliseconds left.
_ASK = """
local time = redis.call('TIME')
local answer = {time[1] * 1000 + math.floor(time[2] / 1000)}
local is_charged = ARGV[2] == '1'
for i, key in ipairs(KEYS) do
  local used, left = tonumber(redis.call('GET', key) or 0), redis.call('PTTL', key)
  local count, length = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  -- A window that does not end, or too late, has lost its expiry; nobody is locked out for that.
  if left <= 0 or left > length then used, left = 0, length end
  answer[2 * i], answer[2 * i + 1] = used, left
  is_charged = is_charged and used + ARGV[1] <= count
end
if is_charged then
  for i, key in ipairs(KEYS) do
    if answer[2 * i] == 0 then
      redis.call('SET', key, ARGV[1], 'PX', answer[2 * i + 1])
    else
      redis.call('INCRBY', key, ARGV[1])
    end
  end
end
return answer
"""


class Limit(NamedTuple):
    """So many in so many seconds; both at least 1."""

    count: int  # type: ignore[assignment]  # a tuple has a method of this name
    window_s: int


class Standing(NamedTuple):
    """Where somebody stands: in the window with the least left, or, when refused, in the one that opens last."""

    limit: int
    remaining: int
    reset_at: int
    """When the window ends: seconds since 1970 in UTC, rounded up."""
    retry_after_s: int
    """At least 1 when refused, and 0 when allowed."""

    @property
    def is_allowed(self) -> bool:
        """Whether the request may go on."""
        return self.retry_after_s == 0


class Limits:
    """What is asked for, counted in Redis for all processes."""

    def __init__(self, redis: Redis, *, timeout_s: float = NOW_S) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._script = redis.register_script(_ASK)
        self._local = _LocalLimits()
        self._is_away = False
        self._patient_until = 0.0

    async def charge(self, who: str, limits: Sequence[Limit], *, cost: int = 1) -> Standing:
        """Take `cost`, at least 1, from each window, or from none if it is too much for one. Never fails."""
        return await self._ask(who, limits, cost, is_charged=True)

    async def is_open(self, who: str, limits: Sequence[Limit]) -> Standing:
        """Where `charge` would find them, with nothing taken yet. Never fails."""
        return await self._ask(who, limits, 1, is_charged=False)

    async def forget(self, who: str, limits: Sequence[Limit]) -> None:
        """Begin these windows anew. Never fails; while Redis is away, what it counted stays until its window ends."""
        keys = keys_of(who, limits)
        self._local.forget(keys)
        await self._answer(lambda: self._redis.delete(*keys))

    async def _ask(self, who: str, limits: Sequence[Limit], cost: int, *, is_charged: bool) -> Standing:
        keys = keys_of(who, limits)
        arguments = [cost, int(is_charged)]
        for limit in limits:
            arguments += [limit.count, limit.window_s * 1000]
        answer = await self._answer(lambda: self._script(keys=keys, args=arguments))
        if answer is None:
            return self._local.ask(keys, limits, cost, is_charged=is_charged)
        now_ms, *numbers = answer
        windows = [_Window(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
        return _standing(limits, windows, cost, is_charged=is_charged, now_ms=now_ms)

    async def _answer(self, question: Callable[[], Awaitable[Any]]) -> Any:
        """What Redis answers; None while it is away.

        After a failure it is not asked for `PATIENCE_S`: requests that all wait for a Redis that does not answer would
        be slow for nothing.
        """
        clock = asyncio.get_running_loop().time
        if clock() < self._patient_until:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await question()
        except (*LOST, RedisError) as error:
            if not self._is_away:
                log.warning("limits are held by each process alone: %r", error)
            self._is_away, self._patient_until = True, clock() + PATIENCE_S
            return None
        # An answer to a question from before the failure says nothing about now.
        if self._is_away and clock() >= self._patient_until:
            log.info("limits are held by Redis again")
            self._is_away = False
        return answer


def keys_of(who: str, limits: Sequence[Limit]) -> list[str]:
    """The keys of the windows in Redis, in one slot of a cluster.

    `who` is hashed: it may be long, secret, or have braces of its own.
    """
    name = hashlib.blake2b(who.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return [f"limits:{{{name}}}:{limit.window_s}" for limit in limits]


def headers(standing: Standing) -> dict[str, str]:
    """What an answer says about it."""
    named = {
        "X-RateLimit-Limit": str(standing.limit),
        "X-RateLimit-Remaining": str(standing.remaining),
        "X-RateLimit-Reset": str(standing.reset_at),
    }
    return named if standing.is_allowed else {**named, "Retry-After": str(standing.retry_after_s)}


class _Window(NamedTuple):
    """A window before a request; one that has not begun has nothing used and all its time left."""

    used: int
    left_ms: int


def _standing(
    limits: Sequence[Limit], windows: Sequence[_Window], cost: int, *, is_charged: bool, now_ms: int
) -> Standing:
    """The script's decision, and what is told of it."""
    pairs = list(zip(limits, windows, strict=True))
    refusing = [(limit, window) for limit, window in pairs if window.used + cost > limit.count]
    if refusing:
        limit, window = max(refusing, key=lambda pair: pair[1].left_ms)
        remaining, retry_after_s = limit.count - window.used, _seconds(window.left_ms)
    else:
        limit, window = min(pairs, key=lambda pair: (pair[0].count - pair[1].used, -pair[1].left_ms))
        remaining, retry_after_s = limit.count - window.used - (cost if is_charged else 0), 0
    # More than allowed may have been used, when the limit was higher.
    return Standing(limit.count, max(0, remaining), _seconds(now_ms + window.left_ms), retry_after_s)


def _seconds(milliseconds: int) -> int:
    return -(-milliseconds // 1000)


class _Begun(NamedTuple):
    """A window that has begun in this process."""

    used: int
    ends_at_ms: int


class _LocalLimits:
    """What this process sees while Redis is away. Its memory is bounded: the window last charged longest ago goes."""

    def __init__(self) -> None:
        self._begun: dict[str, _Begun] = {}

    def ask(self, keys: Sequence[str], limits: Sequence[Limit], cost: int, *, is_charged: bool) -> Standing:
        """As the script does, with a quarter of each limit."""
        clock_ms = time.monotonic_ns() // 1_000_000
        limits = [limit._replace(count=max(1, limit.count // _LOCAL_PART)) for limit in limits]
        windows = [self._window(key, limit, clock_ms) for key, limit in zip(keys, limits, strict=True)]
        standing = _standing(limits, windows, cost, is_charged=is_charged, now_ms=time.time_ns() // 1_000_000)
        if is_charged and standing.is_allowed:
            for key, window in zip(keys, windows, strict=True):
                self._keep(key, _Begun(window.used + cost, clock_ms + window.left_ms))
        return standing

    def forget(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._begun.pop(key, None)

    def _window(self, key: str, limit: Limit, clock_ms: int) -> _Window:
        begun = self._begun.get(key)
        if begun is None or begun.ends_at_ms <= clock_ms:
            return _Window(0, limit.window_s * 1000)
        return _Window(begun.used, begun.ends_at_ms - clock_ms)

    def _keep(self, key: str, begun: _Begun) -> None:
        self._begun.pop(key, None)  # so that it is the last of them again
        self._begun[key] = begun
        if len(self._begun) > _LOCAL_WINDOWS:
            del self._begun[next(iter(self._begun))]
