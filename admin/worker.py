"""The worker: the loops that run the steps, each safe to run twice and to die at any point."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import asyncpg

from admin import database, mail
from admin.database import Connection
from admin.fetch import Fetcher, resolver
from admin.http import idempotency
from admin.identity import letters, mailed_tokens, sessions
from admin.identity.oauth import grants
from admin.links import import_jobs, imports, links, publish
from admin.links.checker import Checker, enrol
from admin.links.importing import Importer
from admin.settings import AdminSettings
from admin.stats import conversions, erasing, ingest, reclassify, sources, visitors
from admin.stats.places import places
from admin.stats.recount import Recount
from shared.redis import LOST, Redis, RedisError, open_redis
from shared.settings import SettingsError
from shared.tasks import end

log = logging.getLogger(__name__)

_IDLE_S = 0.25
_LONGEST_PAUSE_S = 5.0
_PATIENCE_S = 60.0
_COMPARE_EVERY_S = 1.0
_TEND_EVERY_S = 10.0
_MAIL_IDLE_S = 1.0
_CHECK_IDLE_S = 10.0
_IMPORT_IDLE_S = 1.0
_IMPORTS = 2
_ENROL_EVERY_S = 600.0
_CLEAR_EVERY_S = 3600.0
_AGAIN_S = 60.0
_TROUBLE = (
    *LOST,
    RedisError,
    *database.AWAY,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that is lost in the midst of something
)


async def run(settings: AdminSettings, stop: asyncio.Event) -> None:
    """Work until told to stop. Raises `SettingsError` for a Redis that would forget links, and for settings of mail."""
    redis = open_redis(settings.redis(), timeout_s=5.0)
    try:
        loops = [
            asyncio.create_task(_keep_doing("publication", lambda: _publish(settings.database(), redis))),
            asyncio.create_task(_keep_doing("ingest", lambda: _ingest(settings, redis))),
            asyncio.create_task(_keep_doing("recount", lambda: _recount(settings.database(), redis))),
            asyncio.create_task(_keep_doing("conversions", lambda: _match_conversions(settings.database()))),
            asyncio.create_task(_keep_doing("mail", lambda: _send_mail(settings))),
            asyncio.create_task(_keep_doing("clearing", lambda: _clear(settings.database()))),
            # Several, so that a small import does not wait for a large one of somebody else.
            *(asyncio.create_task(_keep_doing("imports", lambda: _import(settings, redis))) for _ in range(_IMPORTS)),
        ]
        if settings.checks_destinations:
            loops.append(asyncio.create_task(_keep_doing("checks of destinations", lambda: _check(settings))))
        stopping = asyncio.create_task(stop.wait())
        done, _pending = await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
        await end(stopping, *loops)
        for task in done - {stopping}:
            task.result()  # a loop ends only by a fault of ours: the process ends with it and is started again
    finally:
        await redis.aclose()


async def _check_redis(redis: Redis) -> None:
    memory = await redis.info("memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if int(memory.get("maxmemory", 0)) and policy != "noeviction":
        raise SettingsError(f"REDIS_URL: its maxmemory-policy is {policy}; it must be noeviction, or links get lost.")


async def _keep_doing(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work for ever; when something it needs is away, begin again after a growing pause."""
    pause_s = 0.1
    while True:
        started_at = asyncio.get_running_loop().time()
        try:
            await work()
        except _TROUBLE as error:
            log.warning("%s pauses for %.1f s: %r", name, pause_s, error)
        if asyncio.get_running_loop().time() - started_at > _LONGEST_PAUSE_S:
            pause_s = 0.1
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


async def _publish(database_url: str, redis: Redis) -> None:
    """Publish what requests have left, and everything when the set in Redis is not complete."""
    await _check_redis(redis)
    connection = await asyncpg.connect(database_url, timeout=_LONGEST_PAUSE_S, command_timeout=_PATIENCE_S)
    try:
        while True:
            if not await publish.is_complete(redis):
                await publish.rebuild(connection, redis)
            if not await publish.step(connection, redis):
                await asyncio.sleep(_IDLE_S)
    finally:
        connection.terminate()


