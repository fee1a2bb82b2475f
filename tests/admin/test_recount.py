"""The recount: a click limit holds although Redis has lost its count, because none is granted before all is known."""

import time

import pytest

from admin import embedded
from admin.database import Connection
from admin.stats import recount, sources
from admin.stats.recount import Recount
from shared import clicks
from shared.clicks import SpoolReport
from shared.links import UNCOUNTED_KEY, uses_key
from shared.redis import Redis, open_redis, run_id

LIMITED = 7


@pytest.fixture(autouse=True)
def settles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recount, "_SETTLE_S", 0.0)


async def report(redis: Redis, recorded: int, *, at_ms: int, spool: str = "spool") -> None:
    """A shipper says how many records its spool has."""
    said = SpoolReport(at_ms, "edge", recorded, recorded, 0, 0, is_finished=False, is_removed=False)
    await redis.hset(clicks.REPORTS_KEY, spool, said.to_bytes())


async def store(connection: Connection, position: int, *, uses: int, spool: str = "spool") -> None:
    """Ingest has stored so many records, and so many uses in all."""
    async with connection.transaction():
        await sources.advance(connection, {spool: position}, {spool: position}, {})
    await connection.execute(
        """
        insert into link_counts (link_id, total, uses) values ($1, $2, $2)
        on conflict (link_id) do update set uses = excluded.uses""",
        LIMITED,
        uses,
    )


async def counted(redis: Redis) -> int | None:
    """What Redis knows of the uses."""
    value = await redis.get(uses_key(run_id(await redis.info("server")), LIMITED))
    return int(value) if value is not None else None


async def test_uses_are_counted_when_everything_that_was_recorded_is_stored(
    connection: Connection, redis: Redis
) -> None:
    await store(connection, 5, uses=3)
    await report(redis, 5, at_ms=1000)
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    counting = Recount()
    await counting.step(connection, redis)  # it begins
    await counting.step(connection, redis)  # it has settled
    assert await counting.step(connection, redis) == 0  # the report may be from before
    await report(redis, 9, at_ms=2000)
    assert await counting.step(connection, redis) == 0  # four records are not stored
    await store(connection, 9, uses=6)
    assert await counted(redis) is None
    assert await counting.step(connection, redis) == 1
    assert await counted(redis) == 6
    assert await redis.scard(UNCOUNTED_KEY) == 0


async def test_a_spool_that_nobody_reports_holds_it_up_until_it_is_closed(connection: Connection, redis: Redis) -> None:
    await store(connection, 5, uses=3, spool="silent")
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    counting = Recount()
    for _ in range(4):
        assert await counting.step(connection, redis) == 0
    await connection.execute("update click_sources set closed_at = now()")
    assert await counting.step(connection, redis) == 1
    assert await counted(redis) == 3


async def test_a_spool_that_postgres_does_not_know_yet_is_waited_for(connection: Connection, redis: Redis) -> None:
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    counting = Recount()
    await counting.step(connection, redis)
    await counting.step(connection, redis)
    await report(redis, 2, at_ms=1000, spool="new")
    assert await counting.step(connection, redis) == 0
    await store(connection, 2, uses=2, spool="new")
    assert await counting.step(connection, redis) == 1
    assert await counted(redis) == 2


async def test_links_that_are_asked_for_meanwhile_wait_for_the_next_round(connection: Connection, redis: Redis) -> None:
    await redis.sadd(UNCOUNTED_KEY, 8)
    counting = Recount()
    await counting.step(connection, redis)
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    await counting.step(connection, redis)
    assert await counting.step(connection, redis) == 1
    assert await counted(redis) is None
    assert await redis.smembers(UNCOUNTED_KEY) == {b"7"}


async def test_a_round_takes_its_time(connection: Connection, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recount, "_SETTLE_S", 60.0)
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    counting = Recount()
    for _ in range(4):
        assert await counting.step(connection, redis) == 0
    started_at = time.monotonic()
    monkeypatch.setattr("admin.stats.recount.time.monotonic", lambda: started_at + 61)
    await counting.step(connection, redis)
    assert await counting.step(connection, redis) == 1


async def test_a_count_that_is_there_is_not_touched(connection: Connection, redis: Redis) -> None:
    await redis.set(uses_key(run_id(await redis.info("server")), LIMITED), 5)
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    counting = Recount()
    for _ in range(3):
        await counting.step(connection, redis)
    assert await counted(redis) == 5


async def completed(connection: Connection, redis: Redis, *, uses: int) -> Recount:
    """A round of another worker, which counted so many uses."""
    await store(connection, uses, uses=uses)
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    counting = Recount()
    for at_ms in (uses, uses + 1, uses + 1):
        await counting.step(connection, redis)
        await report(redis, uses, at_ms=at_ms)
    assert await counted(redis) == uses
    return counting


@pytest.mark.parametrize("is_asked_again", [True, False])
async def test_what_a_round_found_is_void_when_another_one_was_completed_and_redis_lost_its_data(
    connection: Connection, redis: Redis, is_asked_again: bool
) -> None:
    """The uses that were granted in between are on the disks of edges."""
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    slow = Recount()
    await slow.step(connection, redis)
    await slow.step(connection, redis)
    await completed(connection, redis, uses=3)
    await redis.flushall()
    if is_asked_again:
        await redis.sadd(UNCOUNTED_KEY, LIMITED)
        await Recount().step(connection, redis)
    await report(redis, 3, at_ms=1000)
    assert await slow.step(connection, redis) == 0
    assert await counted(redis) is None
    await completed(connection, redis, uses=5)


async def test_rounds_of_two_workers_do_not_hold_each_other_up(connection: Connection, redis: Redis) -> None:
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    both = Recount(), Recount()
    done = [await counting.step(connection, redis) for _ in range(3) for counting in both]
    assert done == [0, 0, 0, 0, 1, 0]
    await redis.sadd(UNCOUNTED_KEY, 8)
    assert [await both[1].step(connection, redis) for _ in range(3)] == [0, 0, 1]


async def test_what_a_round_found_is_nothing_to_another_server(
    connection: Connection, redis: Redis, own_valkey: tuple[embedded.Server, object]
) -> None:
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    counting = Recount()
    await counting.step(connection, redis)
    await counting.step(connection, redis)
    async with open_redis(own_valkey[0].url, timeout_s=5) as other:
        # It has everything that the first one had, as a replica would.
        for key in await redis.keys("*"):
            await other.restore(key, 0, await redis.dump(key))  # type: ignore[arg-type]
        await counting.step(connection, other)
        assert await counted(other) is None
        assert await completed(connection, other, uses=2)


async def test_a_round_ends_though_ingest_is_always_behind(connection: Connection, redis: Redis) -> None:
    await redis.sadd(UNCOUNTED_KEY, LIMITED)
    await store(connection, 5, uses=5)
    await report(redis, 5, at_ms=5000)
    counting = Recount()
    await counting.step(connection, redis)
    await counting.step(connection, redis)
    for recorded in (10, 20):
        await report(redis, recorded, at_ms=4000 - recorded)  # by a clock that was set back
        assert await counting.step(connection, redis) == 0
    await store(connection, 10, uses=10)
    assert await counting.step(connection, redis) == 1
