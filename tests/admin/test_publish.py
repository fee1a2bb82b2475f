"""Publication: versions, tombstones, and the rebuild of what Redis has lost."""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from admin.database import Connection
from admin.identity import organizations
from admin.links import domains, links, publish
from admin.links.links import Link
from shared.entries import Entry, HostEntry
from shared.links import (
    CHANGES_STREAM,
    MARKER_KEY,
    UNCOUNTED_KEY,
    Address,
    Marker,
    Published,
    PublishedHost,
    host_key,
    path_under,
    uses_key,
)
from shared.redis import LOST, Redis, open_redis, run_id, stream_entries

ADDRESS = Address("localhost", "/a")


@pytest.fixture
async def organization_id(connection: Connection) -> int:
    await domains.open_to_all(connection, "localhost")
    return (await organizations.create(connection, name="one", tier="enterprise")).id


async def new_link(
    connection: Connection,
    organization_id: int,
    path: str = "/a",
    to: str = "https://a.example/",
    hostname: str = "localhost",
) -> Link:
    async with connection.transaction():
        [made] = await links.create_many(connection, [Link(organization_id, "o-x", hostname, path, to)])
    assert made is not None
    return made


async def lead(connection: Connection, link: Link, to: str) -> Link:
    async with connection.transaction():
        return await links.update(connection, link, link._replace(destination=to))


async def held(redis: Redis, address: Address = ADDRESS) -> Published | None:
    value = await redis.get(address.key)
    assert value is None or isinstance(value, bytes)
    return Published.from_bytes(value) if value else None


async def numbers(redis: Redis) -> list[bytes]:
    return [entry_id for entry_id, _fields in stream_entries(await redis.xread({CHANGES_STREAM: "0"}))]


async def test_a_step_publishes_what_lives_there_now(
    connection: Connection, redis: Redis, organization_id: int
) -> None:
    link = await new_link(connection, organization_id)
    await lead(connection, link, "https://b.example/")
    assert await publish.step(connection, redis) == 2
    published = await held(redis)
    assert published is not None
    assert published.entry == Entry(link.id, organization_id, "https://b.example/")
    assert await numbers(redis) == [b"1-0"]
    assert await publish.step(connection, redis) == 0


async def test_changes_are_numbered_without_gaps(connection: Connection, redis: Redis, organization_id: int) -> None:
    for number in range(5):
        await new_link(connection, organization_id, f"/{number}")
    await publish.step(connection, redis)
    assert await numbers(redis) == [b"1-0", b"2-0", b"3-0", b"4-0", b"5-0"]


async def test_a_slow_publisher_cannot_bring_an_old_state_back(
    connection: Connection, redis: Redis, organization_id: int
) -> None:
    link = await new_link(connection, organization_id)
    await publish.step(connection, redis)
    old = await redis.get(ADDRESS.key)
    await lead(connection, link, "https://b.example/")
    await publish.step(connection, redis)
    new = await redis.get(ADDRESS.key)
    assert isinstance(old, bytes)
    await publish._write(redis, [(ADDRESS.key, Published.from_bytes(old))], announce=True)
    assert await redis.get(ADDRESS.key) == new
    assert len(await numbers(redis)) == 2


async def test_nor_a_link_that_was_deleted(connection: Connection, redis: Redis, organization_id: int) -> None:
    link = await new_link(connection, organization_id)
    await publish.step(connection, redis)
    old = await redis.get(ADDRESS.key)
    async with connection.transaction():
        await links.purge(connection, [link])
    await publish.step(connection, redis)
    tombstone = await held(redis)
    assert tombstone is not None
    assert tombstone.entry is None
    assert 0 < await redis.ttl(ADDRESS.key) <= 600
    assert isinstance(old, bytes)
    await publish._write(redis, [(ADDRESS.key, Published.from_bytes(old))], announce=True)
    assert (await held(redis)) == tombstone
    await new_link(connection, organization_id, to="https://again.example/")
    await publish.step(connection, redis)
    again = await held(redis)
    assert again is not None and again.entry is not None
    assert again.version > tombstone.version
    assert await redis.ttl(ADDRESS.key) == -1


async def test_marks_stay_while_redis_is_away(connection: Connection, redis: Redis, organization_id: int) -> None:
    await new_link(connection, organization_id)
    away = open_redis("redis://127.0.0.1:1", timeout_s=0.5)
    with pytest.raises(LOST):
        await publish.step(connection, away)
    await publish.Publisher(away).now(connection, [ADDRESS])
    assert await publish.step(connection, redis) == 1
    assert await held(redis) is not None


async def test_a_request_waits_for_a_step_that_is_at_its_address(
    connection: Connection, database_url: str, redis: Redis, organization_id: int
) -> None:
    await new_link(connection, organization_id)
    other = await asyncpg.connect(database_url)
    working = other.transaction()
    await working.start()
    assert len(await publish._take(other)) == 1
    waiting = asyncio.create_task(publish.step(connection, redis, [ADDRESS]))
    waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
    while not await other.fetchval(waits):
        await asyncio.sleep(0.01)
    assert not waiting.done()
    await working.rollback()
    assert await waiting == 1
    await other.close()


