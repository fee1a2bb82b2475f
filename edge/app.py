"""The edge's application: one worker's parts, put together in one place."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edge.connection import Connections
from edge.lookup import Lookup
from edge.orphans import FLUSH_EVERY_S, Orphans
from edge.protocol import FastWay, Protocol
from edge.redirect import Redirect
from edge.settings import EdgeSettings
from edge.spool import Spool
from edge.tally import Tally
from shared.redis import LOST, RedisError, open_redis
from shared.tasks import end

if TYPE_CHECKING:
    from edge.terms import Terms

log = logging.getLogger(__name__)


class Worker(NamedTuple):
    """A worker's parts, for the server that runs them."""

    app: Starlette
    protocol: partial[Protocol]
    """In place of uvicorn's own."""
    tally: Tally


def build(settings: EdgeSettings) -> Worker:
    """One worker. Redis may be away; the spool's directory is made."""
    settings.spool_directory.mkdir(parents=True, exist_ok=True)
    # Once more, because the first failure may be a connection's that Redis has closed long ago.
    redis = open_redis(settings.redis(), timeout_s=0.2, retries=1)
    changes = open_redis(settings.redis(), timeout_s=1.5, connections=1)
    lookup = Lookup(redis, changes, memory_entries=settings.memory_entries)
    spool = Spool(settings.spool_directory, max_bytes=settings.spool_max_bytes)
    tally = Tally()
    orphans = Orphans(redis)
    connections = Connections(
        tally,
        limit=settings.connections,
        limit_per_client=settings.connections_per_client,
        trusted_proxies=settings.trusted_proxies,
    )

    def make_terms() -> "Terms":
        from edge.terms import Terms

        return Terms(redis, lookup, spool, tally, settings.trusted_proxies)

    async def tend() -> None:
        """What is to be done once a second."""
        while True:
            await asyncio.sleep(1)
            tally.tell(memory_hits=lookup.hits, recorded=spool.recorded, dropped=spool.dropped)
            spool.tend()

    async def tell_orphans() -> None:
        """What nobody misses while Redis is away."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            with contextlib.suppress(*LOST, RedisError):
                await orphans.flush()

    async def healthz(_: Request) -> Response:
        """The process answers."""
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        """The process can tell which links exist."""
        return (
            PlainTextResponse("ok\n")
            if lookup.is_complete
            else PlainTextResponse("the published links are not complete, or Redis is away\n", 503)
        )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work) for work in (lookup.follow(), connections.watch(), tend(), tell_orphans())]
        for task in tasks:
            task.add_done_callback(_end_process)
        yield
        await end(*tasks)
        connections.end()
        tally.tell(memory_hits=lookup.hits, recorded=spool.recorded, dropped=spool.dropped)
        spool.close()
        await redis.aclose()
        await changes.aclose()

    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/{path:path}", Redirect(lookup, spool, tally, orphans, make_terms)),
        ],
        lifespan=lifespan,
    )
    return Worker(app, partial(Protocol, connections, FastWay(lookup, spool)), tally)


def _end_process(task: "asyncio.Task[None]") -> None:
    """A worker that no longer follows the changes would serve stale links for good; the parent starts another one."""
    if not task.cancelled():
        log.critical("the worker ends, because a part of it has ended", exc_info=task.exception())
        os.kill(os.getpid(), signal.SIGTERM)
