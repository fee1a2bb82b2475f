"""Clicks that can't be had any more: counted, never silently gone; and clicks that only seem so: not given up."""

import subprocess

import pytest

from admin import embedded
from admin.database import Connection
from admin.stats import sources
from shared import clicks
from shared.clicks import Batch
from shared.redis import Redis, open_redis
from tests.admin.shipping import NOW_MS, SILENCE_S, Backup, books, committed, pass_time, report, said, step
from tests.admin.test_ingest import deliver, drain, record, stored
from tests.admin.test_sources import has, is_open

DAYS_S = 8 * 24 * 3600


async def lost(connection: Connection) -> list[tuple[str, int, int]]:
    """Spool, position and count of what is lost."""
    rows = await connection.fetch("select spool_id, position, count from clicks_lost order by spool_id, position")
    return [(row["spool_id"], row["position"], row["count"]) for row in rows]


async def test_what_its_shipper_has_not_got_any_more_is_lost_and_what_follows_is_stored(
    connection: Connection, redis: Redis
) -> None:
    await has(connection, redis, "s", 2)
    await report(redis, "s", said(9))
    await step(connection, redis)
    await report(redis, "s", said(9, at_ms=NOW_MS + 1, earliest=5))
    for _ in range(3):
        assert await step(connection, redis) == 0
        assert await lost(connection) == [("s", 2, 3)]
        assert await committed(redis) == {"s": 5}
    assert (await books(connection, redis)).losses == [("s", 3, "its shipper has not got them any more")]
    await deliver(redis, Batch("s", 5, [record(number) for number in range(5, 9)]))
    await drain(connection, redis)
    assert await stored(connection) == [0, 1, 5, 6, 7, 8]
    await report(redis, "s", said(11, earliest=11, is_finished=True, is_removed=True))
    assert await step(connection, redis) == 1
    assert await lost(connection) == [("s", 2, 3), ("s", 9, 2)]
    assert (await books(connection, redis)).total == (11, 11, 0, 6, 0, 0, 5)


# Postgres is restored to an older state.


async def test_restored_while_the_shipper_has_everything_nothing_is_lost(connection: Connection, redis: Redis) -> None:
    await has(connection, redis, "s", 2)
    backup = await Backup.taken(connection)
    await has(connection, redis, "s", 5)
    await report(redis, "s", said(8, earliest=2))
    await step(connection, redis)
    await backup.restore(connection)
    await deliver(redis, Batch("s", 5, [record(5), record(6)]))  # on its way meanwhile
    await drain(connection, redis)
    await step(connection, redis)
    assert await committed(redis) == {"s": 2}
    await books(connection, redis)
    await deliver(redis, Batch("s", 2, [record(number) for number in range(2, 8)]))
    await drain(connection, redis)
    assert await stored(connection) == list(range(8))
    assert (await books(connection, redis)).total == (8, 8, 0, 8, 0, 0, 0)


@pytest.mark.parametrize("has_row", [True, False])
async def test_restored_after_the_shipper_has_removed_segments_these_are_lost(
    connection: Connection, redis: Redis, has_row: bool
) -> None:
    if has_row:
        await has(connection, redis, "s", 2)
    backup, first = await Backup.taken(connection), 2 * has_row
    await has(connection, redis, "s", 5)
    await report(redis, "s", said(8, earliest=4))
    await step(connection, redis)
    await backup.restore(connection)
    await step(connection, redis)
    assert await lost(connection) == [("s", first, 4 - first)]
    assert await committed(redis) == {"s": 4}
    await deliver(redis, Batch("s", 4, [record(number) for number in range(4, 8)]))
    await drain(connection, redis)
    assert await stored(connection) == [*range(first), 4, 5, 6, 7]
    assert (await books(connection, redis)).total == (8, 8, 0, 4 + first, 0, 0, 4 - first)


@pytest.mark.parametrize("has_row", [True, False])
async def test_restored_after_a_spool_was_removed_what_is_missing_of_it_is_lost_and_it_is_closed(
    connection: Connection, redis: Redis, has_row: bool
) -> None:
    if has_row:
        await has(connection, redis, "s", 2)
    backup, first = await Backup.taken(connection), 2 * has_row
    await has(connection, redis, "s", 5)
    await report(redis, "s", said(5, dropped=1, earliest=5, is_finished=True, is_removed=True))
    await step(connection, redis)
    await backup.restore(connection)
    assert await step(connection, redis) == 1
    assert await step(connection, redis) == 0
    assert await lost(connection) == [("s", first, 5 - first)]
    assert await is_open(connection) == {"s": False}
    assert (await books(connection, redis)).total == (6, 5, 1, first, 0, 0, 5 - first)


