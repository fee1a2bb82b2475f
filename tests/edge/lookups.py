"""Lookups that run in a test, and what one can ask them."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from typing import Any

from admin import embedded
from edge.lookup import Lookup, Unavailable
from shared.entries import Entry
from shared.links import Address, Published
from shared.redis import Redis, open_redis
from shared.tasks import end
from tests.edge.publishing import Publisher, living
from tests.shared.waiting import until

OwnValkey = tuple[embedded.Server, "subprocess.Popen[bytes]"]

FIRST = living(1, to="https://example.com/first")
SECOND = living(2, to="https://example.com/second")
REMOVED = Published(2, None)
UNAVAILABLE = "unavailable"
ANOTHER_RUN = "0" * 40


@contextlib.asynccontextmanager
async def looking_up(
    url: str,
    *,
    through: str | None = None,
    is_following: bool = True,
    memory_entries: int = 100,
    timeout_s: float = 5.0,
) -> AsyncIterator[Lookup]:
    """A Lookup, which asks `through` another URL if one is given. Its time limit is long where it is not the point."""
    redis = open_redis(through or url, timeout_s=10.0, connections=1)
    changes = open_redis(url, timeout_s=3.0, connections=1)
    lookup = Lookup(redis, changes, memory_entries=memory_entries, timeout_s=timeout_s)
    following = asyncio.create_task(lookup.follow()) if is_following else None
    try:
        yield lookup
        assert following is None or not following.done(), following
    finally:
        if following:
            await end(following)
        await redis.aclose()
        await changes.aclose()


async def found(lookup: Lookup, address: Address) -> Entry | str | None:
    """What a visitor is told."""
    try:
        return await lookup.find(address)
    except Unavailable:
        return UNAVAILABLE


async def until_found(lookup: Lookup, address: Address, wanted: Entry | str | None) -> None:
    async def is_wanted() -> bool:
        return await found(lookup, address) == wanted

    await until(is_wanted)


async def until_caught_up(lookup: Lookup, publisher: Publisher) -> None:
    """Every change that was announced so far has been applied: a later one of another address has been."""
    probe = Address("probe.example", "/")
    before, after = living(1, to="before:"), living(2, to="after:")
    await publisher.put(probe, before)
    await until_found(lookup, probe, before.entry)
    await publisher.announce(probe, after)
    await until_found(lookup, probe, after.entry)
    await publisher.drop(probe)


@contextlib.asynccontextmanager
async def looking_up_in(server: embedded.Server, *, timeout_s: float) -> AsyncIterator[tuple[Lookup, Publisher]]:
    """A Lookup that follows a complete set on a server of the test's own."""
    async with publishing(server) as publisher:
        await publisher.complete()
        async with looking_up(server.url, timeout_s=timeout_s) as lookup:
            await until(lambda: lookup.is_complete)
            yield lookup, publisher


@contextlib.asynccontextmanager
async def publishing(server: embedded.Server) -> AsyncIterator[Publisher]:
    redis = open_redis(server.url, timeout_s=5.0)
    try:
        yield Publisher(redis)
    finally:
        await redis.aclose()


async def gets(redis: Redis) -> int:
    """How many GETs the server has answered since its statistics were reset."""
    statistics: dict[str, Any] = await redis.info("commandstats")
    return int(statistics["cmdstat_get"]["calls"])


async def is_forgotten(lookup: Lookup, address: Address) -> bool:
    """Whether memory does not know the address: a question would have been answered without waiting otherwise."""
    asking = asyncio.create_task(found(lookup, address))
    await asyncio.sleep(0)
    is_answered = asking.done()
    asking.cancel()
    await asyncio.wait([asking])
    return not is_answered