HOST = "go.example.com"


async def served(connection: Connection, **fields: Any) -> None:
    """Change what is served on HOST."""
    row = await connection.fetchrow("select organization_id, public_id from domains where hostname = $1", HOST)
    assert row is not None
    async with connection.transaction(), domains.held(connection, *row) as domain:
        await domains.change(connection, domain, domain._replace(**fields))


async def held_host(redis: Redis, hostname: str = HOST) -> HostEntry:
    value = await redis.get(host_key(hostname))
    assert value is None or isinstance(value, bytes)
    return (PublishedHost.from_bytes(value).entry if value else None) or HostEntry()


async def leads(redis: Redis, asked: str) -> bool:
    """Whether a visitor of HOST who asks for this path finds a link, by what Redis holds."""
    host = await held_host(redis)
    published = await held(redis, Address(HOST, path_under(host, asked.encode())))
    return published is not None and published.entry is not None


@pytest.fixture
async def moving(connection: Connection, redis: Redis, organization_id: int) -> Link:
    """A published link of HOST, at /A/, that has been edited; nobody has published that yet."""
    assert await domains.claim(connection, organization_id, HOST)
    await served(connection, keeps_slash=True)
    link = await new_link(connection, organization_id, "/A/", hostname=HOST)
    while await publish.step(connection, redis):
        pass
    return await lead(connection, link, "https://b.example/")


