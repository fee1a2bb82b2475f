"""Publication: from Postgres to Redis, and to every edge that follows the change stream.

Rules of this file:

1. A change leaves a mark for each address it touches, in its own transaction (`links.py`). A step takes marks away,
   reads what *now* lives at their addresses and writes it to Redis, in one transaction: when Redis is away, the marks
   are back.
2. Every write carries a version. Redis refuses an older one than it holds; a deletion leaves a tombstone with its
   version for a while, so that a slow publisher can't bring a link back.
3. Of a host's marks none overtakes that of the host itself, and that one overtakes none: links that move by a new
   policy are at their new addresses before the host is published, and leave the old ones behind it (`policies.rekey`).
   Only what lives at an address as its host spells it may come early.
4. Redis holds all links under a marker (`shared.links.Marker`). Without it, or when Redis has been started again, the
   worker rebuilds the set. A rebuild completes only if the token it began with is still there: if Redis loses its data
   meanwhile, it begins again. It announces no changes; the new epoch tells the edges to forget.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from operator import itemgetter

import asyncpg

from admin.database import AWAY, Connection
from admin.links import domains, links, policies, uses
from admin.links.entries import COLUMNS, entry_of
from shared.entries import Entry
from shared.links import (
    CHANGES_COUNTER,
    CHANGES_STREAM,
    HOST_PREFIX,
    MARKER_KEY,
    Address,
    Marker,
    Published,
    PublishedHost,
    host_key,
)
from shared.redis import LOST, Redis, RedisError, epoch_now, run_id

log = logging.getLogger(__name__)

_Value = Published | PublishedHost

NOW_S = 0.1
"""How long a request may spend on publishing its own change."""

PATIENCE_S = 1.0

_REBUILD_KEY = "links:rebuild"
_REBUILD_LOCK = 0x72656275
_TOMBSTONE_S = 600
_KEPT_CHANGES = 100_000
_PAGE = 1000
_AT_ONCE = 100
"""Keys that Redis writes before it answers somebody else."""

# KEYS: the change stream and its counter, then the keys. ARGV: seconds that a tombstone lasts, how many changes are
# kept or 0 if these are not announced, then the values, each a version, a space, and nothing more after a deletion.
_WRITE = """
for i = 3, #KEYS do
  local key, value = KEYS[i], ARGV[i]
  local version, body = string.match(value, '^(%d+) (.?)')
  local held = redis.call('GET', key)
  if held ~= value and not (held and tonumber(string.match(held, '^%d+')) > tonumber(version)) then
    if body == '' then
      redis.call('SET', key, value, 'EX', ARGV[1])
    else
      redis.call('SET', key, value)
    end
    if ARGV[2] ~= '0' then
      local number = redis.call('INCR', KEYS[2])
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], string.format('%.0f-0', number), 'key', key, 'value', value)
    end
  end
end
"""

# KEYS: the rebuild's token, the marker. ARGV: the token, the marker's value.
_COMPLETE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[1])
return 1
"""


class Publisher:
    """Publishes what has just been committed, before its request is answered, or beside its import."""

    def __init__(self, redis: Redis, *, within_s: float = NOW_S) -> None:
        self._redis = redis
        self._within_s = within_s
        self._patient_until = 0.0

    async def now(
        self, connection: Connection, addresses: Iterable[Address], *, first_limited: Collection[int] = ()
    ) -> None:
        """Also begins the counts of links that have a click limit for the first time.

        Never fails, because the change is made: what can't be published in time, or has to wait for an older mark, is
        left to the worker.

        After a failure it leaves everything to the worker for `PATIENCE_S`: requests that all wait for a Redis that
        does not answer would use up the connections to Postgres.
        """
        clock = asyncio.get_running_loop().time
        if clock() < self._patient_until:
            return
        try:
            async with asyncio.timeout(self._within_s):
                await uses.begin(self._redis, first_limited)
                await step(connection, self._redis, list(addresses))
        except (*LOST, RedisError, *AWAY, asyncpg.InterfaceError) as error:
            log.warning("publication is left to the worker: %r", error)
            self._patient_until = clock() + PATIENCE_S


async def step(connection: Connection, redis: Redis, addresses: Sequence[Address] | None = None) -> int:
    """Publish some marked addresses, or all marks of the given ones; the number of marks that are gone now.

    For given addresses it waits while another step is at them, so that they are published when it returns; otherwise
    it passes over what others are at, and what has to wait for that.
    """
    async with connection.transaction():
        # A crash may bring marks back, and they are published once more; that is cheaper than waiting for the disk.
        await connection.execute("/* publish.step */ set local synchronous_commit = off")
        marks = await (_take(connection) if addresses is None else _take_at(connection, addresses))
        if not marks:
            return 0
        versions: dict[Address, int] = {}
        for mark in sorted(marks, key=itemgetter("version")):
            versions[Address(mark["hostname"], mark["path"])] = mark["version"]
        await _write(redis, await _published(connection, versions), announce=True)
    return len(marks)


