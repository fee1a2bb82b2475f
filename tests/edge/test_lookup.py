"""Lookup, on a real Valkey: what it remembers, and when it must not say "there is none"."""

import asyncio
import signal
import time

import pytest

from admin import embedded
from edge.lookup import Lookup
from shared.links import Address, Published
from shared.redis import Redis
from tests.conftest import Servers
from tests.edge.lookups import (
    ANOTHER_RUN,
    FIRST,
    REMOVED,
    SECOND,
    UNAVAILABLE,
    OwnValkey,
    found,
    gets,
    is_forgotten,
    looking_up,
    looking_up_in,
    publishing,
    until_caught_up,
    until_found,
)
from tests.edge.publishing import OTHER, PROMO, Gate, Publisher, living
from tests.servers import run
from tests.shared.waiting import until

# What is remembered.


async def test_a_found_link_is_remembered_and_redis_is_not_asked_again(lookup: Lookup, publisher: Publisher) -> None:
    await publisher.put(PROMO, FIRST)
    assert await lookup.find(PROMO) == FIRST.entry
    await publisher.drop(PROMO)
    assert await lookup.find(PROMO) == FIRST.entry


async def test_an_absence_is_remembered_and_redis_is_not_asked_again(lookup: Lookup, publisher: Publisher) -> None:
    assert await lookup.find(PROMO) is None
    await publisher.put(PROMO, FIRST)
    assert await lookup.find(PROMO) is None


async def test_a_tombstone_is_an_absence_and_is_remembered_as_one(lookup: Lookup, publisher: Publisher) -> None:
    await publisher.put(PROMO, Published(4, None))
    assert await lookup.find(PROMO) is None
    await publisher.put(PROMO, living(5))
    assert await lookup.find(PROMO) is None
    await publisher.announce(PROMO, living(5))
    await until_found(lookup, PROMO, living(5).entry)


async def test_addresses_with_the_same_path_on_other_hosts_are_others(lookup: Lookup, publisher: Publisher) -> None:
    await publisher.put(PROMO, FIRST)
    assert await lookup.find(PROMO) == FIRST.entry
    assert await lookup.find(PROMO._replace(hostname="other.example")) is None


async def test_found_links_fill_memory_up_to_its_bound_and_the_least_recently_used_goes(
    servers: Servers, publisher: Publisher
) -> None:
    await publisher.complete()
    old, used, new = (Address("go.example", f"/{name}") for name in ("old", "used", "new"))
    async with looking_up(servers.redis_url, memory_entries=4) as lookup:
        await until(lambda: lookup.is_complete)
        for address in (used, old):
            await publisher.put(address, FIRST)
            assert await lookup.find(address) == FIRST.entry
        assert await lookup.find(used) == FIRST.entry
        await publisher.put(new, FIRST)
        assert await lookup.find(new) == FIRST.entry
        for address in (used, old, new):
            await publisher.drop(address)
        assert [await found(lookup, address) for address in (used, old, new)] == [FIRST.entry, None, FIRST.entry]


async def test_a_memory_of_no_entries_asks_redis_each_time(servers: Servers, publisher: Publisher) -> None:
    async with looking_up(servers.redis_url, memory_entries=0) as lookup:
        for published in (FIRST, SECOND):
            await publisher.put(PROMO, published)
            assert await lookup.find(PROMO) == published.entry


