"""Ingest: whatever is delivered, in whatever way, each record is stored once."""

import json
from datetime import date

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from admin.database import Connection
from admin.links import counts
from admin.stats import ingest
from shared import clicks
from shared.clicks import Batch, Click
from shared.redis import Redis
from tests.houses import BROWSER

AT_MS = 1_800_000_000_000


def record(number: int, *, agent: str = BROWSER, link_id: int = 1, at_ms: int = AT_MS) -> bytes:
    return Click(at_ms + number, link_id, 7, "GET", "192.0.2.1", agent, "").to_bytes()


async def deliver(redis: Redis, batch: Batch) -> None:
    await redis.xadd(clicks.STREAM, batch.to_fields())  # type: ignore[arg-type]


async def drain(connection: Connection, redis: Redis) -> None:
    await ingest.step(connection, redis, wait_ms=1)  # makes the group on its first call
    while await ingest.step(connection, redis, wait_ms=1):
        pass


async def stored(connection: Connection) -> list[int]:
    """The numbers of the stored records, as `record` counts them."""
    rows = await connection.fetch("select (extract(epoch from clicked_at) * 1000)::bigint - $1 from clicks", AT_MS)
    return sorted(row[0] for row in rows)


async def total(connection: Connection) -> int:
    found: int = await connection.fetchval("select coalesce(sum(total), 0)::bigint from clicks_by_day")
    return found


async def test_rows_sums_and_position_are_stored_and_the_batch_is_gone(connection: Connection, redis: Redis) -> None:
    await deliver(redis, Batch("s", 0, [record(0), record(1, agent="curl/8"), record(2, agent="")]))
    await drain(connection, redis)
    assert await stored(connection) == [0, 1, 2]
    assert await counts.by_day(connection, 1) == [(date(2027, 1, 15), 3, 2)]
    assert await redis.hgetall(clicks.COMMITTED_KEY) == {b"s": b"3"}
    assert await redis.xlen(clicks.STREAM) == 0
    pending = await redis.xpending(clicks.STREAM, clicks.GROUP)
    assert pending["pending"] == 0


async def test_days_without_a_click_are_in_the_series(connection: Connection, redis: Redis) -> None:
    await deliver(redis, Batch("s", 0, [record(0), record(1, at_ms=AT_MS + 2 * 86_400_000)]))
    await drain(connection, redis)
    assert [row[1] for row in await counts.by_day(connection, 1)] == [1, 0, 1]
    assert await counts.by_day(connection, 2) == []


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
    await ingest.step(connection, redis, wait_ms=1)
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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 12), spans=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), max_size=8))
async def test_any_order_of_any_cuts_ends_with_every_record_once(
    connection: Connection, redis: Redis, count: int, spans: list[tuple[int, int]]
) -> None:
    """Batches of one spool are cut, repeated and shuffled at will; after a last delivery of all, each is there once."""
    await connection.execute("truncate clicks, clicks_by_day, click_sources")
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


@pytest.mark.parametrize("agent", ["Googlebot/2.1 (+http://www.google.com/bot.html)", "curl/8.5.0", ""])
async def test_agents_that_say_so_are_bots(connection: Connection, redis: Redis, agent: str) -> None:
    await deliver(redis, Batch("s", 0, [record(0, agent=agent), record(1)]))
    await drain(connection, redis)
    assert [
        (row["is_bot"], row["user_agent"]) for row in await connection.fetch("select * from clicks order by 1")
    ] == [
        (True, agent),
        (False, BROWSER),
    ]
