"""The API on a database and a Redis of the test's own, and people and organizations to call it."""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import httpx2
import pytest
from fastapi import FastAPI
from starlette.datastructures import State

from admin.app import build
from admin.database import Connection
from admin.identity import keys, members, organizations, users
from admin.identity.organizations import Organization
from admin.identity.users import User
from admin.links import domains
from admin.settings import AdminSettings
from shared.redis import Redis
from shared.settings import load
from tests.conftest import Servers

SECRET = "a secret of tests in which there is no chance at all"
PASSWORD = "correct horse"
# argon2id of PASSWORD with the least of everything, because tests make many users.
PASSWORD_HASH = "$argon2id$v=19$m=8,t=1,p=1$bGlua3dpcmVsaW5rd2lyZQ$0wziEc+qVgveX8BXCsKAF2DDCTMW4I2mTZ99eqY0rvw"


class Tenant(NamedTuple):
    """An organization and the client that acts for it."""

    organization_id: int
    api: httpx2.AsyncClient
    organization: Organization
    owner: User


class Api(NamedTuple):
    """The API with two organizations, and without any."""

    one: Tenant
    other: Tenant
    nobody: httpx2.AsyncClient
    app: FastAPI


def settings_of(servers: Servers, database_url: str, **more: str) -> AdminSettings:
    """The settings of an API on these servers."""
    return load(
        AdminSettings,
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": servers.redis_url,
            "LINKWIRE_PUBLIC_URL": "http://localhost:8000",
            "LINKWIRE_SECRET": SECRET,
            "LINKWIRE_DEVELOPMENT": "1",
            **more,
        },
    )


def client_of(app: FastAPI, bearer: str | None = None, **headers: str) -> httpx2.AsyncClient:
    """A client of an API that runs in this process; a fault of ours is an answer, not an exception."""
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    return httpx2.AsyncClient(transport=transport, base_url="http://api", headers=headers)


_idle_apps: defaultdict[object, list[FastAPI]] = defaultdict(list)


@contextlib.contextmanager
def _lent_app(settings: AdminSettings) -> Iterator[FastAPI]:
    """An application that may have served another test, with nothing left of it but what FastAPI makes of the routes.

    FastAPI makes that at the first request, and it takes a fifth of a second: much, for each of many tests.
    """
    idle = _idle_apps[settings.cors_origins]  # the only setting that an application is built with
    app = idle.pop() if idle else build(settings)
    routes = list(app.router.routes)
    try:
        yield app
    finally:
        app.router.routes[:] = routes
        app.state = State()
        idle.append(app)


@contextlib.asynccontextmanager
async def running(settings: AdminSettings) -> AsyncIterator[FastAPI]:
    """An API until the block ends."""
    lifespan = build(settings).router.lifespan_context
    with _lent_app(settings) as app, pytest.MonkeyPatch.context() as patch:
        # On a machine that is busy with tests, Postgres and Redis would be taken for away now and then.
        patch.setattr("admin.database.REQUEST_S", 10.0)
        patch.setattr("admin.database.AUTHENTICATE_S", 10.0)
        async with lifespan(app):
            app.state.limits._timeout_s = app.state.publisher._within_s = 10.0
            yield app


async def founded(connection: Connection, name: str, tier: str = "enterprise") -> tuple[Organization, User]:
    """An organization and its owner, whose password is PASSWORD."""
    organization = await organizations.create(connection, name=name, tier=tier)
    owner = await member_of(connection, organization, f"{name}@example.com", "owner")
    return organization, owner


async def member_of(connection: Connection, organization: Organization, email: str, role: str) -> User:
    """A user in an organization, whose password is PASSWORD."""
    user = await users.create(connection, email=email, name="", password_hash=PASSWORD_HASH, is_verified=True)
    await members.add(connection, organization.id, user.id, role)
    return user


async def key_of(connection: Connection, organization: Organization, *permissions: str) -> str:
    """A new API key; without permissions it may do everything."""
    key = keys.new_key()
    granted = frozenset(permissions or {"admin"})
    await keys.add(connection, organization.id, key, name="test", permissions=granted)
    return key


@pytest.fixture
async def api(servers: Servers, database_url: str, connection: Connection, redis: Redis) -> AsyncIterator[Api]:
    await domains.open_to_all(connection, "localhost")
    async with running(settings_of(servers, database_url)) as app:

        async def tenant(name: str) -> Tenant:
            organization, owner = await founded(connection, name)
            client = client_of(app, await key_of(connection, organization))
            return Tenant(organization.id, client, organization, owner)

        yield Api(await tenant("one"), await tenant("other"), client_of(app), app)


async def made(client: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    """A link that was made through the API."""
    answer = await client.post("/v1/links", json={"destination": "https://example.com/", **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json()["data"])
