"""The OpenAPI document is true: schemathesis makes requests of it, right ones and wrong ones, and checks the answers.

`make fuzz` does the same for longer. A failure prints its seed.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx2
import pytest
import redis as redis_py

from admin.http import ids
from admin.identity import keys
from admin.links import domains
from tests.admin.conftest import PASSWORD, founded
from tests.apis import running_api
from tests.conftest import Servers

HERE = Path(__file__).parent
EXAMPLES = os.environ.get("TEST_OPENAPI_EXAMPLES", "10")


async def _make_key(database_url: str) -> tuple[str, str]:
    """An organization with an owner, and its key."""
    connection = await asyncpg.connect(database_url)
    await domains.open_to_all(connection, "localhost")
    organization, _owner = await founded(connection, "one")
    secret = keys.new_key()
    key = await keys.add(connection, organization.id, secret, name="test", permissions=frozenset({"admin"}))
    await connection.close()
    return secret, ids.shown("key", key.public_id)


async def _count_links(database_url: str) -> int:
    connection = await asyncpg.connect(database_url)
    count: int = await connection.fetchval("select count(*) from audit_log where action = 'link.created'")
    await connection.close()
    return count


@pytest.fixture
def api_url(servers: Servers, database_url: str, tmp_path: Path) -> Iterator[str]:
    with redis_py.Redis.from_url(servers.redis_url) as redis:
        redis.flushall()
    more = {"LINKWIRE_OPEN_REGISTRATION": "1", "LINKWIRE_ENTERPRISE_PER_MINUTE": "1000000"}
    with running_api(servers, database_url, tmp_path, **more) as url:
        yield url


def _access_token(api_url: str) -> str:
    login = {"email": "one@example.com", "password": PASSWORD}
    answer = httpx2.post(f"{api_url}/v1/auth/login", json=login, trust_env=False)
    return str(answer.json()["meta"]["accessToken"])


@pytest.mark.timeout(400)
def test_every_answer_is_as_documented(api_url: str, database_url: str, tmp_path: Path) -> None:
    secret, key_id = asyncio.run(_make_key(database_url))
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{api_url}/openapi.json", "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
        *("--max-examples", EXAMPLES, "--continue-on-failure", "--no-color"),
    ]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.openapi.hooks",
        "API_KEY": secret,
        "API_KEY_ID": key_id,
        "ACCESS_TOKEN": _access_token(api_url),
    }
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert asyncio.run(_count_links(database_url)) > 0, "nothing was let in"
