"""Lookup, on a real Valkey: what it remembers, when it forgets, and when it must not say "there is none"."""

import asyncio
import contextlib
import signal
import statistics
import subprocess
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from admin import embedded
from edge.lookup import Lookup, Unavailable
from shared.links import CHANGES_COUNTER, CHANGES_STREAM, Address, Entry, Published
from shared.redis import Redis, open_redis
from shared.tasks import end
from tests.conftest import Servers, run
from tests.edge.publishing import OTHER, PROMO, Gate, Publisher, living
from tests.shared.waiting import until

OwnValkey = tuple[embedded.Server, "subprocess.Popen[bytes]"]

FIRST = living(1, to="https://example.com/first")
SECOND = living(2, to="https://example.com/second")
REMOVED = Published(2, None)
UNAVAILABLE = "unavailable"
_ANOTHER_RUN = "0" * 40


@pytest.fixture
def publisher(redis: Redis) -> Publisher:
    return Publisher(redis)


@contextlib.asynccontextmanager
async def looking_up(
    url: str,
    *,
    through: str | None = None,
    is_following: bool = True,
    memory_entries: int = 100,
    timeout_s: float = 5.0,
) -> AsyncIterator[Lookup]:
    """A Lookup, which asks `through` another URL if one is given. Its time limit is long where it is not the point."""
    redis = open_redis(through or url, timeout_s=10.0, connections=1)
    changes = open_redis(url, timeout_s=3.0, connections=1)
    lookup = Lookup(redis, changes, memory_entries=memory_entries, timeout_s=timeout_s)
    following = asyncio.create_task(lookup.follow()) if is_following else None
    try:
        yield lookup
        assert following is None or not following.done(), following
    finally:
        if following:
            await end(following)
        await redis.aclose()
        await changes.aclose()


@pytest.fixture
async def lookup(servers: Servers, publisher: Publisher) -> AsyncIterator[Lookup]:
    """A Lookup that follows a complete set of links."""
    await publisher.complete()
    async with looking_up(servers.redis_url) as lookup:
        await until(lambda: lookup.is_complete)
        yield lookup


async def found(lookup: Lookup, address: Address) -> Entry | str | None:
    """What a visitor is told."""
    try:
        return await lookup.find(address)
    except Unavailable:
        return UNAVAILABLE


async def until_found(lookup: Lookup, address: Address, wanted: Entry | str | None) -> None:
    async def is_wanted() -> bool:
        return await found(lookup, address) == wanted

    await until(is_wanted)


async def until_caught_up(lookup: Lookup, publisher: Publisher) -> None:
    """Every change that was announced so far has been applied: a later one of another address has been."""
    probe = Address("probe.example", "/")
    before, after = living(1, to="before:"), living(2, to="after:")
    await publisher.put(probe, before)
    await until_found(lookup, probe, before.entry)
    await publisher.announce(probe, after)
    await until_found(lookup, probe, after.entry)
    await publisher.drop(probe)


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
    async with looking_up(servers.redis_url, memory_entries=2) as lookup:
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


# What a change does to it.


async def test_an_announced_link_replaces_an_absence(lookup: Lookup, publisher: Publisher) -> None:
    assert await lookup.find(PROMO) is None
    await publisher.change(PROMO, FIRST)
    await until_found(lookup, PROMO, FIRST.entry)


async def test_an_announced_change_replaces_a_found_link_without_asking_redis(
    lookup: Lookup, publisher: Publisher
) -> None:
    await publisher.put(PROMO, FIRST)
    assert await lookup.find(PROMO) == FIRST.entry
    await publisher.announce(PROMO, SECOND)  # only the stream says so
    await until_found(lookup, PROMO, SECOND.entry)


async def test_an_announced_deletion_takes_a_found_link_away(lookup: Lookup, publisher: Publisher) -> None:
    await publisher.put(PROMO, FIRST)
    assert await lookup.find(PROMO) == FIRST.entry
    await publisher.change(PROMO, REMOVED)
    await until_found(lookup, PROMO, None)


