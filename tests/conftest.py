"""The servers that tests run on: a real PostgreSQL and a real Valkey for each test process, out of their wheels.

Every test that asks for a database gets one of its own, cloned from a migrated template; every test that asks for Redis
gets it empty. Nothing on PATH is used. Their data is kept in memory where there is room.
"""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
import pytest

from admin import database, embedded
from admin.database import Connection, Pool
from shared.redis import Redis, open_redis
from tests.servers import redis_server, run

pytest_plugins = ["tests.houses", "tests.admin.mailbox"]

# Nothing that is set where the tests run may reach them.
for name in [name for name in os.environ if name.startswith("LINKWIRE_") or name in ("DATABASE_URL", "REDIS_URL")]:
    del os.environ[name]

# The data of tests may be lost with the machine; faults that need a careful Postgres start one of their own.
# Few buffers: each connection is a process that pays for every page of them that it touches.
_CARELESS = [
    *("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"),
    *("-c", "shared_buffers=16MB"),
]
_MEMORY = Path("/dev/shm")
_ENOUGH_MEMORY = 2**30
_LONG = ("openapi", "faults", "flows")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests come first: one that comes last has a core to itself, and the other cores wait for it."""
    items.sort(key=lambda item: _LONG.index(name) if (name := item.path.parent.name) in _LONG else len(_LONG))


class Servers(NamedTuple):
    """Where this test process's servers are."""

    postgres_url: str
    redis_url: str


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def home_of_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In memory, if there is room: files of a new database for each test are much of what tests cost."""
    if not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _ENOUGH_MEMORY:
        yield tmp_path_factory.mktemp("servers")
        return
    with tempfile.TemporaryDirectory(prefix="linkwire-tests-", dir=_MEMORY) as home:
        yield Path(home)


@pytest.fixture(scope="session")
def servers(home_of_servers: Path) -> Iterator[Servers]:
    home = home_of_servers
    (home / "logs").mkdir()
    started = [embedded.postgres(home, options=_CARELESS), redis_server(home)]
    processes = [run(server) for server in started]
    try:
        for server in started:
            asyncio.run(embedded.wait_until_ready(server))
        asyncio.run(_make_template(started[0].url))
        yield Servers(started[0].url, started[1].url)
    finally:
        for server, process in zip(started, processes, strict=True):
            process.send_signal(server.command.stop_signal)
        for process in processes:
            process.wait(10)


async def _make_template(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("create database template")
    await connection.close()
    connection = await asyncpg.connect(at_database(url, "template"))
    await database.migrate(connection)
    # A login hashes the password as often as was said when it was set: 4,096 times, for each of many connections.
    await connection.execute("set scram_iterations = 1")
    await connection.execute(f"alter role linkwire password '{urlsplit(url).password}'")
    await connection.close()


def at_database(url: str, name: str) -> str:
    """The URL of another database on the same server."""
    return url.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="session")
def execute(servers: Servers) -> Iterator[Callable[[str], object]]:
    """Execute a statement where no database of a test is in use. All on one connection: each is a new process."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(servers.postgres_url))
        yield lambda statement: runner.run(connection.execute(statement))
        runner.run(connection.close())


@pytest.fixture
def database_url(servers: Servers, execute: Callable[[str], object]) -> Iterator[str]:
    """A migrated database of this test's own."""
    name = f"test_{secrets.token_hex(6)}"
    # Copied as files: the other strategy writes each page to the log, too, which costs three times as much.
    execute(f"create database {name} template template strategy file_copy")
    yield at_database(servers.postgres_url, name)
    execute(f"drop database {name} with (force)")


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = await database.open_pool(database_url)
    yield pool
    await pool.close()


@pytest.fixture
async def redis(servers: Servers) -> AsyncIterator[Redis]:
    """Redis, empty."""
    redis = open_redis(servers.redis_url, timeout_s=5.0)
    await redis.flushall()
    yield redis
    await redis.aclose()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[tuple[embedded.Server, "subprocess.Popen[bytes]"]]:
    """A Valkey that a test may stop, kill and pause."""
    (tmp_path / "logs").mkdir(exist_ok=True)
    server = redis_server(tmp_path)
    process = run(server)
    asyncio.run(embedded.wait_until_ready(server))
    yield server, process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
