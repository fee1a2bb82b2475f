"""Ingest: whatever is delivered, in whatever way, each record is stored once."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from datetime import date
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from redis.exceptions import NoPermissionError, OutOfMemoryError

from admin import embedded
from admin.database import Connection
from admin.stats import ingest, questions
from admin.stats.classify import Class
from shared import clicks
from shared.clicks import MAX_REFERRER, Batch, Click
from shared.redis import Redis, open_redis
from tests.admin.shipping import books, committed, pass_time, report, said, step
from tests.conftest import Servers
from tests.houses import BROWSER

AT_MS = 1_750_000_000_000


def record(
    number: int, *, agent: str = BROWSER, link_id: int = 1, organization_id: int = 7, at_ms: int = AT_MS
) -> bytes:
    return Click(at_ms + number, link_id, organization_id, "GET", "192.0.2.1", agent, "").to_bytes()


async def deliver(redis: Redis, batch: Batch) -> None:
    await redis.xadd(clicks.STREAM, batch.to_fields())  # type: ignore[arg-type]


async def drain(connection: Connection, redis: Redis) -> None:
    """Ingest until nothing is left on the stream. (A step that finds nothing takes Redis a tenth of a second.)"""
    async with asyncio.timeout(30):
        while await redis.xlen(clicks.STREAM):
            await take(connection, redis)


async def take(connection: Connection, redis: Redis) -> int:
    """One step of a worker that has just begun."""
    return await ingest.step(connection, redis, await ingest.Lane.begin(connection), wait_ms=1)


async def stored(connection: Connection) -> list[int]:
    """The numbers of the stored records, as `record` counts them."""
    rows = await connection.fetch("select (extract(epoch from clicked_at) * 1000)::bigint - $1 from clicks", AT_MS)
    return sorted(row[0] for row in rows)


async def total(connection: Connection) -> int:
    found: int = await connection.fetchval("select coalesce(sum(clicks), 0) from packs where level = 0 and link_id = 0")
    return found


async def test_rows_sums_and_position_are_stored_and_the_batch_is_gone(connection: Connection, redis: Redis) -> None:
    await deliver(redis, Batch("s", 0, [record(0), record(1, agent="curl/8"), record(2, agent="")]))
    await drain(connection, redis)
    assert await stored(connection) == [0, 1, 2]
    day = date(2025, 6, 15)
    assert await questions.classes_by_day(connection, 7, 1) == [(day, Class.HUMAN, 1), (day, Class.TOOL, 2)]
    assert await redis.hgetall(clicks.COMMITTED_KEY) == {b"s": b"3"}
    assert await redis.xlen(clicks.STREAM) == 0
    pending = await redis.xpending(clicks.STREAM, clicks.GROUP)
    assert pending["pending"] == 0


async def test_clicks_of_one_link_may_name_different_organizations(connection: Connection, redis: Redis) -> None:
    """It is never so, but then it must not stop ingest."""
    owners = [(1, 7), (1, 8), (2, 9)]
    records = [Click(AT_MS, link_id, owner, "GET", "", BROWSER, "").to_bytes() for link_id, owner in owners]
    await deliver(redis, Batch("s", 0, records))
    await drain(connection, redis)
    rows = await connection.fetch("select organization_id, clicks from packs order by organization_id")
    assert [tuple(row) for row in rows] == [(7, 1), (8, 1), (9, 1)]
    await books(connection, redis)


async def test_a_batch_delivered_ten_times_counts_once(connection: Connection, redis: Redis) -> None:
    for _ in range(10):
        await deliver(redis, Batch("s", 0, [record(0), record(1)]))
    await drain(connection, redis)
    assert await stored(connection) == [0, 1]
    assert await total(connection) == 2


async def test_an_overlapping_batch_is_trimmed(connection: Connection, redis: Redis) -> None:
    await deliver(redis, Batch("s", 0, [record(0), record(1)]))
    await deliver(redis, Batch("s", 1, [record(1), record(2)]))
    await drain(connection, redis)
    assert await stored(connection) == [0, 1, 2]


async def test_a_gap_is_not_stored_but_reported(connection: Connection, redis: Redis) -> None:
    await deliver(redis, Batch("s", 0, [record(0)]))
    await deliver(redis, Batch("s", 2, [record(2)]))
    await drain(connection, redis)
    assert await stored(connection) == [0]
    assert await redis.hgetall(clicks.GAPS_KEY) == {b"s": b"1"}
    await deliver(redis, Batch("s", 1, [record(1), record(2)]))
    await drain(connection, redis)
    assert await stored(connection) == [0, 1, 2]


async def test_what_was_taken_and_not_acknowledged_is_stored_by_the_next(connection: Connection, redis: Redis) -> None:
    """A worker died before its commit, or after it and before the acknowledgement."""
    await take(connection, redis)
    await deliver(redis, Batch("s", 0, [record(0)]))
    await redis.xreadgroup(clicks.GROUP, "ingest", {clicks.STREAM: ">"})
    await drain(connection, redis)
    assert await stored(connection) == [0]
    await connection.execute("update click_sources set position = 1")
    await deliver(redis, Batch("s", 0, [record(0)]))
    await redis.xreadgroup(clicks.GROUP, "ingest", {clicks.STREAM: ">"})
    await drain(connection, redis)
    assert await stored(connection) == [0]


async def test_what_cannot_be_read_is_set_aside_and_the_rest_flows(connection: Connection, redis: Redis) -> None:
    await redis.xadd(clicks.STREAM, {"spool": "s"})
    poison = [b"not JSON", b"[1]", json.dumps([2**70, 1, 7, "GET", "", "", ""]).encode()]
    await deliver(redis, Batch("s", 0, [record(0), *poison, record(4)]))
    await drain(connection, redis)
    assert await stored(connection) == [0, 4]
    aside = await connection.fetch("select spool_id, position, record from clicks_set_aside order by id")
    assert [(row["spool_id"], row["position"]) for row in aside] == [(None, None), ("s", 1), ("s", 2), ("s", 3)]
    assert [row["record"] for row in aside[1:]] == poison
    assert await connection.fetchval("select position from click_sources where spool_id = 's'") == 5


async def test_a_click_may_hold_any_text(connection: Connection, redis: Redis) -> None:
    await deliver(redis, Batch("s", 0, [record(0, agent="\0\x7f\ufffd '; drop table clicks --")]))
    await drain(connection, redis)
    assert await stored(connection) == [0]


async def test_one_worker_ingests_at_a_time(connection: Connection, database_url: str) -> None:
    assert await ingest.lease(connection)
    other = await asyncpg.connect(database_url)
    assert not await ingest.lease(other)
    await connection.close()
    while not await ingest.lease(other):
        pass
    await other.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 12), spans=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), max_size=8))
async def test_any_order_of_any_cuts_ends_with_every_record_once(
    connection: Connection, redis: Redis, count: int, spans: list[tuple[int, int]]
) -> None:
    """Batches of one spool are cut, repeated and shuffled at will; after a last delivery of all, each is there once."""
    await connection.execute("delete from clicks; delete from packs; delete from click_sources")
    await redis.flushall()
    records = [record(number) for number in range(count)]
    for first, length in spans:
        if first < count:
            await deliver(redis, Batch("s", first, records[first : first + length]))
    await drain(connection, redis)
    await deliver(redis, Batch("s", 0, records))
    await drain(connection, redis)
    assert await stored(connection) == list(range(count))
    assert await total(connection) == count


# A worker that dies, and a Redis that is emptied or full.


@pytest.fixture(params=["xack", "hset"])
async def dying(servers: Servers, redis: Redis, request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    """Redis for a worker that commits and gets no further than to this command."""
    await redis.execute_command("ACL", "SETUSER", "dying", "on", ">word", "~*", "&*", "+@all", f"-{request.param}")  # type: ignore[no-untyped-call]
    parts = urlsplit(servers.redis_url)
    client = open_redis(f"redis://dying:word@{parts.hostname}:{parts.port}/0", timeout_s=5.0)
    yield client
    await client.aclose()
    await redis.execute_command("ACL", "DELUSER", "dying")  # type: ignore[no-untyped-call]


async def test_after_a_death_between_commit_and_acknowledgement_nothing_is_there_twice(
    connection: Connection, redis: Redis, dying: Redis
) -> None:
    await connection.execute("alter table clicks add constraint no_beast check (link_id <> 666)")
    await take(connection, redis)
    await redis.xadd(clicks.STREAM, {"no": "batch"})
    await deliver(redis, Batch("s", 0, [b"no click", record(1), record(2, link_id=666), record(3)]))
    for _ in range(3):
        with pytest.raises(NoPermissionError):
            await take(connection, dying)
        assert await stored(connection) == [1, 3]
    await drain(connection, redis)
    assert await stored(connection) == [1, 3]
    rows = await connection.fetch("select spool_id, position from clicks_set_aside order by spool_id, position")
    assert [tuple(row) for row in rows] == [("s", 0), ("s", 2), (None, None)]
    assert await committed(redis) == {"s": 4}
    assert await redis.xlen(clicks.STREAM) == 0
    await books(connection, redis)


async def test_a_redis_that_was_emptied_gets_its_group_again_and_what_is_shipped_again_counts_once(
    connection: Connection, redis: Redis
) -> None:
    await deliver(redis, Batch("s", 0, [record(0), record(1)]))
    await drain(connection, redis)
    await redis.flushall()
    await deliver(redis, Batch("s", 0, [record(0), record(1), record(2)]))
    await drain(connection, redis)
    assert await stored(connection) == [0, 1, 2]
    assert await committed(redis) == {"s": 3}
    await redis.flushall()
    assert await take(connection, redis) == 0  # a group for a stream that is not there
    await deliver(redis, Batch("s", 3, [record(3)]))
    await drain(connection, redis)
    assert await stored(connection) == [0, 1, 2, 3]
    await books(connection, redis)


@pytest.fixture
async def small(own_valkey: tuple[embedded.Server, "subprocess.Popen[bytes]"]) -> AsyncIterator[Redis]:
    """A Redis of the test's own, to be filled."""
    client = open_redis(own_valkey[0].url, timeout_s=5.0)
    yield client
    await client.aclose()