async def test_absences_fill_memory_up_to_their_bound(
    lookup: Lookup, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.lookup._ABSENCES", 2)
    addresses = [Address("go.example", f"/{number}") for number in range(3)]
    for address in addresses:
        assert await lookup.find(address) is None
    for address in addresses:
        await publisher.put(address, FIRST)
    # Asked from the newest on, because each answer that is found leaves the absences as they are.
    assert [await lookup.find(address) for address in reversed(addresses)] == [None, None, FIRST.entry]


# Lookups in flight.


@pytest.mark.parametrize(
    ("before", "change"),
    [
        pytest.param(None, FIRST, id="an absence, overtaken by a new link"),
        pytest.param(FIRST, SECOND, id="a link, overtaken by an edit"),
        pytest.param(FIRST, REMOVED, id="a link, overtaken by its deletion"),
    ],
)
async def test_an_answer_that_was_overtaken_by_a_change_is_not_remembered(
    servers: Servers, publisher: Publisher, before: Published | None, change: Published
) -> None:
    await publisher.complete()
    async with Gate(servers.redis_url) as gate, looking_up(servers.redis_url, through=gate.url) as lookup:
        await until(lambda: lookup.is_complete)
        watched = Address("go.example", "/watched")
        await publisher.put(watched, FIRST)
        assert await lookup.find(watched) == FIRST.entry
        if before:
            await publisher.put(PROMO, before)

        gate.hold()
        asking = asyncio.create_task(lookup.find(PROMO))
        await gate.held.wait()  # Redis has answered, and the answer is on its way
        await publisher.change(PROMO, change)
        await publisher.announce(watched, SECOND)
        await until_found(lookup, watched, SECOND.entry)  # so the change before it has been applied as well
        gate.release()

        assert await asking == (before.entry if before else None)
        assert await lookup.find(PROMO) == change.entry


async def test_an_answer_on_its_way_while_memory_is_emptied_is_not_remembered(
    servers: Servers, publisher: Publisher
) -> None:
    await publisher.complete()
    async with Gate(servers.redis_url) as gate, looking_up(servers.redis_url, through=gate.url) as lookup:
        await until(lambda: lookup.is_complete)
        watched = Address("go.example", "/watched")
        await publisher.put(watched, FIRST)
        assert await lookup.find(watched) == FIRST.entry
        await publisher.put(PROMO, FIRST)

        gate.hold()
        asking = asyncio.create_task(lookup.find(PROMO))
        await gate.held.wait()
        await publisher.put(PROMO, SECOND)  # a change whose announcement is lost
        await publisher.announce(watched, SECOND, step=2)
        await until(lambda: is_forgotten(lookup, watched))
        gate.release()

        assert await asking == FIRST.entry
        assert await lookup.find(PROMO) == SECOND.entry


async def test_visitors_of_one_address_ask_redis_once(servers: Servers, publisher: Publisher, redis: Redis) -> None:
    await publisher.put(PROMO, FIRST)
    async with (
        Gate(servers.redis_url) as gate,
        looking_up(servers.redis_url, through=gate.url, is_following=False) as lookup,
    ):
        await redis.config_resetstat()
        gate.hold()
        asking = [asyncio.create_task(lookup.find(PROMO)) for _ in range(50)]
        await gate.held.wait()
        asking += [asyncio.create_task(lookup.find(PROMO)) for _ in range(50)]
        gate.release()
        assert await asyncio.gather(*asking) == [FIRST.entry] * 100
        assert await gets(redis) == 1


async def test_a_visitor_who_goes_away_leaves_the_answer_to_the_others(
    servers: Servers, publisher: Publisher, redis: Redis
) -> None:
    await publisher.put(PROMO, FIRST)
    async with (
        Gate(servers.redis_url) as gate,
        looking_up(servers.redis_url, through=gate.url, is_following=False) as lookup,
    ):
        await redis.config_resetstat()
        gate.hold()
        leaving = asyncio.create_task(lookup.find(PROMO))
        await gate.held.wait()
        staying = asyncio.create_task(lookup.find(PROMO))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        gate.release()
        assert await staying == FIRST.entry
        assert await gets(redis) == 1


# When an absence is not certain.


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param("another epoch", id="the set was completed again meanwhile"),
        pytest.param("another run", id="Redis was started again meanwhile"),
        pytest.param("no marker", id="the marker vanished meanwhile"),
        pytest.param("no data", id="Redis lost its data meanwhile"),
    ],
)
async def test_an_absence_is_not_certain_unless_the_set_is_the_same_after_the_question(
    servers: Servers, publisher: Publisher, redis: Redis, meanwhile: str
) -> None:
    await publisher.complete()
    async with Gate(servers.redis_url) as gate, looking_up(servers.redis_url, through=gate.url) as lookup:
        await until(lambda: lookup.is_complete)
        assert await lookup.find(OTHER) is None
        gate.hold()
        asking = asyncio.create_task(found(lookup, PROMO))
        await gate.held.wait()
        match meanwhile:
            case "another epoch":
                await publisher.complete("second")
            case "another run":
                await publisher.complete(run=ANOTHER_RUN)
            case "no marker":
                await publisher.void()
            case "no data":
                await redis.flushall()
        gate.release()
        assert await asking == UNAVAILABLE


async def test_before_the_follower_has_read_the_marker_only_found_links_are_certain(
    servers: Servers, publisher: Publisher
) -> None:
    await publisher.complete()
    await publisher.put(PROMO, FIRST)
    async with looking_up(servers.redis_url, is_following=False) as lookup:
        assert await found(lookup, PROMO) == FIRST.entry
        assert await found(lookup, OTHER) == UNAVAILABLE
        await publisher.put(OTHER, Published(3, None))
        assert await found(lookup, OTHER) == UNAVAILABLE


