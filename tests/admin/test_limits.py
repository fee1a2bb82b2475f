"""Limits: exact while Redis is there, for any number of processes, and never in the way when it is not."""

import asyncio
import contextlib
import logging
import multiprocessing
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from admin import embedded
from admin.http import limits as module
from admin.http.limits import PATIENCE_S, Limit, Limits, Standing, headers, keys_of
from shared.redis import Redis, open_redis
from tests.conftest import Servers

OwnValkey = tuple[embedded.Server, "subprocess.Popen[bytes]"]

NOBODY = "redis://127.0.0.1:1"
MINUTE, DAY = 60, 86400


@contextlib.asynccontextmanager
async def opened(url: str, *, timeout_s: float = 20.0) -> AsyncIterator[Limits]:
    """Patient: a busy machine must not be taken for an outage."""
    async with open_redis(url, timeout_s=timeout_s) as client:
        yield Limits(client, timeout_s=timeout_s)


@pytest.fixture
async def limits(redis: Redis) -> Limits:
    return Limits(redis, timeout_s=20.0)


def allowed(standings: Sequence[Standing]) -> int:
    return sum(standing.is_allowed for standing in standings)


async def used(redis: Redis, who: str, *limits: Limit) -> list[int]:
    return [int(value or 0) for value in await redis.mget(keys_of(who, limits))]


# Counted in Redis.


async def test_as_many_pass_as_the_limit_says_whoever_asks_and_how_many_at_once(servers: Servers, redis: Redis) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(opened(servers.redis_url)) for _ in range(4)]
        standings = await asyncio.gather(
            *[clients[number % 4].charge("one", [Limit(60, MINUTE), Limit(1000, DAY)]) for number in range(200)]
        )
    assert allowed(standings) == 60
    assert sorted(standing.remaining for standing in standings if standing.is_allowed) == list(range(60))
    assert await used(redis, "one", Limit(60, MINUTE), Limit(1000, DAY)) == [60, 60]


def charge_elsewhere(url: str, times: int, start: Barrier, passed: "Queue[int]") -> None:
    """One of the processes of the next test."""

    async def charge() -> int:
        async with opened(url) as limits:
            await limits.is_open("somebody else", [Limit(1, MINUTE)])
            start.wait(60)
            return allowed(await asyncio.gather(*[limits.charge("one", [Limit(60, MINUTE)]) for _ in range(times)]))

    passed.put(asyncio.run(charge()))