async def _published(connection: Connection, versions: Mapping[Address, int]) -> list[tuple[str, _Value]]:
    """What is to be written for these marks. One without a path is of the host itself."""
    entries = await _living_at(connection, [address for address in versions if address.path])
    hosts = await domains.host_entries(connection, [address.hostname for address in versions if not address.path])
    return [
        (address.key, Published(version, entries.get(address)))
        if address.path
        else (host_key(address.hostname), PublishedHost(version, hosts.get(address.hostname)))
        for address, version in versions.items()
    ]


async def _take(connection: Connection) -> list[asyncpg.Record]:
    return await connection.fetch(
        """
        /* publish.take */
        with held as materialized (
            select version, hostname, path from unpublished order by version limit $1 for update skip locked
        ), passed_over as (
            select hostname, min(version) as oldest, min(version) filter (where path = '') as oldest_of_host
              from unpublished
             where version < (select max(version) from held) and version not in (select version from held)
             group by hostname
        ), waiting as (
            select hostname, min(version) as version from held join passed_over using (hostname)
             where version > case path when '' then oldest else oldest_of_host end
             group by hostname
        )
        delete from unpublished
         where version in (
               select version from held
                where not exists (
                      select from waiting where waiting.hostname = held.hostname and waiting.version <= held.version))
        returning version, hostname, path""",
        _PAGE,
    )


async def _take_at(connection: Connection, addresses: Sequence[Address]) -> list[asyncpg.Record]:
    policy_of = await policies.held(connection, {address.hostname for address in addresses})
    # Spelled as the policy does not say, it is an address that its link has left: it goes behind the host.
    addresses = [
        address
        for address in addresses
        if not (address.path and address.hostname in policy_of)
        or policy_of[address.hostname].normal(address.path) == address.path
    ]
    return await connection.fetch(
        """
        /* publish.take_at */
        delete from unpublished
         where (hostname, path) in (select * from unnest($1::text[], $2::text[]))
           and (path <> '' or not exists (
               select from unpublished as older
                where older.hostname = unpublished.hostname and older.path <> ''
                  and older.version < unpublished.version))
        returning version, hostname, path""",
        [address.hostname for address in addresses],
        [address.path for address in addresses],
    )


async def _living_at(connection: Connection, addresses: Sequence[Address]) -> dict[Address, Entry]:
    rows = await connection.fetch(
        f"""
        /* publish.living_at */
        select {COLUMNS} from links
         where (hostname, path) in (select * from unnest($1::text[], $2::text[])) and deleted_at is null""",  # noqa: S608
        [address.hostname for address in addresses],
        [address.path for address in addresses],
    )
    return {Address(row["hostname"], row["path"]): entry_of(row) for row in rows}


async def _write(redis: Redis, changes: Sequence[tuple[str, _Value]], *, announce: bool) -> None:
    """Write values under their keys."""
    script = redis.register_script(_WRITE)
    writing = redis.pipeline(transaction=False)
    for first in range(0, len(changes), _AT_ONCE):
        some = changes[first : first + _AT_ONCE]
        await script(
            keys=[CHANGES_STREAM, CHANGES_COUNTER, *(key for key, _ in some)],
            args=[_TOMBSTONE_S, _KEPT_CHANGES if announce else 0, *(published.to_bytes() for _, published in some)],
            client=writing,
        )
    await writing.execute()


async def is_complete(redis: Redis) -> bool:
    """Whether the set in Redis is complete, on the server that answers now."""
    return await epoch_now(redis) is not None


async def rebuild(connection: Connection, redis: Redis, *, even_if_complete: bool = False) -> bool:
    """Bring every link to Redis and take away what is none; whether the set is complete now.

    One at a time: it waits while another process rebuilds, and does nothing if that completed the set. False when Redis
    lost its data meanwhile; then it has to begin again.
    """
    # Polled, because a connection's time limit would end a long wait for the lock.
    while not await _try_rebuild_lock(connection):  # noqa: ASYNC110
        await asyncio.sleep(0.25)
    try:
        return (not even_if_complete and await is_complete(redis)) or await _rebuild(connection, redis)
    finally:
        await connection.execute("/* publish.rebuild */ select pg_advisory_unlock($1)", _REBUILD_LOCK)