@pytest.mark.parametrize("run", [None, ANOTHER_RUN], ids=["the marker is gone", "the marker is of another run"])
async def test_while_the_set_is_incomplete_found_links_are_served_and_misses_are_unavailable(
    lookup: Lookup, publisher: Publisher, run: str | None
) -> None:
    await publisher.put(PROMO, FIRST)
    assert await lookup.find(PROMO) == FIRST.entry
    assert await lookup.find(OTHER) is None

    await (publisher.complete(run=run) if run else publisher.void())
    await until(lambda: not lookup.is_complete)
    await publisher.drop(PROMO)
    assert await found(lookup, PROMO) == FIRST.entry  # from memory
    assert await found(lookup, OTHER) == UNAVAILABLE  # though it was a certain absence before
    await publisher.put(OTHER, SECOND)
    assert await found(lookup, OTHER) == SECOND.entry  # from Redis

    await publisher.complete()
    await until(lambda: lookup.is_complete)
    assert await found(lookup, Address("go.example", "/nothing")) is None
    assert await found(lookup, PROMO) == FIRST.entry  # of the same epoch, so memory was still true


async def test_changes_made_while_the_set_is_incomplete_reach_memory_when_it_is_complete_again(
    lookup: Lookup, publisher: Publisher
) -> None:
    await publisher.put(PROMO, FIRST)
    assert await lookup.find(PROMO) == FIRST.entry
    await publisher.void()
    await until(lambda: not lookup.is_complete)
    await publisher.announce(PROMO, SECOND)
    await publisher.complete()
    await until(lambda: lookup.is_complete)
    assert await lookup.find(PROMO) == SECOND.entry


async def test_a_value_that_can_not_be_read_is_unavailable_and_not_an_absence(lookup: Lookup, redis: Redis) -> None:
    for value in (b"", b"nonsense", b"1 {", b"1 {}", b"1 []"):
        await redis.set(PROMO.key, value)
        assert await found(lookup, PROMO) == UNAVAILABLE, value
    await redis.delete(PROMO.key)
    await redis.lpush(PROMO.key, "a list")
    assert await found(lookup, PROMO) == UNAVAILABLE


# When Redis is away.


async def test_a_redis_that_hangs_costs_a_cold_address_a_quarter_second_and_a_remembered_one_nothing(
    own_valkey: OwnValkey,
) -> None:
    server, process = own_valkey
    async with looking_up_in(server, timeout_s=0.25) as (lookup, publisher):
        await publisher.put(PROMO, FIRST)
        await until_found(lookup, PROMO, FIRST.entry)
        process.send_signal(signal.SIGSTOP)

        asked_at = time.monotonic()
        assert await found(lookup, OTHER) == UNAVAILABLE
        took_s = time.monotonic() - asked_at
        assert 0.2 < took_s < 0.6

        asked_at = time.monotonic()
        assert await found(lookup, PROMO) == FIRST.entry
        assert time.monotonic() - asked_at < 0.1

        process.send_signal(signal.SIGCONT)
        await until_found(lookup, OTHER, None)
        assert lookup.is_complete


async def test_while_redis_is_gone_links_are_remembered_and_absences_are_forgotten(own_valkey: OwnValkey) -> None:
    server, process = own_valkey
    async with looking_up_in(server, timeout_s=0.25) as (lookup, publisher):
        await publisher.put(PROMO, FIRST)
        await until_found(lookup, PROMO, FIRST.entry)
        await until_found(lookup, OTHER, None)
        process.kill()
        process.wait()
        await until(lambda: not lookup.is_complete)
        assert await found(lookup, PROMO) == FIRST.entry
        assert await found(lookup, OTHER) == UNAVAILABLE


async def test_a_redis_that_was_started_again_is_complete_only_after_it_was_published_to_again(
    own_valkey: OwnValkey,
) -> None:
    """It comes back with its data, the marker among it, and may have lost the newest of it."""
    server, process = own_valkey
    async with looking_up_in(server, timeout_s=0.25) as (lookup, publisher):
        await publisher.put(PROMO, FIRST)
        await until_found(lookup, PROMO, FIRST.entry)
        process.terminate()
        process.wait()
        await until(lambda: not lookup.is_complete)
        again = run(server)
        try:
            await embedded.wait_until_ready(server)
            async with publishing(server) as publisher:
                await until_caught_up(lookup, publisher)
                assert await found(lookup, PROMO) == FIRST.entry
                assert await found(lookup, OTHER) == UNAVAILABLE
                await publisher.complete("second")
                await until_found(lookup, OTHER, None)
        finally:
            again.kill()
            again.wait()


async def test_what_is_longer_than_any_link_is_neither_asked_for_nor_remembered(lookup: Lookup) -> None:
    lookup._redis = None  # type: ignore[assignment]  # whoever asks it fails
    assert await lookup.find(Address("go.example", "/" + "x" * 2048)) is None
    assert not lookup._absent
