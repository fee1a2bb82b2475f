"""Postgres: the pool, the transaction of a request, and the migrations.

Rules of this file:

1. The caller owns the transaction: functions elsewhere take a connection first and neither begin nor commit.
2. A request gets its answer within two seconds: it has `AUTHENTICATE_S` to learn who calls and `REQUEST_S` for its
   work, each from asking for a connection to giving it back. Beyond that, and when Postgres is away, it gets
   `Unavailable`.
3. A migration is a numbered file, applied once, whole, in order, and never changed afterwards.
"""

import asyncio
import contextlib
import functools
import hashlib
from collections.abc import AsyncIterator
from importlib import resources
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from admin.errors import Unavailable
from shared.settings import SettingsError

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

AUTHENTICATE_S = 0.7
REQUEST_S = 1.2

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # too many connections, a full disk
)
"""What is raised while Postgres is away. (`InterfaceError` too, on a connection that has just been lost.)"""

_MIGRATION_LOCK = 0x6C696E6B


class MigrationError(Exception):
    """A migration was changed after it had been applied; the message names it."""


async def open_pool(
    url: str, *, size: int = 10, connect_s: float | None = None, command_s: float | None = None
) -> Pool:
    """A pool that connects when it is first used, so that Postgres may be away now.

    Connecting may take `connect_s` (or `AUTHENTICATE_S`), and each command `command_s`, or any time.
    """
    connect_s = AUTHENTICATE_S if connect_s is None else connect_s
    return await asyncpg.create_pool(
        url, min_size=0, max_size=size, timeout=connect_s, command_timeout=command_s, reset=_keep_session
    )


@contextlib.asynccontextmanager
async def connection(pool: Pool, *, within_s: float | None = None) -> AsyncIterator[Connection]:
    """A connection of the pool, waited for and used for `within_s` (or `REQUEST_S`) in all; then it is cut.

    Cut, not cancelled: a Postgres that does not answer would not answer a ROLLBACK either. Raises `Unavailable` when
    Postgres is away or too slow.
    """
    try:
        clock = asyncio.get_running_loop()
        within_s = REQUEST_S if within_s is None else within_s
        end = clock.time() + within_s
        async with pool.acquire(timeout=within_s) as taken:
            cut = clock.call_at(end, taken.terminate)
            try:
                yield taken
            except asyncpg.InterfaceError as error:
                if is_lost(taken):
                    raise Unavailable from error
                raise
            finally:
                cut.cancel()
    except (*AWAY, asyncpg.DeadlockDetectedError) as error:  # of two that wait for each other, one may try again
        raise Unavailable from error


def is_lost(taken: Connection) -> bool:
    """Whether a connection is of no use any more."""
    try:
        return taken.is_closed()
    except asyncpg.InterfaceError:  # the pool has let go of it already
        return True


@contextlib.asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """A request's transaction: commits when left, rolls back on an exception. Raises `Unavailable`."""
    async with connection(pool) as taken, taken.transaction():
        yield taken


@contextlib.asynccontextmanager
async def snapshot(pool: Pool, *, within_s: float | None = None) -> AsyncIterator[Connection]:
    """One moment of the database, to be read. Raises `Unavailable`."""
    async with (
        connection(pool, within_s=within_s) as taken,
        taken.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield taken


async def _keep_session(_: Connection) -> None:
    """Nothing to reset between two users of a connection: no session state is used, only transactions.

    It also keeps the way back into the pool from waiting for Postgres: the pool shields that way from being cancelled,
    and what it finds when the pool is terminated meanwhile nobody would hear.
    """


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection of its own, for commands. Raises `SettingsError` for whatever the operator has to see to."""
    try:
        taken = await asyncpg.connect(url, timeout=10)
    except (*AWAY, asyncpg.PostgresError, ValueError) as error:
        raise SettingsError(f"DATABASE_URL: can't connect: {error or type(error).__name__}") from error
    try:
        yield taken
    except asyncpg.UndefinedTableError as error:
        raise SettingsError("DATABASE_URL: this database has no Linkwire yet; run `linkwire migrate`.") from error
    except asyncpg.PostgresError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from error
    finally:
        await taken.close()


async def migrate(connection: Connection) -> list[str]:
    """Apply what has not been applied; the names of the files. Safe to run from several processes at once.

    Raises `MigrationError`.
    """
    await connection.execute("/* database.migrate */ select pg_advisory_lock($1)", _MIGRATION_LOCK)
    try:
        await connection.execute("""
            /* database.migrate */
            create table if not exists migrations (
                name       text primary key,
                sha256     text not null,
                applied_at timestamptz not null default now()
            )""")
        rows = await connection.fetch("/* database.migrate */ select name, sha256 from migrations")
        known = {row["name"]: row["sha256"] for row in rows}
        applied = []
        for name, text in _migrations():
            checksum = hashlib.sha256(text.encode()).hexdigest()
            if name not in known:
                async with connection.transaction():
                    await connection.execute(text)
                    await connection.execute(
                        "/* database.migrate */ insert into migrations (name, sha256) values ($1, $2)", name, checksum
                    )
                applied.append(name)
            elif known[name] != checksum:
                raise MigrationError(f"The migration {name} was changed after it had been applied to this database.")
        return applied
    finally:
        await connection.execute("/* database.migrate */ select pg_advisory_unlock($1)", _MIGRATION_LOCK)


async def pending(connection: Connection) -> list[str]:
    """The migrations that have not been applied, in their order; of a database that is not ours yet, all of them."""
    is_ours = await connection.fetchval("/* database.pending */ select to_regclass('migrations') is not null")
    rows = await connection.fetch("/* database.pending */ select name from migrations") if is_ours else []
    applied = {row["name"] for row in rows}
    return [name for name, _text in _migrations() if name not in applied]


@functools.cache  # those that this process was started with: an upgrade may bring others while it runs
def _migrations() -> list[tuple[str, str]]:
    files = [file for file in (resources.files("admin") / "migrations").iterdir() if file.name.endswith(".sql")]
    return [(file.name, file.read_text(encoding="utf-8")) for file in sorted(files, key=lambda file: file.name)]
