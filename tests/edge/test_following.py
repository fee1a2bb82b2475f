"""Lookup, on a real Valkey: what the changes that it follows do to its memory, and when that is emptied."""

import statistics
import time

import pytest

from edge.lookup import Lookup
from shared.links import CHANGES_COUNTER, CHANGES_STREAM, Address, Published
from shared.redis import Redis
from tests.conftest import Servers
from tests.edge.lookups import FIRST, REMOVED, SECOND, found, looking_up, until_caught_up, until_found
from tests.edge.publishing import OTHER, PROMO, Gate, Publisher, living
from tests.shared.waiting import until

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


# When the wire is cut.


async def test_edits_made_while_the_wire_is_cut_are_all_there_when_it_is_mended(
    servers: Servers, publisher: Publisher
) -> None:
    addresses = [Address("go.example", f"/{number}") for number in range(50)]
    for address in addresses:
        await publisher.put(address, FIRST)
    await publisher.complete()
    async with Gate(servers.redis_url) as gate, looking_up(gate.url, timeout_s=0.25) as lookup:
        await until(lambda: lookup.is_complete)
        for address in addresses:
            await until_found(lookup, address, FIRST.entry)
        gate.cut()
        await until(lambda: not lookup.is_complete)
        for number, address in enumerate(addresses):
            await publisher.change(address, (SECOND, REMOVED)[number % 2])
            assert await found(lookup, address) == FIRST.entry  # what it remembers it uses
        gate.mend()
        await until(lambda: lookup.is_complete)
        for number, address in enumerate(addresses):
            assert await found(lookup, address) != FIRST.entry
            await until_found(lookup, address, (SECOND.entry, None)[number % 2])
