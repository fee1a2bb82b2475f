"""The admin application: its parts, put together in one place."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from admin import database
from admin.errors import Unavailable
from admin.http.answers import install_error_answers
from admin.http.request_ids import RequestIds
from admin.links import routes as links
from admin.links.publish import Publisher
from admin.settings import AdminSettings
from admin.stats import routes as stats
from shared.redis import open_redis

_PREFIXES = ("/v1", "/api/v1")
_ROUTERS = (links.router, stats.router)


def build(settings: AdminSettings) -> FastAPI:
    """The application. Postgres and Redis may be away."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.settings = settings
        app.state.pool = await database.open_pool(settings.database())
        redis = open_redis(settings.redis(), timeout_s=1.0)
        app.state.redis = redis
        app.state.publisher = Publisher(redis)
        yield
        app.state.pool.terminate()
        await redis.aclose()

    app = FastAPIOffline(
        title="Linkwire",
        version="1",
        description="Short links that know who clicked, and the messages that carried them.",
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    install_error_answers(app)
    app.add_middleware(RequestIds)
    for prefix in _PREFIXES:
        for router in _ROUTERS:
            app.include_router(router, prefix=prefix, include_in_schema=prefix == "/v1")
    app.add_route("/healthz", _healthz)
    app.add_route("/readyz", _readyz)
    return app


async def _healthz(_: Request) -> Response:
    """The process answers."""
    return PlainTextResponse("ok\n")


async def _readyz(request: Request) -> Response:
    """Postgres answers."""
    try:
        async with database.transaction(request.app.state.pool) as connection:
            await connection.execute("/* app.readyz */ select 1")
    except Unavailable:
        return PlainTextResponse("Postgres is away\n", 503, headers=Unavailable.headers)
    return PlainTextResponse("ok\n")