async def test_changes_arrive_as_they_are_made_and_not_with_the_check_of_each_second(
    lookup: Lookup, publisher: Publisher
) -> None:
    await publisher.put(PROMO, FIRST)
    await lookup.find(PROMO)
    took_s = []
    for version in range(2, 13):
        change = living(version, link_id=version)
        await publisher.put(PROMO, change)
        announced_at = time.monotonic()
        await publisher.announce(PROMO, change)
        await until_found(lookup, PROMO, change.entry)
        took_s.append(time.monotonic() - announced_at)
    assert statistics.median(took_s) < 0.05, took_s


@pytest.mark.parametrize(
    "overtaken",
    [
        pytest.param(living(4, to="https://example.com/old"), id="an older edit does not replace a newer one"),
        pytest.param(Published(4, None), id="an older deletion does not take a newer link away"),
    ],
)
async def test_a_change_that_is_older_than_what_is_remembered_changes_nothing(
    lookup: Lookup, publisher: Publisher, overtaken: Published
) -> None:
    await publisher.put(PROMO, living(5))
    assert await lookup.find(PROMO) == living(5).entry
    await publisher.drop(PROMO)  # whoever asked Redis would learn of an absence
    await publisher.announce(PROMO, overtaken)
    await until_caught_up(lookup, publisher)
    assert await lookup.find(PROMO) == living(5).entry


async def test_a_link_that_changed_before_the_start_is_followed_from_its_newest_version(
    servers: Servers, publisher: Publisher
) -> None:
    await publisher.complete()
    for version in range(1, 4):
        await publisher.change(PROMO, living(version))
    async with looking_up(servers.redis_url) as lookup:
        await until(lambda: lookup.is_complete)
        assert await lookup.find(PROMO) == living(3).entry
        await publisher.change(PROMO, living(4, to="https://example.com/4"))
        await until_found(lookup, PROMO, living(4, to="https://example.com/4").entry)


async def test_more_changes_than_one_reading_takes_are_all_applied(
    lookup: Lookup, publisher: Publisher, redis: Redis
) -> None:
    """2500 changes in one transaction, which the follower reads in several portions, none of them a loss."""
    await publisher.put(PROMO, FIRST)
    assert await lookup.find(PROMO) == FIRST.entry
    await publisher.drop(PROMO)
    writing = redis.pipeline(transaction=True)
    last = living(9, to="https://example.com/last")
    for number in range(1, 2501):
        address, change = (OTHER, last) if number == 2500 else (Address("go.example", f"/{number}"), living(1))
        writing.incr(CHANGES_COUNTER)
        writing.xadd(CHANGES_STREAM, {"key": address.key, "value": change.to_bytes()}, id=f"{number}-0")
    await publisher.put(OTHER, living(1))
    assert await lookup.find(OTHER) == living(1).entry
    await writing.execute()
    await until_found(lookup, OTHER, last.entry)
    assert await lookup.find(PROMO) == FIRST.entry


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
                await publisher.complete(run=_ANOTHER_RUN)
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


@pytest.mark.parametrize("run", [None, _ANOTHER_RUN], ids=["the marker is gone", "the marker is of another run"])
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


# When memory is emptied.


async def until_emptied(lookup: Lookup) -> None:
    """What `remembering_what_was` put into memory has been forgotten: both addresses are asked for again."""
    await until_found(lookup, PROMO, SECOND.entry)
    assert await found(lookup, OTHER) == SECOND.entry


async def remembering_what_was(lookup: Lookup, publisher: Publisher) -> None:
    """Memory holds a link and an absence that Redis, unannounced, does not have any more."""
    await publisher.put(PROMO, FIRST)
    assert await lookup.find(PROMO) == FIRST.entry
    assert await lookup.find(OTHER) is None
    await publisher.put(PROMO, SECOND)
    await publisher.put(OTHER, SECOND)
    assert await lookup.find(PROMO) == FIRST.entry
    assert await lookup.find(OTHER) is None


