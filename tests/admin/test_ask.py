"""For which hosts there may be certificates, and the Caddyfile that asks."""

import re
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from admin.links import domain_routes
from tests.admin.conftest import Api
from tests.admin.hosts import Hosts, world_of
from tests.admin.people import error_of
from tests.admin.test_domains import HOST, added, asked, shown, verified


@pytest.fixture
async def there(api: Api) -> AsyncIterator[Hosts]:
    async with world_of(api.app, HOST) as found:
        yield found


async def test_certificates_are_for_verified_hosts_and_the_default_one(api: Api, there: Hosts) -> None:
    await shown(there, api.one)
    await added(api.one, "pending.example.com")
    for hostname, status in (
        (HOST, 200),
        (HOST.upper(), 200),
        ("localhost", 200),
        ("pending.example.com", 404),
        (f"a.{HOST}", 404),
        ("nobody.example.com", 404),
        ("a b", 404),
        ("", 404),
    ):
        assert await asked(api, hostname) == status, hostname
    assert (await api.nobody.get("/ask")).status_code == 404


async def test_asking_and_looking_are_limited(api: Api, there: Hosts) -> None:
    domain = await added(api.one)
    refused = [error_of(await verified(api.one, domain)) for _ in range(11)]
    assert refused == [(422, "DOMAIN_NOT_VERIFIED")] * 10 + [(429, "RATE_LIMIT_EXCEEDED")]
    [limit] = domain_routes._ASKS
    assert limit.count >= 1000 and await asked(api, "localhost") == 200
    await api.app.state.limits.charge("asks:127.0.0.1", [limit], cost=limit.count - 1)
    assert error_of(await api.nobody.get("/ask?domain=localhost")) == (429, "RATE_LIMIT_EXCEEDED")


ROOT = Path(__file__).parents[2]


async def test_the_caddyfile_of_the_docs_is_that_of_the_compose_file(api: Api) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    content = compose["configs"]["caddyfile"]["content"]
    operations = (ROOT / "docs/operations.md").read_text()
    [told] = re.findall(r"whole Caddyfile:\n\n((?:(?: {4}.*)?\n)+)", operations)
    for docker, plain in (
        ("${LINKWIRE_API_URL:-http://localhost:8001}", "https://api.example.com"),
        ("admin:8001", "127.0.0.1:8001"),
        ("edge:8000", "127.0.0.1:8000"),
    ):
        assert docker in content
        content = content.replace(docker, plain)
    assert textwrap.dedent(told).strip() == content.strip()
    assert "ask http://127.0.0.1:8001/ask\n" in content
    assert "/ask" in [getattr(route, "path", None) for route in api.app.routes]
    assert compose["services"]["caddy"]["configs"] == [{"source": "caddyfile", "target": "/etc/caddy/Caddyfile"}]