async def _try_rebuild_lock(connection: Connection) -> bool:
    return bool(
        await connection.fetchval("/* publish.try_rebuild_lock */ select pg_try_advisory_lock($1)", _REBUILD_LOCK)
    )


async def _rebuild(connection: Connection, redis: Redis) -> bool:
    token, run = secrets.token_hex(8), run_id(await redis.info("server"))
    await redis.set(_REBUILD_KEY, token)
    strays = await _mark_strays(
        connection, redis
    )  # first: what is brought is none, and after a wipe it is all there is
    await _write_hosts(connection, redis)  # before the links: they say how these are looked up
    count = await _write_all(connection, redis)
    await uses.forget_others(redis)
    while await step(connection, redis):
        pass
    complete = redis.register_script(_COMPLETE)
    marker = Marker(epoch=secrets.token_hex(8), run_id=run).to_bytes()
    is_done = bool(await complete(keys=[_REBUILD_KEY, MARKER_KEY], args=[token, marker]))
    log.info("republished %d links, took away %d; complete: %s", count, strays, is_done)
    return is_done


async def _write_all(connection: Connection, redis: Redis) -> int:
    # Of a table that has just been filled or restored Postgres knows nothing, and would sort all links for each page.
    await connection.execute("/* publish.write_all */ analyze (skip_locked) links (id, deleted_at)")
    count, rows = 0, await _links_after(connection, 0)
    while rows:
        reading = asyncio.create_task(_links_after(connection, rows[-1]["id"]))
        await asyncio.sleep(0)  # so that Postgres is asked before we are busy
        try:
            changes = [
                (Address(row["hostname"], row["path"]).key, Published(row["version"], entry_of(row))) for row in rows
            ]
            await _write(redis, changes, announce=False)
        finally:
            following = await reading  # whatever happened: the connection must be free
        count, rows = count + len(rows), following
    return count


async def _links_after(connection: Connection, link_id: int) -> list[asyncpg.Record]:
    return await connection.fetch(
        f"""
        /* publish.links_after */
        select {COLUMNS}, version from links
         where id > $1 and deleted_at is null order by id limit $2""",  # noqa: S608
        link_id,
        _PAGE,
    )


async def _write_hosts(connection: Connection, redis: Redis) -> None:
    last = ""
    while rows := await connection.fetch(
        """
        /* publish.write_hosts */
        select hostname, version from domains where hostname > $1 order by hostname limit $2""",
        last,
        _PAGE,
    ):
        hosts = await domains.host_entries(connection, [row["hostname"] for row in rows])
        changes = [
            (host_key(row["hostname"]), PublishedHost(row["version"], hosts.get(row["hostname"]))) for row in rows
        ]
        await _write(redis, changes, announce=False)
        last = rows[-1]["hostname"]


async def _mark_strays(connection: Connection, redis: Redis) -> int:
    """Mark what Redis knows and Postgres does not: it may have come back with an older state."""
    count = 0
    async for keys in _scanned(redis, "link:*"):
        count += await _mark(connection, await _not_living(connection, [Address.of_key(key) for key in keys]))
    async for keys in _scanned(redis, f"{HOST_PREFIX}*"):
        hostnames = [key.removeprefix(HOST_PREFIX) for key in keys]
        hosts = await domains.host_entries(connection, hostnames)
        count += await _mark(connection, [Address(name, "") for name in hostnames if name not in hosts])
    return count


async def _not_living(connection: Connection, addresses: Sequence[Address]) -> list[Address]:
    rows = await connection.fetch(
        """
        /* publish.not_living */
        select hostname, path from unnest($1::text[], $2::text[]) as there (hostname, path)
         where not exists (
               select from links
                where links.hostname = there.hostname and links.path = there.path and deleted_at is null)""",
        [address.hostname for address in addresses],
        [address.path for address in addresses],
    )
    return [Address(row["hostname"], row["path"]) for row in rows]


async def _mark(connection: Connection, addresses: Sequence[Address]) -> int:
    for address in addresses:
        async with connection.transaction():
            # A change of a host's policy, or of whose it is, marks its links under the host alone.
            await policies.held(connection, [address.hostname])
            await links.lock(connection, [address])
            await links.mark(connection, [address])
    return len(addresses)


async def _scanned(redis: Redis, pattern: str) -> AsyncIterator[list[str]]:
    cursor = -1
    while cursor:
        cursor, keys = await redis.scan(max(cursor, 0), match=pattern, count=_PAGE)
        yield [key.decode() for key in keys]  # type: ignore[union-attr]