def test_of_61_requests_in_a_minute_from_four_processes_60_pass(servers: Servers) -> None:
    context = multiprocessing.get_context("spawn")
    start, passed = context.Barrier(4), context.Queue()
    processes = [
        context.Process(target=charge_elsewhere, args=(servers.redis_url, times, start, passed))
        for times in (16, 15, 15, 15)
    ]
    asyncio.run(emptied(servers.redis_url))
    for process in processes:
        process.start()
    each = [passed.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(each) == 60


async def emptied(url: str) -> None:
    async with open_redis(url, timeout_s=20.0) as client:
        await client.flushall()


async def test_what_the_minute_refuses_is_not_charged_to_the_day(limits: Limits, redis: Redis) -> None:
    both = [Limit(2, MINUTE), Limit(100, DAY)]
    standings = [await limits.charge("one", both) for _ in range(5)]
    assert [standing.is_allowed for standing in standings] == [True, True, False, False, False]
    assert await used(redis, "one", *both) == [2, 2]


async def test_nor_what_the_day_refuses_to_the_minute(limits: Limits, redis: Redis) -> None:
    both = [Limit(10, MINUTE), Limit(3, DAY)]
    standings = [await limits.charge("one", both) for _ in range(5)]
    assert allowed(standings) == 3
    assert await used(redis, "one", *both) == [3, 3]


async def test_a_refusal_begins_no_window(limits: Limits, redis: Redis) -> None:
    assert not (await limits.charge("one", [Limit(5, MINUTE), Limit(100, DAY)], cost=6)).is_allowed
    assert await redis.dbsize() == 0


async def test_a_standing_tells_of_the_window_with_the_least_left(limits: Limits) -> None:
    both = [Limit(5, MINUTE), Limit(6, DAY)]
    standing = await limits.charge("one", both)
    assert (standing.limit, standing.remaining) == (5, 4)
    standing = await limits.charge("one", [Limit(7, MINUTE), Limit(6, DAY)])
    assert (standing.limit, standing.remaining) == (6, 4)
    now = int(time.time())
    assert now + DAY - 60 < standing.reset_at <= now + DAY + 1


async def test_a_refused_standing_tells_of_the_window_that_opens_last(limits: Limits, redis: Redis) -> None:
    both = [Limit(1, MINUTE), Limit(1, DAY)]
    await limits.charge("one", both)
    standing = await limits.charge("one", both)
    assert (standing.limit, standing.remaining) == (1, 0)
    assert DAY - 60 < standing.retry_after_s <= DAY
    await redis.pexpire(keys_of("one", both)[1], 20_000)
    standing = await limits.charge("one", both)
    assert 50 < standing.retry_after_s <= MINUTE


async def test_a_window_that_would_open_later_but_refuses_nothing_is_not_told(limits: Limits) -> None:
    both = [Limit(1, MINUTE), Limit(2, DAY)]
    await limits.charge("one", both)
    standing = await limits.charge("one", both)
    assert standing.limit == 1
    assert 1 <= standing.retry_after_s <= MINUTE


async def test_a_window_begins_with_its_first_request_and_does_not_move(limits: Limits, redis: Redis) -> None:
    [key] = keys_of("one", [Limit(5, MINUTE)])
    before = time.time()
    first = await limits.charge("one", [Limit(5, MINUTE)])
    assert before + MINUTE - 1 < first.reset_at <= time.time() + MINUTE + 1
    assert 0 < await redis.pttl(key) <= MINUTE * 1000
    await redis.pexpire(key, 30_000)
    later = await limits.charge("one", [Limit(5, MINUTE)])
    assert later.reset_at <= time.time() + 31
    assert await redis.pttl(key) <= 30_000


@pytest.mark.parametrize("url", [None, NOBODY], ids=["Redis", "local"])
async def test_a_window_has_ended_when_the_refusal_says_so_and_not_before(servers: Servers, url: str | None) -> None:
    async with opened(url or servers.redis_url) as limits:
        who = secrets.token_hex(8)
        began = time.monotonic()
        assert (await limits.charge(who, [Limit(1, 1)])).is_allowed
        refused = await limits.charge(who, [Limit(1, 1)])
        assert refused.retry_after_s == 1
        while not (again := await limits.charge(who, [Limit(1, 1)])).is_allowed:
            assert time.monotonic() - began < 1.2
            await asyncio.sleep(0.01)
        assert time.monotonic() - began > 0.98
        assert again.remaining == 0
        assert (await limits.charge(who, [Limit(1, 1)])).retry_after_s == 1


async def test_the_window_after_one_that_ended_is_a_whole_one(limits: Limits, redis: Redis) -> None:
    both = [Limit(2, MINUTE), Limit(100, DAY)]
    for _ in range(3):
        await limits.charge("one", both)
    await redis.delete(keys_of("one", both)[0])
    assert allowed([await limits.charge("one", both) for _ in range(3)]) == 2
    assert await used(redis, "one", *both) == [2, 4]


async def test_a_cost_is_taken_whole_or_not_at_all(limits: Limits, redis: Redis) -> None:
    ten = [Limit(10, MINUTE)]
    assert (await limits.charge("one", ten, cost=7)).remaining == 3
    refused = await limits.charge("one", ten, cost=4)
    assert not refused.is_allowed
    assert refused.remaining == 3
    assert (await limits.charge("one", ten, cost=3)).remaining == 0
    assert await used(redis, "one", *ten) == [10]


async def test_looking_takes_nothing(limits: Limits, redis: Redis) -> None:
    two = [Limit(2, MINUTE)]
    assert (await limits.is_open("one", two)).remaining == 2
    assert await redis.dbsize() == 0
    await limits.charge("one", two)
    assert [(await limits.is_open("one", two)).remaining for _ in range(3)] == [1, 1, 1]
    await limits.charge("one", two)
    standing = await limits.is_open("one", two)
    assert not standing.is_allowed
    assert 1 <= standing.retry_after_s <= MINUTE


async def test_a_limit_that_was_lowered_counts_what_was_used_before(limits: Limits) -> None:
    for _ in range(10):
        await limits.charge("one", [Limit(10, MINUTE)])
    standing = await limits.charge("one", [Limit(5, MINUTE)])
    assert not standing.is_allowed
    assert standing.remaining == 0


async def test_what_is_forgotten_begins_anew_and_nothing_else_does(limits: Limits) -> None:
    both = [Limit(1, MINUTE), Limit(1, DAY)]
    for who in ("one", "other"):
        await limits.charge(who, both)
    await limits.forget("one", both[:1])
    assert not (await limits.charge("one", both)).is_allowed
    await limits.forget("one", both)
    assert (await limits.charge("one", both)).is_allowed
    assert not (await limits.charge("other", both)).is_allowed


@pytest.mark.parametrize("harm", ["no expiry", "an expiry in a year"])
async def test_a_window_that_lost_its_end_locks_nobody_out(limits: Limits, redis: Redis, harm: str) -> None:
    one = [Limit(1, MINUTE)]
    [key] = keys_of("one", one)
    await limits.charge("one", one)
    await (redis.persist(key) if harm == "no expiry" else redis.expire(key, 365 * DAY))
    assert (await limits.charge("one", one)).is_allowed
    assert not (await limits.charge("one", one)).is_allowed
    assert 0 < await redis.ttl(key) <= MINUTE


async def test_a_charge_is_one_command(limits: Limits, redis: Redis) -> None:
    await limits.charge("one", [Limit(10, MINUTE), Limit(10, DAY)])
    before = await redis.info("commandstats")
    await limits.charge("one", [Limit(10, MINUTE), Limit(10, DAY)])
    after = await redis.info("commandstats")
    # The script's own are among them; of what a client sends there is one.
    called = {name for name in after if after[name]["calls"] != before.get(name, {"calls": 0})["calls"]}
    assert called == {f"cmdstat_{name}" for name in ("evalsha", "time", "get", "pttl", "incrby", "info")}
    assert after["cmdstat_evalsha"]["calls"] == before["cmdstat_evalsha"]["calls"] + 1


async def test_a_redis_that_forgot_the_script_is_told_again(limits: Limits, redis: Redis) -> None:
    await limits.charge("one", [Limit(10, MINUTE)])
    await redis.script_flush()
    assert (await limits.charge("one", [Limit(10, MINUTE)])).remaining == 8


ANYBODY = st.text(st.characters(exclude_categories=())) | st.text("{}:limits\0\ud800?")


@given(ANYBODY)
@example("")
@example("}{")
def test_the_windows_of_anybody_are_in_one_slot_of_a_cluster(who: str) -> None:
    minute, day = keys_of(who, [Limit(1, MINUTE), Limit(1, DAY)])
    assert minute != day
    assert key_slot(minute.encode()) == key_slot(day.encode())
    assert minute[minute.index("{") : minute.index("}")] == day[day.index("{") : day.index("}")]


@given(ANYBODY, ANYBODY)
@example("\ud800", "?")
def test_nobody_has_the_windows_of_another(one: str, other: str) -> None:
    assert (keys_of(one, [Limit(1, MINUTE)]) == keys_of(other, [Limit(1, MINUTE)])) == (one == other)


# Against a model.

HOUR_AND_DAY = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(
    lambda counts: [Limit(counts[0], 3600), Limit(counts[1], DAY)]
)
EVENTS = st.lists(
    st.integers(1, 5) | st.sampled_from(["look", "end the hour", "end the day", "forget"]), min_size=1, max_size=15
)


class Model:
    """Two windows as one would count them on paper."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = limits
        self._used = [0, 0]

    def ask(self, cost: int, *, is_charged: bool) -> tuple[bool, int, int]:
        """Whether it is allowed, and the limit and the rest of the window that is told of."""
        left = [limit.count - used for limit, used in zip(self._limits, self._used, strict=True)]
        if min(left) < cost:
            told = 1 if left[1] < cost else 0  # the day opens last
            return False, self._limits[told].count, left[told]
        if is_charged:
            left = [rest - cost for rest in left]
            self._used = [used + cost for used in self._used]
        told = 0 if left[0] < left[1] else 1
        return True, self._limits[told].count, left[told]

    def end(self, *windows: int) -> None:
        for window in windows:
            self._used[window] = 0


async def follow(url: str, windows: Sequence[Limit], events: Sequence[int | str], *, is_local: bool) -> None:
    held = [limit._replace(count=max(1, limit.count // (4 if is_local else 1))) for limit in windows]
    model, who = Model(held), secrets.token_hex(8)
    async with opened(url) as limits:
        for event in events:
            if event in ("forget", "end the hour", "end the day"):
                ended = {"forget": [0, 1], "end the hour": [0], "end the day": [1]}[str(event)]
                await limits.forget(who, [windows[number] for number in ended])
                model.end(*ended)
                continue
            is_charged, cost = event != "look", event if isinstance(event, int) else 1
            standing = await (limits.charge(who, windows, cost=cost) if is_charged else limits.is_open(who, windows))
            found = standing.is_allowed, standing.limit, standing.remaining
            assert found == model.ask(cost, is_charged=is_charged)


@settings(deadline=None)
@given(HOUR_AND_DAY, EVENTS)
def test_any_sequence_is_counted_as_on_paper(
    servers: Servers, windows: Sequence[Limit], events: Sequence[int | str]
) -> None:
    asyncio.run(follow(servers.redis_url, windows, events, is_local=False))


@settings(deadline=None)
@given(HOUR_AND_DAY, EVENTS)
def test_any_sequence_is_counted_as_on_paper_without_redis(
    windows: Sequence[Limit], events: Sequence[int | str]
) -> None:
    asyncio.run(follow(NOBODY, windows, events, is_local=True))


# While Redis is away.


async def test_while_redis_hangs_each_process_holds_a_quarter_and_nobody_waits(
    own_valkey: OwnValkey, caplog: pytest.LogCaptureFixture
) -> None:
    server, process = own_valkey
    async with open_redis(server.url, timeout_s=1.0) as client:  # ends a wait also where its cancellation is lost
        limits = Limits(client, timeout_s=1.0)  # a busy machine must not be taken for an outage
        caplog.set_level(logging.INFO, "admin.http.limits")
        hundred = [Limit(100, MINUTE)]
        assert (await limits.charge("one", hundred)).limit == 100
        process.send_signal(signal.SIGSTOP)
        asked_at = time.monotonic()
        standings = await asyncio.gather(*[limits.charge("one", hundred) for _ in range(20)])
        assert 0.9 < time.monotonic() - asked_at < 4
        asked_at = time.monotonic()
        standings += [await limits.charge("one", hundred) for _ in range(20)]
        assert time.monotonic() - asked_at < 0.9
        assert [standing.limit for standing in standings] == [25] * 40
        assert allowed(standings) == 25
        await asyncio.sleep(PATIENCE_S)
        assert not (await limits.charge("one", hundred)).is_allowed
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        process.send_signal(signal.SIGCONT)
        while (standing := await limits.charge("one", hundred)).limit != 100:
            await asyncio.sleep(0.05)
        assert standing.is_allowed
        assert (await limits.charge("one", hundred)).limit == 100
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_request_waits_a_tenth_of_a_second(own_valkey: OwnValkey) -> None:
    server, process = own_valkey
    async with open_redis(server.url, timeout_s=5.0) as client:
        process.send_signal(signal.SIGSTOP)
        asked_at = time.monotonic()
        assert (await Limits(client).charge("one", [Limit(100, MINUTE)])).limit == 25
        assert 0.09 < time.monotonic() - asked_at < 0.9


async def test_a_redis_that_refuses_and_one_that_is_gone_are_away(
    own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    server, process = own_valkey
    async with opened(server.url) as limits:
        client = limits._redis
        assert (await limits.charge("one", [Limit(8, MINUTE)])).limit == 8
        await client.config_set("maxmemory", 1)  # writes are refused from now on, and reading is not
        assert (await limits.charge("one", [Limit(8, MINUTE)])).limit == 2
        await client.config_set("maxmemory", 0)
        assert (await limits.charge("one", [Limit(8, MINUTE)])).remaining == 6
        process.kill()
        process.wait()
        assert [(await limits.charge("one", [Limit(8, MINUTE)])).is_allowed for _ in range(3)] == [True, False, False]
        await limits.forget("one", [Limit(8, MINUTE)])
        assert (await limits.is_open("one", [Limit(8, MINUTE)])).remaining == 2


async def test_a_quarter_of_little_is_one() -> None:
    async with opened(NOBODY) as limits:
        standings = [await limits.charge("one", [Limit(3, MINUTE)]) for _ in range(2)]
    assert [(standing.limit, standing.is_allowed) for standing in standings] == [(1, True), (1, False)]


async def test_a_local_standing_ends_with_its_window() -> None:
    async with opened(NOBODY) as limits:
        before = time.time()
        standings = [await limits.charge("one", [Limit(4, MINUTE)]) for _ in range(2)]
    for standing in standings:
        assert before + MINUTE - 1 < standing.reset_at <= time.time() + MINUTE + 1
    assert 58 <= standings[1].retry_after_s <= MINUTE


async def test_the_local_memory_is_bounded_and_forgets_who_came_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOCAL_WINDOWS", 10)
    async with opened(NOBODY) as limits:
        for number in range(10):
            await limits.charge(f"{number}", [Limit(8, MINUTE)])
        await limits.charge("0", [Limit(8, MINUTE)])
        await limits.charge("10", [Limit(8, MINUTE)])
        left = [(await limits.is_open(f"{number}", [Limit(8, MINUTE)])).remaining for number in range(11)]
        assert left == [0, 2, *[1] * 9]
        assert len(limits._local._begun) == 10


async def test_what_is_refused_needs_no_local_memory() -> None:
    async with opened(NOBODY) as limits:
        for number in range(10):
            await limits.charge(f"{number}", [Limit(4, MINUTE)], cost=2)
        assert not limits._local._begun


# What an answer says.


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (
            Standing(60, 12, 1_700_000_000, 0),
            {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "12", "X-RateLimit-Reset": "1700000000"},
        ),
        (
            Standing(60, 0, 1_700_000_000, 7),
            {
                "X-RateLimit-Limit": "60",
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": "1700000000",
                "Retry-After": "7",
            },
        ),
    ],
    ids=["allowed", "refused"],
)
def test_the_headers_of_an_answer(standing: Standing, expected: dict[str, Any]) -> None:
    assert headers(standing) == expected
