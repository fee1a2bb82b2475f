"""Sources: what shippers report, what they are told, and when a spool is closed."""

import time

import pytest

from admin.database import Connection
from admin.stats import sources
from shared import clicks
from shared.clicks import Batch
from shared.redis import Redis
from tests.admin.shipping import NOW_MS, SILENCE_S, books, committed, pass_time, report, reports, said, step
from tests.admin.test_ingest import deliver, drain, record, stored, take

DAY_S = 24 * 3600


async def has(connection: Connection, redis: Redis, spool: str, count: int) -> None:
    """Store the first records of a spool."""
    await deliver(redis, Batch(spool, 0, [record(number) for number in range(count)]))
    await drain(connection, redis)


async def is_open(connection: Connection) -> dict[str, bool]:
    """Every spool that has a row, and whether it is open."""
    rows = await connection.fetch("select spool_id, closed_at is null as is_open from click_sources")
    return {row["spool_id"]: row["is_open"] for row in rows}


async def gaps(redis: Redis) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = await redis.hgetall(clicks.GAPS_KEY)  # type: ignore[assignment]
    return found


async def test_redis_is_told_the_positions_of_all_open_spools_again_when_it_has_lost_them(
    connection: Connection, redis: Redis
) -> None:
    await has(connection, redis, "s", 2)
    await has(connection, redis, "t", 3)
    await report(redis, "u", said(0, dropped=1))
    await has(connection, redis, "closed", 1)
    await report(redis, "closed", said(1, is_finished=True))
    await step(connection, redis)
    assert await committed(redis) == {"s": 2, "t": 3, "u": 0, "closed": clicks.CLOSED}
    await redis.flushall()
    await step(connection, redis)
    assert await committed(redis) == {"s": 2, "t": 3, "u": 0}
    await books(connection, redis)


async def test_a_spool_that_is_finished_and_stored_is_closed_and_its_shipper_is_told(
    connection: Connection, redis: Redis
) -> None:
    await has(connection, redis, "s", 2)
    await report(redis, "s", said(2, dropped=1, is_finished=True))
    assert await step(connection, redis) == 1
    assert await is_open(connection) == {"s": False}
    for later in range(3):
        assert await committed(redis) == {"s": clicks.CLOSED}
        await report(redis, "s", said(2, dropped=1, is_finished=True, at_ms=NOW_MS + later * 60_000))
        assert await step(connection, redis) == 0
    await report(redis, "s", said(2, dropped=1, earliest=2, is_finished=True, is_removed=True))
    assert await step(connection, redis) == 0
    assert await committed(redis) == {}
    assert await is_open(connection) == {"s": False}
    assert (await books(connection, redis)).total == (3, 2, 1, 2, 0, 0, 0)


async def test_a_finished_spool_is_not_closed_before_its_last_record_is_stored(
    connection: Connection, redis: Redis
) -> None:
    await has(connection, redis, "s", 2)
    await report(redis, "s", said(3, is_finished=True))
    assert await step(connection, redis) == 0
    assert await committed(redis) == {"s": 2}
    assert await is_open(connection) == {"s": True}
    await books(connection, redis)
    await has(connection, redis, "s", 3)
    assert await step(connection, redis) == 1
    assert await committed(redis) == {"s": clicks.CLOSED}
    assert (await books(connection, redis)).total == (3, 3, 0, 3, 0, 0, 0)


async def test_a_finished_spool_without_any_click_may_go_and_leaves_no_row(
    connection: Connection, redis: Redis
) -> None:
    await report(redis, "s", said(0))
    await step(connection, redis)
    assert await committed(redis) == {}
    await report(redis, "s", said(0, is_finished=True))
    await step(connection, redis)
    assert await committed(redis) == {"s": clicks.CLOSED}
    await report(redis, "s", said(0, is_finished=True, is_removed=True))
    await step(connection, redis)
    assert await committed(redis) == {}
    assert await is_open(connection) == {}
    await books(connection, redis)


async def test_a_spool_that_dropped_all_its_clicks_leaves_them_in_the_books(
    connection: Connection, redis: Redis
) -> None:
    await report(redis, "s", said(0, dropped=4, is_finished=True))
    assert await step(connection, redis) == 1
    assert await committed(redis) == {"s": clicks.CLOSED}
    await redis.flushall()
    assert (await books(connection, redis)).total == (4, 0, 4, 0, 0, 0, 0)


