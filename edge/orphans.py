"""Orphans: the paths of a host that visitors ask for and no link has, counted so that its owner can see them.

A sketch, outside of the spool and its equations: what is rare may be missed, and what Redis loses is gone. Bounded here
by paths per host and by hosts, and in Redis by paths per host.
"""

from shared.links import orphans_key
from shared.redis import Redis

FLUSH_EVERY_S = 10.0
_HOSTS = 200
_PATHS = 500
"""Of a host between two flushes."""
_KEPT = 1000
"""Of a host in Redis: those that were asked for most."""
_KEPT_S = 30 * 24 * 3600
_LONGEST = 200


class Orphans:
    """One per worker."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._seen: dict[str, dict[str, int]] = {}

    def see(self, hostname: str, path: str) -> None:
        """A visitor found no link there."""
        paths = self._seen.get(hostname)
        if paths is None:
            if len(self._seen) >= _HOSTS:
                return
            paths = self._seen[hostname] = {}
        if path in paths or (len(paths) < _PATHS and len(path) <= _LONGEST):
            paths[path] = paths.get(path, 0) + 1

    async def flush(self) -> None:
        """Add to what Redis has. Raises when it is away; what was seen is gone then."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        writing = self._redis.pipeline(transaction=False)
        for hostname, paths in seen.items():
            key = orphans_key(hostname)
            for path, count in paths.items():
                writing.zincrby(key, count, path)
            writing.zremrangebyrank(key, 0, -_KEPT - 1)
            writing.expire(key, _KEPT_S)
        await writing.execute()
