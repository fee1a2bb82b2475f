"""Uses: how often a link with a click limit has led anywhere, counted in Redis for all edges at once.

Rules of this file:

1. A use is granted by one script, so that no two visitors get the last one. What is granted and not served, because the
   visitor went away or the answer came too late, is gone: a limit is never exceeded.
   Visits that use nothing, such as those of programs, ask whether anything is left, and are told what people are told.
2. A count belongs to a run of the Redis server. One that was started again, or lost its data, has no counts: then
   nobody knows, the link is `Unavailable`, and the worker counts what was stored (admin/links/uses.py).
"""

import asyncio

from edge.lookup import Lookup, Unavailable
from shared.links import UNCOUNTED_KEY, uses_key
from shared.redis import LOST, Redis, RedisError, run_id

# KEYS: the count, the links without one. ARGV: the limit, the link, whether to take one.
_ASK = """
local used = redis.call('GET', KEYS[1])
if not used then
  redis.call('SADD', KEYS[2], ARGV[2])
  return -1
end
if tonumber(used) >= tonumber(ARGV[1]) then return 0 end
if ARGV[3] == '1' then redis.call('INCR', KEYS[1]) end
return 1
"""


class Uses:
    """One per worker."""

    def __init__(self, redis: Redis, lookup: Lookup, *, timeout_s: float = 0.2) -> None:
        self._redis = redis
        self._script = redis.register_script(_ASK)
        self._lookup = lookup
        self._timeout_s = timeout_s

    async def take(self, link_id: int, limit: int) -> bool:
        """Take one, and whether there was one left. Raises `Unavailable` when that can't be known now."""
        return await self._ask(link_id, limit, takes=True)

    async def is_left(self, link_id: int, limit: int) -> bool:
        """Whether there is one left. Raises `Unavailable` when that can't be known now."""
        return await self._ask(link_id, limit, takes=False)

    async def _ask(self, link_id: int, limit: int, *, takes: bool) -> bool:
        run = self._lookup.run
        if run is None:
            raise Unavailable
        try:
            async with asyncio.timeout(self._timeout_s):
                asking = self._redis.pipeline(transaction=False)
                asking.info("server")
                keys = [uses_key(run, link_id), UNCOUNTED_KEY]
                await self._script(keys=keys, args=[limit, link_id, int(takes)], client=asking)
                info, left = await asking.execute()
        except (*LOST, RedisError) as error:
            raise Unavailable from error
        # Another server may have taken the place of the one we know, with an older count under the same name.
        if left == -1 or run_id(info) != run:
            raise Unavailable
        return bool(left)
