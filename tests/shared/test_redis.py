"""What `open_redis` promises, on a real Valkey: waiting for connections, not for answers, and never asking twice."""

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from admin import embedded
from shared.redis import LOST, Redis, open_redis, run_id, stream_entries
from tests.conftest import Servers
from tests.servers import run

OwnValkey = tuple[embedded.Server, "subprocess.Popen[bytes]"]


@contextlib.asynccontextmanager
async def opened(url: str, *, timeout_s: float, connections: int = 16) -> AsyncIterator[Redis]:
    client = open_redis(url, timeout_s=timeout_s, connections=connections)
    try:
        yield client
    finally:
        await client.aclose()


async def test_more_commands_than_connections_wait_for_their_turn(servers: Servers) -> None:
    async with opened(servers.redis_url, timeout_s=5.0, connections=2) as client:
        assert await asyncio.gather(*[client.echo(str(number)) for number in range(100)]) == [
            str(number).encode() for number in range(100)
        ]


async def test_who_gets_no_connection_in_time_is_told_that_redis_is_lost(servers: Servers) -> None:
    async with opened(servers.redis_url, timeout_s=0.2, connections=1) as client:
        await client.ping()
        connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            with pytest.raises(LOST):
                await client.ping()
        finally:
            await client.connection_pool.release(connection)
        assert await client.ping()


async def test_a_server_that_hangs_costs_the_time_limit_once(own_valkey: OwnValkey) -> None:
    server, process = own_valkey
    async with opened(server.url, timeout_s=0.3) as client:
        await client.ping()
        process.send_signal(signal.SIGSTOP)
        asked_at = time.monotonic()
        with pytest.raises(LOST):
            await client.ping()
        assert 0.25 < time.monotonic() - asked_at < 0.6
        process.send_signal(signal.SIGCONT)
        assert await client.ping()


async def test_a_command_whose_answer_did_not_come_is_not_sent_again(own_valkey: OwnValkey) -> None:
    """It may have arrived: another XADD would be another entry."""
    server, process = own_valkey
    async with opened(server.url, timeout_s=0.3) as client:
        await client.ping()
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(LOST):
            await client.xadd("stream", {"a": "b"})
        process.send_signal(signal.SIGCONT)
        assert await client.xlen("stream") <= 1


async def test_a_server_that_is_gone_is_lost_and_found_again_when_it_is_back(own_valkey: OwnValkey) -> None:
    server, process = own_valkey
    async with opened(server.url, timeout_s=1.0) as client:
        first = run_id(await client.info("server"))
        process.kill()
        process.wait()
        for _ in range(2):  # on the connection that broke, and on a new one
            with pytest.raises(LOST):
                await client.ping()
        again = run(server)
        try:
            await embedded.wait_until_ready(server)
            assert await client.ping()
            assert run_id(await client.info("server")) != first
        finally:
            again.kill()
            again.wait()


async def test_a_client_can_be_opened_while_there_is_no_server() -> None:
    async with opened(f"redis://127.0.0.1:{embedded.free_port()}/0", timeout_s=0.3) as client:
        with pytest.raises(LOST):
            await client.ping()


async def test_the_run_id_is_the_same_until_the_server_is_started_again(redis: Redis) -> None:
    assert run_id(await redis.info("server")) == run_id(await redis.info("server"))


@pytest.mark.parametrize("parameters", ["", "?protocol=3"])
async def test_entries_of_a_stream_have_one_shape_whatever_the_url_says(
    servers: Servers, redis: Redis, parameters: str
) -> None:
    added: Any = [await redis.xadd("stream", {"number": number}) for number in range(3)]
    async with opened(servers.redis_url + parameters, timeout_s=5.0) as client:
        assert stream_entries(await client.xread({"stream": added[0]})) == [
            (added[1], {b"number": b"1"}),
            (added[2], {b"number": b"2"}),
        ]


async def test_no_answer_is_no_entries(redis: Redis) -> None:
    assert stream_entries(await redis.xread({"nothing": "0"})) == []
    assert stream_entries(await redis.xread({"nothing": "0"}, block=1)) == []


async def test_an_entry_that_was_deleted_while_it_was_pending_has_no_fields(redis: Redis) -> None:
    added: Any = [await redis.xadd("stream", {"number": number}) for number in range(2)]
    await redis.xgroup_create("stream", "group", id="0")
    await redis.xreadgroup("group", "consumer", {"stream": ">"})
    await redis.xdel("stream", added[0])
    answer = await redis.xreadgroup("group", "consumer", {"stream": "0"})
    assert stream_entries(answer) == [(added[0], {}), (added[1], {b"number": b"1"})]
