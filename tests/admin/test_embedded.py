"""The embedded servers: every way to run them, crashes, and data that is not ours to start on."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import asyncpg
import pytest

from admin import embedded
from shared.redis import open_redis
from tests.servers import run

# The third way needs a home and an environment that everybody may enter, which tests do not have.
WAYS = list(embedded._ROOT_WAYS[:2]) if os.geteuid() == 0 else [None]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


async def count(url: str, statement: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
        found: int = await connection.fetchval("select count(*) from kept")
        return found
    finally:
        await connection.close()


def started(server: embedded.Server) -> "subprocess.Popen[bytes]":
    """Start it as the supervisor does: again, as long as what a killed one left behind is in its way."""
    while True:
        process = run(server)
        try:
            asyncio.run(embedded.wait_until_ready(server, within_s=10))
            return process
        except embedded.EmbeddedError:
            if process.poll() is None:
                raise


@pytest.mark.parametrize("way", WAYS, ids=["unshare", "setpriv"][: len(WAYS)])
def test_postgres_keeps_what_was_committed_when_it_is_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch, way: embedded._RootWay | None
) -> None:
    if way is not None:
        monkeypatch.setattr(embedded, "_ROOT_WAYS", (way,))
    for rows, end in ((1, signal.SIGKILL), (2, signal.SIGINT)):
        server = embedded.postgres(home)
        process = started(server)
        statement = "create table if not exists kept (id int); insert into kept values (1)"
        assert asyncio.run(count(server.url, statement)) == rows
        process.send_signal(end)
        process.wait(30)


def test_a_home_can_change_the_way_it_is_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that was made as nobody is started in a user namespace, and the other way round."""
    for way in reversed(WAYS + WAYS):
        if way is not None:
            monkeypatch.setattr(embedded, "_ROOT_WAYS", (way,))
        server = embedded.postgres(home)
        process = run(server)
        asyncio.run(embedded.wait_until_ready(server))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_passwords_are_asked_for_and_kept_private(home: Path) -> None:
    server = embedded.postgres(home)
    process = run(server)
    asyncio.run(embedded.wait_until_ready(server))
    password = (home / "postgres.password").read_text()
    assert len(password) > 20
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(asyncpg.connect(server.url.replace(password, "wrong")))
    assert (home / "postgres.password").stat().st_mode & 0o777 == 0o600
    assert not any(password in argument for argument in server.command.argv)
    process.send_signal(signal.SIGINT)
    process.wait(30)


def test_a_start_that_died_half_way_is_begun_again(home: Path) -> None:
    (home / "postgres.new").mkdir()
    (home / "postgres.new" / "PG_VERSION").write_text("18\n")
    embedded.postgres(home)
    assert not (home / "postgres.new").exists()
    assert (home / "postgres" / "postgresql.conf").exists()


def test_data_of_another_major_version_is_left_alone(home: Path) -> None:
    (home / "postgres").mkdir()
    (home / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(embedded.EmbeddedError, match="PostgreSQL 15"):
        embedded.postgres(home)


def test_valkey_keeps_its_data_over_a_clean_restart(home: Path) -> None:
    async def increment(url: str) -> int:
        client = open_redis(url, timeout_s=2)
        try:
            return int(await client.incr("kept"))
        finally:
            await client.aclose()

    for expected in (1, 2):
        server = embedded.valkey(home)
        process = run(server)
        asyncio.run(embedded.wait_until_ready(server))
        assert asyncio.run(increment(server.url)) == expected
        assert (home / "redis/valkey.conf").stat().st_mode & 0o777 == 0o600
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def test_a_server_that_never_answers_is_one_sentence(home: Path) -> None:
    server = embedded.valkey(home)
    with pytest.raises(embedded.EmbeddedError, match="valkey did not answer"):
        asyncio.run(embedded.wait_until_ready(server, within_s=0.2))