async def test_a_new_epoch_empties_memory(lookup: Lookup, publisher: Publisher) -> None:
    await remembering_what_was(lookup, publisher)
    await publisher.complete("second")
    await until_emptied(lookup)
    assert lookup.is_complete


async def test_a_gap_in_the_numbers_of_the_changes_empties_memory(lookup: Lookup, publisher: Publisher) -> None:
    await publisher.announce(Address("go.example", "/a"), FIRST)
    await until_caught_up(lookup, publisher)
    await remembering_what_was(lookup, publisher)
    await publisher.announce(Address("go.example", "/b"), FIRST, step=2)
    await until_emptied(lookup)


async def test_a_change_that_cannot_be_read_empties_memory_and_holds_up_nothing(
    lookup: Lookup, publisher: Publisher, redis: Redis
) -> None:
    await publisher.announce(Address("go.example", "/a"), FIRST)
    await until_caught_up(lookup, publisher)
    await remembering_what_was(lookup, publisher)
    number = await redis.incr(CHANGES_COUNTER)
    await redis.xadd(CHANGES_STREAM, {"key": PROMO.key, "value": b"2 {}"}, id=f"{number}-0")
    await until_emptied(lookup)
    await publisher.announce(PROMO, SECOND)
    await until_caught_up(lookup, publisher)


async def test_a_gap_is_noticed_where_no_later_change_shows_it(
    lookup: Lookup, publisher: Publisher, redis: Redis
) -> None:
    await publisher.announce(Address("go.example", "/a"), FIRST)
    await until_caught_up(lookup, publisher)
    await remembering_what_was(lookup, publisher)
    await redis.incrby(CHANGES_COUNTER, 3)
    await until_emptied(lookup)


async def test_a_change_after_a_gap_is_applied_as_well(lookup: Lookup, publisher: Publisher) -> None:
    assert await lookup.find(PROMO) is None
    await publisher.put(PROMO, FIRST)
    await publisher.announce(PROMO, FIRST, step=5)
    await until_found(lookup, PROMO, FIRST.entry)
    await publisher.announce(PROMO, SECOND)  # only the stream says so: it goes on from where the gap ended
    await until_found(lookup, PROMO, SECOND.entry)


async def test_numbers_that_go_backwards_empty_memory_and_are_followed_from_there(
    lookup: Lookup, publisher: Publisher, redis: Redis
) -> None:
    for _ in range(5):
        await publisher.announce(Address("go.example", "/a"), FIRST)
    await until_caught_up(lookup, publisher)
    await remembering_what_was(lookup, publisher)
    await redis.delete(CHANGES_STREAM)
    await redis.set(CHANGES_COUNTER, 2)
    await until_emptied(lookup)
    third = living(3, to="https://example.com/third")
    await publisher.announce(PROMO, third)
    await until_found(lookup, PROMO, third.entry)


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


@contextlib.asynccontextmanager
async def looking_up_in(server: embedded.Server, *, timeout_s: float) -> AsyncIterator[tuple[Lookup, Publisher]]:
    """A Lookup that follows a complete set on a server of the test's own."""
    async with publishing(server) as publisher:
        await publisher.complete()
        async with looking_up(server.url, timeout_s=timeout_s) as lookup:
            await until(lambda: lookup.is_complete)
            yield lookup, publisher


@contextlib.asynccontextmanager
async def publishing(server: embedded.Server) -> AsyncIterator[Publisher]:
    redis = open_redis(server.url, timeout_s=5.0)
    try:
        yield Publisher(redis)
    finally:
        await redis.aclose()


async def gets(redis: Redis) -> int:
    """How many GETs the server has answered since its statistics were reset."""
    statistics: dict[str, Any] = await redis.info("commandstats")
    return int(statistics["cmdstat_get"]["calls"])


async def is_forgotten(lookup: Lookup, address: Address) -> bool:
    """Whether memory does not know the address: a question would have been answered without waiting otherwise."""
    asking = asyncio.create_task(found(lookup, address))
    await asyncio.sleep(0)
    is_answered = asking.done()
    asking.cancel()
    await asyncio.wait([asking])
    return not is_answered