async def test_a_link_is_never_missing_while_it_moves(
    connection: Connection, redis: Redis, moving: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was marked before, and whatever requests publish meanwhile."""
    monkeypatch.setattr(publish, "_PAGE", 1)
    publisher = publish.Publisher(redis, within_s=10)
    await served(connection, keeps_slash=False)
    await served(connection, folds_case=True)
    await served(connection, root_url="https://example.com/")
    turns = 0
    while turns == 0 or await publish.step(connection, redis):
        turns += 1
        for path in ("/A/", "/A", ""):
            await publisher.now(connection, [Address(HOST, path)])
            assert await leads(redis, "/A/"), (turns, path)
    assert turns > 3
    host = await held_host(redis)
    assert host.folds_case and not host.keeps_slash and host.root
    assert await all_held(redis, ["/A/", "/A", "/a"], HOST) == {"/A/": False, "/A": False, "/a": True}


@pytest.mark.parametrize(
    ("path", "published"),
    [("/A", {"/A/": True, "/A": False}), ("", {"/A/": True, "/A": True}), ("/A/", {"/A/": True, "/A": True})],
)
async def test_nothing_overtakes_what_another_step_is_at(
    connection: Connection, database_url: str, redis: Redis, moving: Link, path: str, published: dict[str, bool]
) -> None:
    """Of a host; other hosts do not wait for it."""
    await served(connection, keeps_slash=False)
    await new_link(connection, moving.organization_id, "/other")
    other = await asyncpg.connect(database_url)
    working = other.transaction()
    await working.start()
    assert await other.fetch("select from unpublished where path = $1 for update", path)
    while await publish.step(connection, redis):
        pass
    await publish.Publisher(redis, within_s=10).now(connection, [Address(HOST, "")])
    assert await all_held(redis, list(published), HOST) == published
    assert (await held_host(redis)).keeps_slash == (path != "/A/")
    assert await all_held(redis, ["/other"]) == {"/other": True}
    await working.rollback()
    while await publish.step(connection, redis):
        pass
    assert await all_held(redis, list(published), HOST) == {"/A/": False, "/A": True}
    assert not (await held_host(redis)).keeps_slash
    await other.close()


async def test_of_an_addresss_marks_the_highest_version_counts(
    connection: Connection, redis: Redis, organization_id: int
) -> None:
    """In whatever order Postgres gives them: a change that is announced under an older version would be refused."""
    link = await new_link(connection, organization_id)
    await lead(connection, link, "https://b.example/")
    await connection.execute(
        "update unpublished set version = 1000 where version = (select min(version) from unpublished)"
    )
    await publish.step(connection, redis)
    published = await held(redis)
    assert published is not None and published.version == 1000


async def test_counts_of_new_limits_begin_at_0_unless_they_have_begun(connection: Connection, redis: Redis) -> None:
    run = run_id(await redis.info("server"))
    await redis.set(uses_key(run, 8), 5)
    await publish.Publisher(redis, within_s=10).now(connection, [], first_limited=[7, 8])
    assert await redis.mget(uses_key(run, 7), uses_key(run, 8)) == [b"0", b"5"]


async def rebuilt(connection: Connection, redis: Redis) -> None:
    assert not await publish.is_complete(redis)
    assert await publish.rebuild(connection, redis)
    assert await publish.is_complete(redis)


async def all_held(redis: Redis, paths: Sequence[str], hostname: str = "localhost") -> dict[str, bool]:
    found = {}
    for path in paths:
        published = await held(redis, Address(hostname, path))
        found[path] = published is not None and published.entry is not None
    return found


async def test_a_rebuild_brings_everything_and_takes_away_the_rest(
    connection: Connection, redis: Redis, organization_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_PAGE", 2)
    for number in range(3):
        await new_link(connection, organization_id, f"/{number}")
    await connection.execute("delete from unpublished")
    await redis.flushall()
    await redis.set("link:localhost/stray", Published(1, Entry(99, 1, "https://stray.example/")).to_bytes())
    await rebuilt(connection, redis)
    assert await all_held(redis, ["/0", "/1", "/2", "/stray"]) == {"/0": True, "/1": True, "/2": True, "/stray": False}
    # Without knowing how many there are, Postgres would read all of them for each page.
    assert await connection.fetchval("select reltuples from pg_class where relname = 'links'") == 3


async def test_a_rebuild_brings_hosts_and_takes_away_those_that_nobody_has(
    connection: Connection, redis: Redis, moving: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_PAGE", 1)
    assert await domains.claim(connection, moving.organization_id, "a.example.com")
    await connection.execute("delete from unpublished")
    await redis.flushall()
    await redis.set(host_key("stray.example"), PublishedHost(1, HostEntry(99)).to_bytes())
    await rebuilt(connection, redis)
    for hostname, is_held in ((HOST, True), ("a.example.com", True), ("stray.example", False)):
        assert (await held_host(redis, hostname)).organization_id == (moving.organization_id if is_held else None)
    assert (await held_host(redis)).keeps_slash
    # What was brought has the version of its row: a change since is newer.
    await served(connection, root_url="https://example.com/")
    await publish.step(connection, redis)
    assert (await held_host(redis)).root


async def test_an_older_redis_is_brought_up_to_date(connection: Connection, redis: Redis, organization_id: int) -> None:
    """A snapshot from before an edit and a deletion comes back, under a marker of its former run."""
    edited = await new_link(connection, organization_id, "/edited")
    deleted = await new_link(connection, organization_id, "/deleted")
    await rebuilt(connection, redis)
    snapshot = {key: await redis.dump(key) for key in await redis.keys("*")}
    await lead(connection, edited, "https://new.example/")
    async with connection.transaction():
        await links.delete(connection, [deleted])
    await publish.step(connection, redis)
    await redis.flushall()
    for key, value in snapshot.items():
        assert isinstance(value, bytes)
        await redis.restore(key, 0, value)
    await redis.set(MARKER_KEY, Marker("old", "another-run").to_bytes())
    await rebuilt(connection, redis)
    now = await held(redis, edited.address)
    assert now is not None and now.entry is not None
    assert now.entry.destination == "https://new.example/"
    assert await all_held(redis, ["/edited", "/deleted"]) == {"/edited": True, "/deleted": False}


async def test_a_rebuild_does_not_complete_when_redis_lost_its_data_meanwhile(
    connection: Connection, redis: Redis, organization_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await new_link(connection, organization_id)
    mark_strays = publish._mark_strays

    async def wiped_then_marked(connection: Connection, redis: Redis) -> int:
        await redis.flushall()
        return await mark_strays(connection, redis)

    monkeypatch.setattr(publish, "_mark_strays", wiped_then_marked)
    assert not await publish.rebuild(connection, redis)
    assert not await publish.is_complete(redis)
    monkeypatch.undo()
    await rebuilt(connection, redis)
    assert await held(redis) is not None


async def test_two_workers_that_rebuild_at_once_end_with_one_complete_set(
    connection: Connection, database_url: str, redis: Redis, organization_id: int
) -> None:
    for number in range(5):
        await new_link(connection, organization_id, f"/{number}")
    other = await asyncpg.connect(database_url)
    done = await asyncio.gather(publish.rebuild(connection, redis), publish.rebuild(other, redis))
    assert all(done)
    marker = await redis.get(MARKER_KEY)
    assert await publish.rebuild(other, redis)
    assert await redis.get(MARKER_KEY) == marker
    assert await publish.rebuild(other, redis, even_if_complete=True)
    assert await redis.get(MARKER_KEY) != marker
    await other.close()


async def test_a_rebuild_announces_no_changes(connection: Connection, redis: Redis, organization_id: int) -> None:
    await new_link(connection, organization_id)
    await publish.step(connection, redis)
    await redis.flushall()
    await rebuilt(connection, redis)
    assert await numbers(redis) == []


async def test_a_rebuild_removes_the_counts_of_uses_of_other_runs(connection: Connection, redis: Redis) -> None:
    run = run_id(await redis.info("server"))
    for kept in (run, "0" * 40):
        await redis.set(uses_key(kept, 7), 1)
    await redis.sadd(UNCOUNTED_KEY, 8)
    assert await publish.rebuild(connection, redis)
    assert await redis.exists(uses_key(run, 7), UNCOUNTED_KEY) == 2
    assert not await redis.exists(uses_key("0" * 40, 7))