async def test_what_a_closed_spool_has_dropped_since_is_not_forgotten(connection: Connection, redis: Redis) -> None:
    await has(connection, redis, "s", 1)
    await report(redis, "s", said(1))
    await step(connection, redis)
    await pass_time(connection, SILENCE_S + 1)
    assert await step(connection, redis) == 1
    await report(redis, "s", said(1, dropped=5, is_finished=True))
    await step(connection, redis)
    assert await committed(redis) == {"s": clicks.CLOSED}
    assert (await books(connection, redis)).total == (6, 1, 5, 1, 0, 0, 0)


async def test_an_old_report_that_comes_back_with_an_old_redis_makes_nothing_unknown(
    connection: Connection, redis: Redis
) -> None:
    await has(connection, redis, "s", 3)
    await report(redis, "s", said(3, dropped=2, earliest=3, is_finished=True, is_removed=True))
    await step(connection, redis)
    await report(redis, "s", said(1, at_ms=NOW_MS - 60_000))
    for closed in (0, 1, 0):
        assert await step(connection, redis) == closed
        assert (await books(connection, redis)).total == (5, 3, 2, 3, 0, 0, 0)
        await pass_time(connection, SILENCE_S + 1)


async def test_a_late_repeat_of_a_closed_spool_is_recognised(connection: Connection, redis: Redis) -> None:
    await has(connection, redis, "s", 3)
    await report(redis, "s", said(3, earliest=3, is_finished=True, is_removed=True))
    await step(connection, redis)
    for first in (0, 1, 2):
        await deliver(redis, Batch("s", first, [record(number) for number in range(first, 3)]))
        await drain(connection, redis)
        assert await is_open(connection) == {"s": False}
    assert await stored(connection) == [0, 1, 2]
    assert await committed(redis) == {"s": 3}
    await step(connection, redis)
    assert await committed(redis) == {}
    await books(connection, redis)


async def test_a_closed_spool_that_ships_something_new_is_open_again(connection: Connection, redis: Redis) -> None:
    await has(connection, redis, "s", 2)
    await pass_time(connection, SILENCE_S + 1)
    await step(connection, redis)
    assert await is_open(connection) == {"s": False}
    await deliver(redis, Batch("s", 3, [record(3)]))  # 2 is missing
    await drain(connection, redis)
    await step(connection, redis)
    assert await is_open(connection) == {"s": True}
    assert await gaps(redis) == {b"s": b"2"}
    assert await committed(redis) == {"s": 2}
    await has(connection, redis, "s", 4)
    assert await stored(connection) == [0, 1, 2, 3]
    await books(connection, redis)


async def test_reports_stay_for_seven_days_after_their_spool_was_closed(connection: Connection, redis: Redis) -> None:
    for spool in ("old", "new", "open"):
        await has(connection, redis, spool, 1)
    for spool in ("old", "new"):
        await report(redis, spool, said(1, earliest=1, is_finished=True, is_removed=True))
    now_ms = time.time_ns() // 1_000_000
    await report(redis, "no click, old", said(0, at_ms=now_ms - 8 * DAY_S * 1000))
    await report(redis, "no click, new", said(0, at_ms=now_ms - 6 * DAY_S * 1000))
    await step(connection, redis)
    assert await reports(redis) == {"old", "new", "no click, new"}
    await connection.execute("update click_sources set heard_at = heard_at - interval '6 days'")
    await connection.execute("update click_sources set heard_at = heard_at - interval '2 days' where spool_id = 'old'")
    await report(redis, "open", said(1))
    await step(connection, redis)
    await pass_time(connection, 8 * DAY_S)
    await connection.execute("update click_sources set heard_at = now() where spool_id = 'new'")
    await sources.step(connection, redis, silence_s=30 * DAY_S)
    assert await reports(redis) == {"new", "open", "no click, new"}
    assert await committed(redis) == {"open": 1}
    assert (await books(connection, redis)).total.stored == 3


async def test_what_redis_says_of_spools_that_nobody_asks_about_is_taken_away(
    connection: Connection, redis: Redis
) -> None:
    await has(connection, redis, "s", 1)
    for key in (clicks.COMMITTED_KEY, clicks.GAPS_KEY):
        await redis.hset(key, mapping={"stale": "7", b"\xff": "7", "s": "0"})
    await step(connection, redis)
    assert await committed(redis) == {"s": 1}
    assert await gaps(redis) == {b"s": b"0"}