def big(number: int) -> bytes:
    return Click(AT_MS + number, 1, 7, "GET", "", BROWSER, "r" * MAX_REFERRER).to_bytes()


async def test_a_redis_that_is_full_is_emptied_and_told_the_positions_later(
    connection: Connection, small: Redis
) -> None:
    await take(connection, small)
    before = (await small.info("memory"))["used_memory"]
    for first in range(0, 2000, 200):
        await deliver(small, Batch("s", first, [big(number) for number in range(first, first + 200)]))
    await small.config_set("maxmemory", before + 2_000_000)
    for refused in (deliver(small, Batch("s", 2000, [big(2000)])), report(small, "s", said(2000))):
        with pytest.raises(OutOfMemoryError):
            await refused
    assert await take(connection, small) == 10
    assert await stored(connection) == list(range(2000))
    assert await small.xlen(clicks.STREAM) == 0
    assert await committed(small) == {}  # it was full when it was to be told
    await step(connection, small)
    assert await committed(small) == {"s": 2000}
    await deliver(small, Batch("s", 2000, [big(2000)]))
    await drain(connection, small)
    assert await stored(connection) == list(range(2001))
    await books(connection, small)


async def test_a_redis_that_stays_full_stops_neither_ingest_nor_the_look_at_the_sources(
    connection: Connection, small: Redis
) -> None:
    await take(connection, small)
    await report(small, "s", said(3))
    await deliver(small, Batch("s", 0, [record(0)]))
    await deliver(small, Batch("s", 2, [record(2)]))
    await small.config_set("maxmemory", 1)
    await take(connection, small)
    await step(connection, small)
    assert await stored(connection) == [0]
    assert await committed(small) == {}
    assert await small.hgetall(clicks.GAPS_KEY) == {}
    assert (await books(connection, small)).total.in_spool == 2
    await small.config_set("maxmemory", 0)
    await pass_time(connection, 120)
    await step(connection, small)
    assert await committed(small) == {"s": 1}
    assert await small.hgetall(clicks.GAPS_KEY) == {b"s": b"1"}  # the shipper has nothing more to show it by


async def test_the_gauges_say_how_many_batches_wait_and_since_when(connection: Connection, redis: Redis) -> None:
    def gauge(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"linkwire_ingest_{name}")

    await redis.xadd(clicks.STREAM, {"a": "b"}, id="5000-0")
    await redis.xadd(clicks.STREAM, {"a": "b"}, id="9000-0")
    await ingest.measure(redis, 12_500)
    assert (gauge("lag_batches"), gauge("oldest_unacknowledged_seconds")) == (2, 7.5)
    await ingest.measure(redis, 1_000)  # a clock that is behind the one of Redis
    assert gauge("oldest_unacknowledged_seconds") == 0
    await drain(connection, redis)
    await ingest.measure(redis, 12_500)
    assert (gauge("lag_batches"), gauge("oldest_unacknowledged_seconds")) == (0, 0)