@pytest.mark.parametrize("was_closed", [True, False])
async def test_restored_while_a_finished_spool_is_still_there_it_is_shipped_again(
    connection: Connection, redis: Redis, was_closed: bool
) -> None:
    """Also when the backup has it closed for its silence: an answer of `CLOSED` would remove what is not stored."""
    await has(connection, redis, "s", 2)
    await report(redis, "s", said(2))
    await step(connection, redis)
    if was_closed:
        await pass_time(connection, SILENCE_S + 1)
        await step(connection, redis)
    backup = await Backup.taken(connection)
    await has(connection, redis, "s", 5)
    await report(redis, "s", said(5, at_ms=NOW_MS + 1, earliest=2, is_finished=True))
    await step(connection, redis)
    await backup.restore(connection)
    assert await step(connection, redis) == 0
    assert await committed(redis) == {"s": 2}
    await deliver(redis, Batch("s", 2, [record(number) for number in range(2, 5)]))
    await drain(connection, redis)
    assert await step(connection, redis) == 1
    assert await committed(redis) == {"s": clicks.CLOSED}
    assert (await books(connection, redis)).total == (5, 5, 0, 5, 0, 0, 0)


async def test_restored_together_with_all_else_being_away_no_spool_is_taken_for_silent(
    connection: Connection, redis: Redis
) -> None:
    """The backup is older than the silence, and the worker is there before the shippers."""
    await has(connection, redis, "s", 2)
    await report(redis, "s", said(5))
    await step(connection, redis)
    await redis.flushall()
    await pass_time(connection, DAYS_S, listening=False)
    for _ in range(2):
        assert await step(connection, redis) == 0
    await has(connection, redis, "s", 5)
    assert await stored(connection) == [0, 1, 2, 3, 4]
    await books(connection, redis)


# A power failure at an edge.


async def test_records_that_a_loss_of_power_destroyed_are_lost_though_the_shipper_does_not_know_of_them(
    connection: Connection, redis: Redis
) -> None:
    await has(connection, redis, "s", 6)
    await report(redis, "s", said(9, dropped=2)._replace(served=12))  # one was begun
    await step(connection, redis)
    await report(redis, "s", said(4, at_ms=NOW_MS + 20_000))
    await step(connection, redis)
    assert (await books(connection, redis)).total == (12, 9, 3, 6, 0, 3, 0)
    await report(redis, "s", said(4, at_ms=NOW_MS + 40_000, is_finished=True))
    assert await step(connection, redis) == 1
    assert await lost(connection) == [("s", 6, 3)]
    assert await committed(redis) == {"s": clicks.CLOSED}
    assert (await books(connection, redis)).total == (12, 9, 3, 6, 0, 0, 3)


async def test_what_was_once_reported_as_dropped_stays_dropped(connection: Connection, redis: Redis) -> None:
    await has(connection, redis, "s", 6)
    for later, what in enumerate((said(4, dropped=2), said(0))):
        await report(redis, "s", what._replace(at_ms=NOW_MS + later * 20_000))
        await step(connection, redis)
        assert (await books(connection, redis)).total == (8, 6, 2, 6, 0, 0, 0)
    await redis.flushall()
    assert (await books(connection, redis)).total == (8, 6, 2, 6, 0, 0, 0)


# Silence.


async def test_a_silent_spool_is_closed_and_what_was_seen_beyond_a_gap_is_lost(
    connection: Connection, redis: Redis
) -> None:
    await has(connection, redis, "whole", 2)
    await has(connection, redis, "gap", 2)
    await deliver(redis, Batch("gap", 4, [record(4), record(5)]))
    await drain(connection, redis)
    await pass_time(connection, SILENCE_S - 60)
    assert await step(connection, redis) == 0
    await pass_time(connection, 120)
    assert await step(connection, redis) == 2
    assert await is_open(connection) == {"whole": False, "gap": False}
    assert await lost(connection) == [("gap", 2, 4)]
    assert await step(connection, redis) == 0
    assert await committed(redis) == {}
    shown = await books(connection, redis)
    assert shown.total == (8, 8, 0, 4, 0, 0, 4)
    assert shown.losses == [("gap", 4, "nothing was heard of the spool")]


