"""Limits across processes: four APIs share what a free organization may ask for."""

import asyncio
import itertools
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import httpx2
import redis as redis_py

from tests.admin.conftest import founded, key_of
from tests.apis import running_api
from tests.conftest import Servers


async def _key(database_url: str, name: str) -> str:
    connection = await asyncpg.connect(database_url)
    organization, _owner = await founded(connection, name, "free")
    key = await key_of(connection, organization)
    await connection.close()
    return key


async def _ask_all(urls: list[str], key: str, count: int) -> Counter[int]:
    async with httpx2.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {key}"}, timeout=20) as client:
        turns = itertools.islice(itertools.cycle(urls), count)
        answers = await asyncio.gather(*[client.get(f"{url}/v1/organization") for url in turns])
    return Counter(answer.status_code for answer in answers)


def test_sixty_one_requests_in_a_minute_from_four_processes(
    servers: Servers, database_url: str, tmp_path: Path
) -> None:
    with redis_py.Redis.from_url(servers.redis_url) as redis:
        redis.flushall()
    with ExitStack() as running:
        urls = [running.enter_context(running_api(servers, database_url, tmp_path)) for _ in range(4)]
        for number in itertools.count():
            outages, key = _outages(tmp_path), asyncio.run(_key(database_url, f"free{number}"))
            answers = asyncio.run(_ask_all(urls, key, 61))
            if _outages(tmp_path) == outages:
                break
        assert answers == {200: 60, 429: 1}


def _outages(home: Path) -> int:
    """How often Redis was taken for away, as happens on a machine that is busy with tests: then all is asked again."""
    return sum(log.read_text().count("held by each process alone") for log in home.glob("api-*.log"))