async def test_reports_that_cannot_be_read_or_kept_are_passed_over(connection: Connection, redis: Redis) -> None:
    good = said(2)
    for name, value in {
        b"not JSON": b"?",
        b"a list": b"[]",
        b"too few": b'{"at_ms":1}',
        b"negative": good._replace(recorded=-1).to_bytes(),
        b"\xff": good.to_bytes(),
        b"a \0 in the name": good.to_bytes(),
        b"a \0 in the host": good._replace(host="\0").to_bytes(),
        "".join(f"{number:x}" for number in range(9999)).encode(): good.to_bytes(),
        b"good": good.to_bytes(),
    }.items():
        await redis.hset(clicks.REPORTS_KEY, name, value)
    await step(connection, redis)
    assert await is_open(connection) == {"good": True}
    assert await committed(redis) == {"good": 0}
    assert (await books(connection, redis)).total == (2, 2, 0, 0, 0, 2, 0)


@pytest.mark.parametrize("skew_s", [-57 * 365 * DAY_S, -8 * DAY_S, -3600, 3600, 8 * DAY_S, 10**12])
async def test_a_wrong_clock_of_an_edge_neither_closes_its_spool_nor_loses_anything(
    connection: Connection, redis: Redis, skew_s: int
) -> None:
    at_ms = max(0, time.time_ns() // 1_000_000 + skew_s * 1000)
    await has(connection, redis, "s", 2)
    for later_s in range(0, 3 * SILENCE_S, SILENCE_S // 2):
        await report(redis, "s", said(3, at_ms=at_ms + later_s * 1000))
        assert await step(connection, redis) == 0
        assert await committed(redis) == {"s": 2}
        assert await reports(redis) == {"s"}
        await pass_time(connection, SILENCE_S // 2)
    await report(redis, "s", said(3, at_ms=at_ms))  # it is set right, or back
    assert await step(connection, redis) == 0
    assert (await books(connection, redis)).total == (3, 3, 0, 2, 0, 1, 0)
    await has(connection, redis, "s", 3)
    await report(redis, "s", said(3, at_ms=at_ms, earliest=3, is_finished=True, is_removed=True))
    assert await step(connection, redis) == 1
    await step(connection, redis)
    assert await reports(redis) == {"s"}  # for a Postgres that is restored
    await books(connection, redis)


async def test_a_spool_that_says_ever_the_same_is_heard(connection: Connection, redis: Redis) -> None:
    """Its clock may even stand almost still."""
    await has(connection, redis, "s", 1)
    for number in range(5):
        await report(redis, "s", said(1, at_ms=NOW_MS + number))
        await step(connection, redis)
        await pass_time(connection, SILENCE_S - 1)
    assert await is_open(connection) == {"s": True}
    assert (await books(connection, redis)).spools[0].host == "edge-1"


async def test_the_host_of_a_busy_spool_is_written_down(connection: Connection, redis: Redis) -> None:
    await has(connection, redis, "s", 1)
    await report(redis, "s", said(5, dropped=2))
    await step(connection, redis)
    await redis.flushall()
    (spool,) = (await books(connection, redis)).spools
    assert (spool.host, spool.numbers) == ("edge-1", (7, 5, 2, 1, 0, 4, 0))


async def test_records_that_got_lost_on_their_way_are_asked_for_when_nothing_else_would_show_it(
    connection: Connection, redis: Redis
) -> None:
    """Somebody deleted the stream with the last batch of a spool."""
    await has(connection, redis, "s", 2)
    await deliver(redis, Batch("s", 2, [record(2)]))
    await redis.delete(clicks.STREAM)
    await report(redis, "s", said(3))
    await step(connection, redis)
    assert await gaps(redis) == {}  # they may be on their way
    await pass_time(connection, 120)
    await redis.xadd(clicks.STREAM, Batch("t", 0, [record(7)]).to_fields(), id="1-0")  # type: ignore[arg-type]
    await step(connection, redis)
    assert await gaps(redis) == {}  # they may be behind what has waited for so long
    await drain(connection, redis)
    await step(connection, redis)
    assert await gaps(redis) == {b"s": b"2"}
    await redis.delete(clicks.GAPS_KEY)
    await step(connection, redis)
    assert await gaps(redis) == {}  # asked once a minute
    await has(connection, redis, "s", 3)
    await pass_time(connection, 120)
    await step(connection, redis)
    assert await gaps(redis) == {}
    await books(connection, redis)


async def test_a_gap_that_the_shipper_has_not_heard_of_is_told_again(connection: Connection, redis: Redis) -> None:
    await take(connection, redis)
    await deliver(redis, Batch("s", 1, [record(1)]))
    await drain(connection, redis)
    await redis.delete(clicks.GAPS_KEY)  # it took it, and died
    await pass_time(connection, 120)
    await step(connection, redis)
    assert await gaps(redis) == {b"s": b"0"}
    await has(connection, redis, "s", 2)
    assert await stored(connection) == [0, 1]
    await books(connection, redis)