async def _ingest(settings: AdminSettings, redis: Redis) -> None:
    """Ingest for as long as this worker holds the lease; otherwise stand by."""
    locate = places(settings.geoip_db)
    connection = await asyncpg.connect(settings.database(), timeout=_LONGEST_PAUSE_S, command_timeout=_PATIENCE_S)
    try:
        while not await ingest.lease(connection):  # noqa: ASYNC110  another process holds it
            await asyncio.sleep(_IDLE_S)
        lane = await ingest.Lane.begin(connection, locate)
        compare_at, tend_at, is_busy = 0.0, 0.0, False
        again_at = {erasing.step: 0.0, reclassify.step: 0.0}
        while True:
            # First: whatever else fails here must not keep clicks from being stored.
            await ingest.step(connection, redis, lane, wait_ms=1 if is_busy else 1000)
            if time.monotonic() >= compare_at:
                await sources.step(connection, redis, silence_s=settings.spool_silence_s)
                await ingest.measure(redis, time.time_ns() // 1_000_000)
                compare_at = time.monotonic() + _COMPARE_EVERY_S
            if time.monotonic() >= tend_at:
                is_done = await _attempt(connection, lane.tend(connection, datetime.now(UTC)))
                tend_at = time.monotonic() + (_AGAIN_S if is_done is None else _TEND_EVERY_S)
                if is_done is None:  # nobody knows how far it has got
                    lane = await ingest.Lane.begin(connection, locate)
            is_busy = False
            for step, at in again_at.items():
                if not is_busy and time.monotonic() >= at:
                    is_done = await _attempt(connection, step(connection, lane.packs))
                    again_at[step] = time.monotonic() + _AGAIN_S if is_done is None else 0.0
                    is_busy = is_done is True
    finally:
        connection.terminate()


async def _attempt(connection: Connection, work: Awaitable[bool]) -> bool | None:
    """Do what is done again in any case; None if it fails, which must not keep clicks from being stored."""
    try:
        return await work
    except Exception as error:
        if connection.is_closed() or (isinstance(error, OSError) and not isinstance(error, TimeoutError)):
            raise
        log.exception("what is done beside ingest failed, and is tried again in %.0f s: %r", _AGAIN_S, error)
        return None


async def _recount(database_url: str, redis: Redis) -> None:
    """Count the uses of links again that Redis does not know."""
    connection = await asyncpg.connect(database_url, timeout=_LONGEST_PAUSE_S, command_timeout=_PATIENCE_S)
    try:
        recount = Recount()
        while True:
            await recount.step(connection, redis)
            await asyncio.sleep(_IDLE_S)
    finally:
        connection.terminate()


async def _match_conversions(database_url: str) -> None:
    """Find the clicks of conversions that have come before them."""
    connection = await asyncpg.connect(database_url, timeout=_LONGEST_PAUSE_S, command_timeout=_PATIENCE_S)
    try:
        while True:
            if not await conversions.step(connection):
                await asyncio.sleep(_IDLE_S)
    finally:
        connection.terminate()


async def _send_mail(settings: AdminSettings) -> None:
    """Write the mail that was asked for, and send what is written, or give it up."""
    sealer = settings.sealer()
    connection = await asyncpg.connect(settings.database(), timeout=_LONGEST_PAUSE_S, command_timeout=_PATIENCE_S)
    try:
        while True:
            written = await letters.step(connection, sealer)
            if not await mail.step(connection, sealer, settings) and not written:
                await asyncio.sleep(_MAIL_IDLE_S)
    finally:
        connection.terminate()


async def _check(settings: AdminSettings) -> None:
    """Ask for the destinations that are due."""
    names = resolver(settings.name_server)
    checker = Checker(Fetcher(names, settings.reachable_networks or ()))
    connection = await asyncpg.connect(settings.database(), timeout=_LONGEST_PAUSE_S, command_timeout=_PATIENCE_S)
    try:
        enrol_at = 0.0
        while True:
            if time.monotonic() >= enrol_at:
                await enrol(connection)
                enrol_at = time.monotonic() + _ENROL_EVERY_S
            if not await checker.step(connection):
                await asyncio.sleep(_CHECK_IDLE_S)
    finally:
        connection.terminate()


async def _import(settings: AdminSettings, redis: Redis) -> None:
    """Carry out imports, one after the other."""
    pool = await database.open_pool(settings.database(), size=3, connect_s=_LONGEST_PAUSE_S, command_s=_PATIENCE_S)
    try:
        importer = Importer(pool, redis, settings)
        while True:
            if not await import_jobs.step(pool, importer):
                await asyncio.sleep(_IMPORT_IDLE_S)
    finally:
        pool.terminate()


async def _clear(database_url: str) -> None:
    """Remove what is over and nobody may ask for again; then wait for the next time."""
    connection = await asyncpg.connect(database_url, timeout=_LONGEST_PAUSE_S, command_timeout=_PATIENCE_S)
    try:
        for clear in (
            visitors.clear,  # first: salts have a term that was promised
            ingest.clear,
            idempotency.clear,
            sessions.clear,
            grants.clear,
            mailed_tokens.clear,
            links.clear,
            imports.clear,
        ):
            await clear(connection)
    finally:
        connection.terminate()
    await asyncio.sleep(_CLEAR_EVERY_S)