async def test_a_silent_spool_is_closed_with_its_last_words(connection: Connection, redis: Redis) -> None:
    """Its last report is younger than the one that was written down."""
    await has(connection, redis, "s", 2)
    await report(redis, "s", said(3))
    await step(connection, redis)
    await report(redis, "s", said(7, dropped=1, at_ms=NOW_MS + 900))
    before = (await books(connection, redis)).total
    await connection.execute("update click_sources set reported_ms = $1", NOW_MS + 900)  # as if by the same clock
    await pass_time(connection, SILENCE_S + 1)
    assert await step(connection, redis) == 1
    assert await lost(connection) == [("s", 2, 5)]
    after = (await books(connection, redis)).total
    assert before == (8, 7, 1, 2, 0, 5, 0)
    assert after == (8, 7, 1, 2, 0, 0, 5)
    for _ in range(2):  # the report is still there
        assert await step(connection, redis) == 0
        await pass_time(connection, SILENCE_S + 1)
    assert (await books(connection, redis)).total == after


async def test_a_silent_spool_that_speaks_again_goes_on(connection: Connection, redis: Redis) -> None:
    await has(connection, redis, "reports", 2)
    await report(redis, "reports", said(3))
    await has(connection, redis, "ships", 2)
    await step(connection, redis)
    await pass_time(connection, SILENCE_S + 1)
    assert await step(connection, redis) == 2
    await report(redis, "reports", said(5, at_ms=NOW_MS + 20_000))
    await deliver(redis, Batch("ships", 2, [record(2)]))
    await drain(connection, redis)
    await step(connection, redis)
    assert await is_open(connection) == {"reports": True, "ships": True}
    assert await committed(redis) == {"reports": 3, "ships": 3}
    await deliver(redis, Batch("reports", 2, [record(number) for number in range(2, 5)]))
    await drain(connection, redis)
    await report(redis, "reports", said(5, is_finished=True))
    await report(redis, "ships", said(3, is_finished=True))
    assert await step(connection, redis) == 2
    assert (await books(connection, redis)).total == (8, 8, 0, 7, 0, 0, 1)


async def test_time_in_which_nobody_listened_is_no_silence(connection: Connection, redis: Redis) -> None:
    """The box was off; its spools are on the disk, and their shipper is not up yet."""
    await has(connection, redis, "s", 2)
    await report(redis, "s", said(5))
    await step(connection, redis)
    await pass_time(connection, DAYS_S, listening=False)
    assert await step(connection, redis) == 0
    await pass_time(connection, SILENCE_S - 60)
    assert await step(connection, redis) == 0
    await pass_time(connection, 120)
    assert await step(connection, redis) == 1
    await books(connection, redis)


async def test_what_is_heard_after_a_pause_is_heard_then_and_not_later(connection: Connection, redis: Redis) -> None:
    await has(connection, redis, "s", 2)
    await step(connection, redis)
    await pass_time(connection, DAYS_S, listening=False)
    await has(connection, redis, "s", 3)
    await step(connection, redis)
    assert await connection.fetchval("select heard_at <= now() from click_sources")


async def after_a_minute(connection: Connection, redis: Redis) -> int:
    """Look every five seconds; the number of spools closed when a minute is silence enough."""
    closed = 0
    for _ in range(13):
        await pass_time(connection, 5, listening=False)
        closed += await sources.step(connection, redis, silence_s=60)
    return closed


async def test_nobody_is_silent_while_redis_is_too_full_to_speak(
    connection: Connection, own_valkey: tuple[embedded.Server, "subprocess.Popen[bytes]"]
) -> None:
    small = open_redis(own_valkey[0].url, timeout_s=5.0)
    await has(connection, small, "s", 2)
    await report(small, "s", said(5))
    await step(connection, small)
    await small.config_set("maxmemory", 1)
    assert await after_a_minute(connection, small) == 0
    await small.config_set("maxmemory", 0)
    assert await step(connection, small) == 0
    assert await committed(small) == {"s": 2}
    assert (await books(connection, small)).total == (5, 5, 0, 2, 0, 3, 0)
    assert await after_a_minute(connection, small) == 1
    await small.aclose()
