"""The admin application: its parts, put together in one place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from admin import database
from admin.errors import Unavailable
from admin.fetch import Fetcher, resolver
from admin.http.answers import install_error_answers
from admin.http.idempotency import HEADER, REPLAYED, Replayed, replayed
from admin.http.limits import Limits, Standing, headers
from admin.http.request_ids import RequestIds
from admin.identity import account, auth, key_routes
from admin.identity import routes as identity
from admin.identity.access_tokens import AccessTokens
from admin.identity.oauth import authorize, tokens
from admin.identity.oauth import routes as oauth
from admin.identity.oauth.messages import OAuthError, oauth_error
from admin.identity.principal import Gate
from admin.links import (
    bulk_routes,
    domain_routes,
    explain_routes,
    export_routes,
    import_routes,
    orphans,
    qr_routes,
)
from admin.links import routes as links
from admin.links.publish import Publisher
from admin.links.verification import Verifier
from admin.settings import AdminSettings
from admin.stats import conversion_routes, counting_routes, question_routes, single_routes
from admin.stats import routes as stats
from shared.addresses import Proxies
from shared.redis import LOST, Redis, RedisError, open_redis

_PREFIXES = ("/v1", "/api/v1")
_ROUTERS = (
    bulk_routes.router,  # before the routes of one link, which take any word for its id, and the next one, too
    export_routes.router,
    links.router,
    import_routes.router,
    explain_routes.router,
    qr_routes.router,
    domain_routes.router,
    orphans.router,
    stats.router,
    question_routes.router,
    single_routes.router,
    counting_routes.router,
    conversion_routes.router,
    auth.router,
    account.router,
    key_routes.router,
    identity.router,
    oauth.router,
    tokens.router,
    authorize.router,
)

# Questions take up to four of them, files of clicks and of links two each. The rest is for requests that are short.
_CONNECTIONS = 12
_ANY_STANDING = Standing(0, 0, 0, 0)
_REDIS_S = 0.5  # whoever asks whether we are ready waits for a second, often


def build(settings: AdminSettings) -> FastAPI:
    """The application. Postgres and Redis may be away."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.settings = settings
        app.state.sealer = settings.sealer()
        app.state.proxies = Proxies(settings.trusted_proxies)
        pool = app.state.pool = await database.open_pool(settings.database(), size=_CONNECTIONS)
        redis = app.state.redis = open_redis(settings.redis(), timeout_s=1.0)
        limits = app.state.limits = Limits(redis)
        tokens = app.state.access_tokens = AccessTokens(pool, app.state.sealer, settings.api_url)
        app.state.gate = Gate(pool, limits, tokens, settings.enterprise_per_minute)
        app.state.publisher = Publisher(redis)
        names = resolver(settings.name_server)
        app.state.verifier = Verifier(names, Fetcher(names, settings.reachable_networks or ()))
        yield
        pool.terminate()
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
    app.add_exception_handler(Replayed, replayed)
    app.add_exception_handler(OAuthError, oauth_error)
    app.add_middleware(RequestIds)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins or (),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", HEADER, "X-Request-ID"],
        expose_headers=["X-Request-ID", "Retry-After", REPLAYED, *headers(_ANY_STANDING)],
        max_age=3600,
    )
    for prefix in _PREFIXES:
        for router in _ROUTERS:
            app.include_router(router, prefix=prefix, include_in_schema=prefix == "/v1")
    app.add_route("/.well-known/jwks.json", _jwks)
    app.add_route("/.well-known/oauth-authorization-server", oauth.metadata)
    app.add_route("/ask", domain_routes.ask)
    app.add_route("/healthz", _healthz)
    app.add_route("/readyz", _readyz)
    return app


async def _jwks(request: Request) -> Response:
    """The keys that access tokens are signed with, for those who want to verify them on their own."""
    keys = await request.app.state.access_tokens.public_keys()
    return JSONResponse({"keys": keys}, headers={"Cache-Control": "max-age=300"})


async def _healthz(_: Request) -> Response:
    """The process answers."""
    return PlainTextResponse("ok\n")


async def _readyz(request: Request) -> Response:
    """Postgres answers and is up to date. The API works without Redis, so its absence is only said."""
    try:
        async with database.transaction(request.app.state.pool) as connection:
            pending = await database.pending(connection)
    except Unavailable:
        return PlainTextResponse("Postgres is away\n", 503, headers=Unavailable.headers)
    if pending:
        return PlainTextResponse(f"Postgres lacks {', '.join(pending)}; run `linkwire migrate`\n", 503)
    if await _answers(request.app.state.redis):
        return PlainTextResponse("ok\n")
    return PlainTextResponse("ok\nRedis is away: changes of links are published when it is back\n")


async def _answers(redis: Redis) -> bool:
    try:
        async with asyncio.timeout(_REDIS_S):
            await redis.ping()
    except (*LOST, RedisError):
        return False
    return True
