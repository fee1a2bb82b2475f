"""Connections to a worker, on real sockets: clients that are slow, many, wrong, half gone, or there when it stops."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge import connection
from edge.connection import MAX_HEAD, MAX_PIPELINED, MAX_TARGET
from shared.redis import Redis
from tests.conftest import Servers
from tests.edge.publishing import OTHER, PROMO, Gate, Publisher, living
from tests.edge.servers import Client, RunningEdge, cut, get, running_edge
from tests.shared.waiting import until

TARGET = "https://example.com/landing"
REDIRECTED = b"HTTP/1.1 302 "


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def edge(servers: Servers, redis: Redis, tmp_path: Path) -> AsyncIterator[RunningEdge]:
    """A worker that knows all links and remembers go.example/promo."""
    async with edge_on(servers.redis_url, redis, tmp_path) as edge:
        yield edge


@asynccontextmanager
async def edge_on(url: str, redis: Redis, home: Path, **environment: str) -> AsyncIterator[RunningEdge]:
    publisher = Publisher(redis)
    await publisher.complete()
    await publisher.put(PROMO, living(to=TARGET))
    async with running_edge(url, home, environment) as edge:
        await until(lambda: is_ready(edge))
        await edge.say(get())
        yield edge


async def is_ready(edge: RunningEdge) -> bool:
    return b" 200 " in await edge.say(get("/readyz"))


def statuses(answers: bytes) -> list[int]:
    """The statuses of the answers, as long as no body looks like one."""
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def soon(monkeypatch: pytest.MonkeyPatch, *deadlines: str) -> None:
    """Let these deadlines come soon."""
    for name in deadlines:
        monkeypatch.setattr(connection, name, 0.2)


# What is wrong is said, and the connection closed.


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"nonsense\r\n\r\n", 400, id="no request at all"),
        pytest.param(b"GET /promo HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(b"GET /promo HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", 400, id="two Hosts"),
        pytest.param(get("/promo", "go.example", "Bad Name: x"), 400, id="a header that is none"),
        pytest.param(get("/\xff"), 400, id="a target that is not ASCII"),
        pytest.param(get("ftp://go.example/promo"), 400, id="another scheme"),
        pytest.param(get("*"), 400, id="an asterisk"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2"),
        pytest.param(get("/" + "x" * MAX_TARGET), 414, id="a long target"),
        pytest.param(get("/promo?" + "x" * MAX_TARGET), 414, id="a long query"),
        pytest.param(get("/promo", "go.example", "X: " + "x" * MAX_HEAD), 431, id="a large header"),
        pytest.param(get("/promo", "go.example", *["X: y" * 10] * 1500), 431, id="many headers"),
        pytest.param(b"GET /promo HTTP/1.1\r\nX: " + b"x" * 10 * MAX_HEAD, 431, id="a header that has no end"),
        pytest.param(b"GET /" + b"x" * 10 * MAX_HEAD, 414, id="a target that has no end"),
    ],
)
async def test_what_is_wrong_is_answered_with_its_status_and_the_connection_closed(
    edge: RunningEdge, data: bytes, status: int
) -> None:
    for pieces in ([data], cut(data, range(0, len(data), 4000))):
        client = await edge.connect()
        for piece in pieces:
            await client.send(piece)
        answer = await client.rest()
        assert statuses(answer) == [status], answer[:200]
        assert b"connection: close" in answer or status == 400
        assert b"Traceback" not in answer
    edge.new_clicks()


async def test_of_what_is_wrong_nothing_is_logged_and_all_is_counted(
    edge: RunningEdge, caplog: pytest.LogCaptureFixture
) -> None:
    before = edge.worker.tally.refused
    with caplog.at_level(logging.ERROR):
        for _ in range(10):
            await edge.say(b"nonsense\r\n\r\n")
            await edge.say(get("/promo", "go.example", "Upgrade: h2c", "Connection: upgrade"))
    assert caplog.records == []
    assert edge.worker.tally.refused - before == 10


async def test_what_is_wrong_is_said_after_the_answers_that_are_owed(edge: RunningEdge) -> None:
    answers = await edge.say(get("/nothing") + get() + b"nonsense\r\n\r\n" + get())
    assert statuses(answers) == [404, 302, 400]
    assert len(edge.new_clicks()) == 2  # of the start, and the one that was owed


async def test_a_body_that_is_wrong_ends_the_connection_after_the_answer(edge: RunningEdge) -> None:
    for wrong in (get(PROMO.path, "go.example", "Transfer-Encoding: chunked") + b"x\r\n", get_coded("gzip")):
        assert statuses(await edge.say(wrong + get())) == [302]


def get_coded(coding: str) -> bytes:
    return get(PROMO.path, "go.example", f"Transfer-Encoding: {coding}")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), places=st.lists(st.integers(0, 300), max_size=3), whole=st.booleans())
async def test_any_bytes_at_all_get_answers_and_an_end_and_never_an_error_of_ours(
    edge: RunningEdge, caplog: pytest.LogCaptureFixture, data: bytes, places: list[int], whole: bool
) -> None:
    caplog.clear()
    answers = await edge.say(*cut(get() + data + (b"\r\n\r\n" if whole else b""), places))
    assert 500 not in statuses(answers)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# The target.


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://go.example/promo", "other.example", 302),
        ("HTTP://GO.example:80/promo?x", "other.example", 302),
        ("http://other.example/promo", "go.example", 404),
        ("http://go.example", "other.example", 404),
        ("http://go.example?/promo", "other.example", 404),
    ],
)
async def test_a_target_in_absolute_form_counts_and_not_the_host(
    edge: RunningEdge, target: str, host: str, status: int
) -> None:
    assert statuses(await edge.say(get(target, host))) == [status]


async def test_a_target_in_absolute_form_still_needs_a_host(edge: RunningEdge) -> None:
    assert statuses(await edge.say(b"GET http://go.example/promo HTTP/1.1\r\n\r\n")) == [400]


@pytest.mark.parametrize("line", ["Range: bytes=0-0", "If-None-Match: *", "Expect: 100-continue", "Upgrade: h2c"])
async def test_what_a_redirect_has_no_use_for_changes_nothing(edge: RunningEdge, line: str) -> None:
    assert statuses(await edge.say(get("/promo", "go.example", line))) == [302]


async def test_a_head_gets_what_a_get_gets(edge: RunningEdge) -> None:
    assert await edge.say(get(method="HEAD")) == await edge.say(get())


# Deadlines.


async def test_a_head_that_comes_too_slowly_is_given_up(edge: RunningEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch, "MESSAGE_S", "SWEEP_EVERY_S")
    client = await edge.connect()
    await client.send(get() + b"GET /promo HTTP/1.1\r\nHost: go.example\r\n")
    dribbling = asyncio.create_task(dribble(client))
    answers = await client.rest()
    dribbling.cancel()
    assert statuses(answers) == [302, 408]


async def dribble(client: Client) -> None:
    """A byte at a time, which must not win time."""
    while True:
        await client.send(b"x")
        await asyncio.sleep(0.02)


async def test_a_body_that_comes_too_slowly_is_given_up(edge: RunningEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch, "MESSAGE_S", "SWEEP_EVERY_S")
    client = await edge.connect()
    await client.send(get("/promo", "go.example", "Content-Length: 1000") + b"x")
    assert statuses(await client.rest()) == [302]  # a second answer would be to another request


@pytest.mark.parametrize("said", [b"", b"\r\n", get(), get("/nothing")])
async def test_a_connection_that_stays_quiet_is_closed(
    edge: RunningEdge, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    soon(monkeypatch, "IDLE_S", "SWEEP_EVERY_S")
    client = await edge.connect()
    await client.send(said)
    assert statuses(await client.rest()) == ([302] if b"promo" in said else [404] if said.strip() else [])


async def test_a_connection_in_use_stays(edge: RunningEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch, "MESSAGE_S", "SWEEP_EVERY_S")
    monkeypatch.setattr(connection, "IDLE_S", 0.8)
    client = await edge.connect()
    for _ in range(12):
        await client.send(get())
        assert (await client.receive()).startswith(REDIRECTED)
        await asyncio.sleep(0.1)  # all of this takes longer than the deadline
    client.close()


@pytest.mark.parametrize("at_once", [1, 3], ids=["fast way", "pipelined"])
async def test_answers_that_are_not_taken_stop_the_reading_and_end_the_connection(
    edge: RunningEdge, redis: Redis, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(connection, "SWEEP_EVERY_S", 0.1)
    await Publisher(redis).put(OTHER, living(to="https://example.com/" + "x" * 4000))
    await until(lambda: not edge.state.connections)
    client = await edge.connect()
    await client.send(get("/other"))
    ended = asyncio.Event()
    # So long that a read never has more of them than may wait.
    request = get("/other", "go.example", "X: " + "x" * 4000)

    async def ask() -> None:
        try:
            while True:
                await asyncio.get_running_loop().sock_sendall(client.socket, request * at_once)
                await asyncio.sleep(0)
        except ConnectionError:
            ended.set()

    asking = asyncio.create_task(ask())
    [theirs] = [one for one in edge.state.connections if isinstance(one, connection.Connection)]
    await until(lambda: theirs.flow.write_paused and theirs.flow.read_paused)
    assert len(theirs.pipeline) <= MAX_PIPELINED
    answered = edge.worker.tally.redirected + edge.worker.tally.hot
    assert not ended.is_set()
    monkeypatch.setattr(connection, "ANSWER_S", 0.2)
    await asyncio.wait_for(ended.wait(), 10)
    assert edge.worker.tally.redirected + edge.worker.tally.hot - answered <= 1  # the one that was being answered
    await asking


async def test_answers_that_wait_in_a_small_buffer_end_the_connection_too(
    edge: RunningEdge, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch, "ANSWER_S", "IDLE_S", "SWEEP_EVERY_S")
    await until(lambda: not edge.state.connections)
    client = await edge.connect()
    await client.send(get())
    [theirs] = [one for one in edge.state.connections if isinstance(one, connection.Connection)]
    while not theirs.transport.get_write_buffer_size():
        theirs.transport.write(b"x" * 1000)
        await asyncio.sleep(0)
    assert not theirs.flow.write_paused
    await until(lambda: not edge.state.connections)
    client.close()


# Limits.


async def test_a_head_may_be_as_large_as_the_limit_in_any_number_of_reads(edge: RunningEdge) -> None:
    large = get("/promo", "go.example", "Cookie: " + "x" * (MAX_HEAD - 2000))
    for pieces in (1, 2, 40):
        assert statuses(await edge.say(*cut(large, range(0, len(large), len(large) // pieces)))) == [302]
    many = get("/nothing") * 90 + get()
    assert statuses(await edge.say(*cut(many, [len(many) - 20])))[-1] == 302


async def test_more_requests_at_once_than_may_wait_are_refused_behind_the_answers(edge: RunningEdge) -> None:
    answers = statuses(await edge.say(get("/nothing") * (MAX_PIPELINED + 50)))
    assert answers == [404] * (MAX_PIPELINED + 1) + [400]


async def test_more_connections_than_allowed_are_told_so_and_closed(
    servers: Servers, redis: Redis, tmp_path: Path
) -> None:
    async with edge_on(servers.redis_url, redis, tmp_path, LINKWIRE_EDGE_CONNECTIONS="3") as edge:
        await until(lambda: not edge.state.connections)
        clients = [await edge.connect() for _ in range(3)]
        for client in clients:
            await client.send(get())
            assert (await client.receive()).startswith(REDIRECTED)
        told = await (await edge.connect()).rest()
        assert statuses(told) == [503]
        assert b"retry-after: 1\r\n" in told
        clients.pop().close()
        await until(lambda: len(edge.state.connections) < 3)
        assert statuses(await edge.say(get())) == [302]


async def test_one_client_may_have_only_so_many_connections_unless_it_is_a_trusted_proxy(
    servers: Servers, redis: Redis, tmp_path: Path
) -> None:
    limit = {"LINKWIRE_EDGE_CONNECTIONS_PER_CLIENT": "2"}
    async with edge_on(servers.redis_url, redis, tmp_path / "a", **limit, LINKWIRE_TRUSTED_PROXIES="10.0.0.1") as edge:
        await until(lambda: not edge.state.connections)
        clients = [await edge.connect() for _ in range(2)]
        for client in clients:
            await client.send(get())
            await client.receive()
        assert statuses(await (await edge.connect()).rest()) == [503]
    async with edge_on(servers.redis_url, redis, tmp_path / "b", **limit) as edge:
        clients = [await edge.connect() for _ in range(5)]
        for client in clients:
            await client.send(get())
            assert (await client.receive()).startswith(REDIRECTED)


# The order of answers, and clients that have said all.


async def test_a_hot_link_asked_for_behind_a_cold_one_is_answered_behind_it(
    servers: Servers, redis: Redis, tmp_path: Path
) -> None:
    async with Gate(servers.redis_url) as gate, edge_on(gate.url, redis, tmp_path) as edge:
        await Publisher(redis).put(OTHER, living(link_id=8, to="https://example.com/other"))
        client = await edge.connect()
        gate.hold()
        await client.send(get("/other"))
        await gate.held.wait()
        await client.send(get())
        gate.release()
        assert b"/other" in await client.receive(
            b"/landing\r\ncache-control: private, no-store\r\ncontent-length: 0\r\n\r\n"
        )
        client.close()
        assert [click.link_id for click in edge.new_clicks()][-2:] == [8, 7]


async def test_while_redis_does_not_answer_hot_links_do_and_cold_ones_are_soon_told_to_come_again(
    servers: Servers, redis: Redis, tmp_path: Path
) -> None:
    async with Gate(servers.redis_url) as gate, edge_on(gate.url, redis, tmp_path) as edge:
        gate.hold()
        cold = asyncio.create_task(edge.say(get("/other")))
        for _ in range(20):
            assert statuses(await edge.say(get())) == [302]
            assert not cold.done()
        told = await cold
        assert (statuses(told), b"retry-after: 1" in told) == ([503], True)
        assert statuses(await edge.say(get())) == [302]
        gate.release()


@pytest.mark.parametrize("path", ["/promo", "/nothing"])
async def test_a_client_that_has_closed_its_half_gets_its_answers(edge: RunningEdge, path: str) -> None:
    client = await edge.connect()
    await asyncio.get_running_loop().sock_sendall(client.socket, get(path) + get(path, method="HEAD"))
    client.finish()
    assert len(statuses(await client.rest())) == 2


# A worker that stops.


async def test_a_worker_that_stops_answers_what_it_is_asked_and_says_that_it_is_the_last(edge: RunningEdge) -> None:
    clients = [await edge.connect() for _ in range(3)]
    for client in clients:
        await client.send(get())
        await client.receive()
    for one in list(edge.state.connections):
        one.shutdown()
    for client, path in zip(clients, ("/promo", "/nothing", ""), strict=True):
        if path:
            await client.send(get(path))
        last = await client.rest()
        assert (b"connection: close\r\n" in last) == bool(path)
    await until(lambda: not edge.state.connections)
