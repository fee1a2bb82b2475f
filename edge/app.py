"""The edge's application: one worker's parts, put together in one place."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edge.lookup import Lookup
from edge.redirect import Redirect
from edge.settings import EdgeSettings
from edge.spool import Spool
from shared.redis import open_redis
from shared.tasks import end

log = logging.getLogger(__name__)


def build(settings: EdgeSettings) -> Starlette:
    """The application of one worker. Redis may be away; the spool's directory is made."""
    settings.spool_directory.mkdir(parents=True, exist_ok=True)
    redis = open_redis(settings.redis(), timeout_s=0.25)
    changes = open_redis(settings.redis(), timeout_s=3.0, connections=1)
    lookup = Lookup(redis, changes, memory_entries=settings.memory_entries)
    spool = Spool(settings.spool_directory)

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
        following = asyncio.create_task(lookup.follow())
        following.add_done_callback(_end_process)
        yield
        await end(following)
        spool.close()
        await redis.aclose()
        await changes.aclose()

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/{path:path}", Redirect(lookup, spool, settings.trusted_proxies)),
        ],
        lifespan=lifespan,
    )


def _end_process(following: "asyncio.Task[None]") -> None:
    """A worker that no longer follows the changes would serve stale links for good; the parent starts another one."""
    if not following.cancelled():
        log.critical("the worker ends, because it can't follow changes any more", exc_info=following.exception())
        os.kill(os.getpid(), signal.SIGTERM)
