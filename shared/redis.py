"""Opens Redis: the one place that knows about pools, timeouts and what a lost connection looks like."""

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.links import MARKER_KEY, Marker

__all__ = ["LOST", "Redis", "RedisError", "epoch_now", "open_redis", "run_id", "stream_entries"]

LOST = (RedisConnectionError, RedisTimeoutError, TimeoutError)
"""What a command raises while Redis is away: nothing is known about its effect."""


def open_redis(url: str, *, timeout_s: float, connections: int = 16, retries: int = 0) -> Redis:
    """A client that waits for a free connection instead of failing; each wait, for a connection or for an answer, ends
    after `timeout_s`.

    Connects lazily: Redis may be away now and come back. Commands that block in Redis need a client of their own whose
    `timeout_s` is longer than they block. Only a client that asks for `retries` repeats commands. It must only read,
    because an XADD may have arrived.
    """
    # The asyncio default pool raises as soon as `connections` are in use; this one waits.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), retries),
        health_check_interval=0,
    )
    # One shape of answers, also where the URL says otherwise: stream entries differ between the protocols.
    pool.connection_kwargs["protocol"] = 2
    return Redis.from_pool(pool)


def run_id(server_info: dict[str, object]) -> str:
    """The run id in the answer to `INFO server`: random, new at each start of the server."""
    return str(server_info["run_id"])


async def epoch_now(redis: Redis) -> str | None:
    """The epoch of the complete set of links, on the server that answers now; None while it is not complete."""
    reading = redis.pipeline(transaction=False)
    reading.get(MARKER_KEY)
    reading.info("server")
    marker, info = await reading.execute()
    return Marker.epoch_of(marker, run_id(info))


def stream_entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries in the answer of XREAD or XREADGROUP on one stream: their ids and fields, oldest first.

    The fields of an entry that was deleted while it was pending are empty.
    """
    return [(entry_id, fields or {}) for entry_id, fields in answer[0][1]] if answer else []
