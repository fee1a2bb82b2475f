"""The API on a database and a Redis of the test's own, and two organizations to call it."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx2
import pytest

from admin.app import build
from admin.database import Connection
from admin.identity import keys, organizations
from admin.links import domains
from admin.settings import AdminSettings
from shared.redis import Redis
from shared.settings import load
from tests.conftest import Servers


class Tenant(NamedTuple):
    """An organization and the client that acts for it."""

    organization_id: int
    api: httpx2.AsyncClient


class Api(NamedTuple):
    """The API with two organizations, and without any."""

    one: Tenant
    other: Tenant
    nobody: httpx2.AsyncClient


@pytest.fixture
async def api(servers: Servers, database_url: str, connection: Connection, redis: Redis) -> AsyncIterator[Api]:
    settings = load(
        AdminSettings,
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": servers.redis_url,
            "LINKWIRE_PUBLIC_URL": "http://localhost:8000",
        },
    )
    await domains.open_to_all(connection, "localhost")
    app = build(settings)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)

        def client(key: str | None) -> httpx2.AsyncClient:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return httpx2.AsyncClient(transport=transport, base_url="http://api", headers=headers)

        async def tenant(name: str) -> Tenant:
            organization_id = await organizations.create(
                connection, name=name, tier="enterprise", email=f"{name}@example.com", password="x"
            )
            key = keys.new_key()
            await keys.add(connection, organization_id, "test", key)
            return Tenant(organization_id, client(key))

        yield Api(await tenant("one"), await tenant("other"), client(None))


async def made(client: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    """A link that was made through the API."""
    answer = await client.post("/v1/links", json={"destination": "https://example.com/", **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json()["data"])
