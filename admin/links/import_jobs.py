"""Import jobs: how the worker carries out imports that were sent (imports.py).

Rules of this file:

1. Imports of an organization are carried out one after the other, in the order in which they came.
2. A worker has an import for as long as its lease lasts, and each batch renews the lease. Who has lost it can write
   nothing (`Lost`). What a dead worker has left is taken up behind its last batch.
3. What ends an import but the file itself is left to the next attempt. When several have got nowhere, it has failed.
"""

import asyncio
import contextlib
import io
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, BinaryIO, cast

import asyncpg
import orjson

from admin.database import AWAY, Connection, Pool
from admin.links import imports
from admin.links.candidates import Batch, Note
from admin.links.importing import COUNTED, Done, Importer
from admin.links.imports import Import, Lost
from admin.links.transfer.rows import NotReadable

log = logging.getLogger(__name__)

MAX_NOTES = 1_000
"""So many of the first ones are kept."""

_LEASE_S = 30.0
_PAUSE_S = 5.0
_ATTEMPTS = 5
_GIVEN_UP = "It was given up: nobody got on with it in several attempts. The log of the worker says why."
_DATABASE = (*AWAY, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_LONGEST_MESSAGE = 500
_LONGEST_NAME = 100
_MOST_NAMES = 100
_NOT_KEPT = ("id", "createdAt")
"""Fields that a link here has of its own."""


async def step(pool: Pool, importer: Importer) -> bool:
    """Carry out an import that is due, to its end; whether there was one. Not in a transaction.

    Raises what is raised while Postgres is away; then the import is left to the next attempt.
    """
    async with pool.acquire() as connection:
        job = await claim(connection)
    if job is None:
        return False
    try:
        await _carry_out(pool, importer, job)
    except Lost:
        log.info("import %s was cancelled, or another worker has it", job.public_id)
    return True


async def _carry_out(pool: Pool, importer: Importer, job: Import) -> None:
    book = _Row(pool, job)
    try:
        if job.attempts > _ATTEMPTS:
            await book.end("failed", _GIVEN_UP)
            return
        file = cast(BinaryIO, Chunks(lambda number: _chunk(pool, job.id, number)))
        await importer.run(file, job.plan, job.caller, book, after=job.position)
        await book.end("finished")
    except NotReadable as error:
        await book.end("failed", str(error))
    except Lost:
        raise
    except _DATABASE:
        with contextlib.suppress(*_DATABASE):
            await book.renew(_PAUSE_S)
        raise
    except Exception:
        # A file must not stop all other work: the process would end, and begin with the same file again.
        log.exception("import %s: nobody expected this", job.public_id)
        await book.renew(_PAUSE_S)


async def claim(connection: Connection) -> Import | None:
    """Take up an import that is due, or that somebody has dropped. It has a lease when this has committed."""
    # An array, because Postgres might run a plain subquery again for each row, and claim more than one.
    row = await connection.fetchrow(
        f"""
        /* import_jobs.claim */
        update imports
           set status = 'running', claimed_by = $1, claimed_until = now() + make_interval(secs => $2),
               attempts = attempts + 1, started_at = coalesce(started_at, date_trunc('milliseconds', now()))
         where id = any(array(
               select id from imports as due
                where status in ('pending', 'running') and claimed_until <= now()
                  and not exists (
                      select from imports as earlier
                       where earlier.organization_id = due.organization_id and earlier.id < due.id
                         and earlier.status in ('pending', 'running'))
                order by id limit 1 for update skip locked))
        returning {imports.COLUMNS}""",  # noqa: S608
        secrets.token_hex(8),
        _LEASE_S,
    )
    return imports.of_row(row) if row else None


async def _chunk(pool: Pool, import_id: int, number: int) -> bytes:
    """A part of a file; nothing behind its end, and when the import is over."""
    async with pool.acquire() as connection:
        content: bytes | None = await connection.fetchval(
            "/* import_jobs.chunk */ select content from import_chunks where import_id = $1 and number = $2",
            import_id,
            number,
        )
    return content or b""


class _Row:
    """The book of an import that was claimed. Everything raises `Lost`."""

    def __init__(self, pool: Pool, job: Import) -> None:
        self._pool = pool
        self._job = job

    async def enter(self, connection: Connection, batch: Batch, done: Done) -> None:
        """Also renews the lease."""
        before = self._job
        used, ignored = columns_of(batch)
        notes = done.notes[: MAX_NOTES - before.noted]
        after = before._replace(
            columns_used=used,
            columns_ignored=ignored,
            counts={name: before.counts.get(name, 0) + done.counts[name] for name in COUNTED},
            noted=before.noted + len(notes),
        )
        is_known = (used, ignored) == (before.columns_used, before.columns_ignored)
        _hold(
            await connection.execute(
                """
                /* import_jobs.enter */
                update imports
                   set position = $3, lines_done = $4, bytes_done = $5, counts = $6, noted = $7, format = $8,
                       columns_used = coalesce($9, columns_used), columns_ignored = coalesce($10, columns_ignored),
                       attempts = 0, claimed_until = now() + make_interval(secs => $11)
                 where id = $1 and claimed_by = $2 and status = 'running'""",
                before.id,
                before.claimed_by,
                batch.position,
                batch.line,
                batch.bytes_read,
                orjson.dumps(after.counts).decode(),
                after.noted,
                batch.kind,
                None if is_known else orjson.dumps(used).decode(),
                None if is_known else orjson.dumps(ignored).decode(),
                _LEASE_S,
            )
        )
        if notes:
            await _note(connection, before, notes)
        self._job = after

    async def stay(self) -> None:
        """Renew the lease."""
        await self.renew(_LEASE_S)

    async def renew(self, lease_s: float) -> None:
        """For so long from now; then somebody else may take it up."""
        async with self._pool.acquire() as connection:
            _hold(
                await connection.execute(
                    """
                    /* import_jobs.renew */
                    update imports set claimed_until = now() + make_interval(secs => $3)
                     where id = $1 and claimed_by = $2 and status = 'running'""",
                    self._job.id,
                    self._job.claimed_by,
                    lease_s,
                )
            )

    async def end(self, status: str, failure: str = "") -> None:
        """It has finished, or failed."""
        async with self._pool.acquire() as connection, connection.transaction():
            await imports.end(connection, self._job, self._job.caller, status, failure)


def _hold(changed: str) -> None:
    if changed != "UPDATE 1":
        raise Lost


async def _note(connection: Connection, job: Import, notes: Sequence[Note]) -> None:
    await connection.execute(
        """
        /* import_jobs.note */
        insert into import_notes (import_id, number, line, field, message, is_refusal)
        select $1, $2 + number, line, field, message, is_refusal
          from unnest($3::bigint[], $4::text[], $5::text[], $6::boolean[])
               with ordinality as notes (line, field, message, is_refusal, number)""",
        job.id,
        job.noted,
        [note.line for note in notes],
        [note.column for note in notes],
        [note.message[:_LONGEST_MESSAGE] for note in notes],
        [note.is_refusal for note in notes],
    )


def columns_of(batch: Batch) -> tuple[dict[str, str], list[str]]:
    """The columns of a file that tell of links, with the fields they tell of; and others, as far as they are shown."""
    used = {name[:_LONGEST_NAME]: field for name, field in batch.used.items() if field not in _NOT_KEPT}
    others = [*(name for name, field in batch.used.items() if field in _NOT_KEPT), *batch.ignored]
    return used, [name[:_LONGEST_NAME] for name in others[:_MOST_NAMES]]


class Chunks(io.RawIOBase):
    """A file in chunks that are fetched in the loop where this is made, one ahead of the thread that reads.

    `fetch` takes the number of a chunk, from 0, and has nothing behind the last one. To close the file ends a read.
    """

    def __init__(self, fetch: Callable[[int], Awaitable[bytes]]) -> None:
        self._fetch = fetch
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")
        self._read = 0
        self._ahead = self._fetched(0)
        self._number = 0

    def readable(self) -> bool:
        """It is for nothing else."""
        return True

    def tell(self) -> int:
        """How much of it was read."""
        return self._read

    def readinto(self, buffer: Any, /) -> int:
        """Some bytes; 0 at the end. Raises `CancelledError` when it is closed meanwhile."""
        self._checkClosed()
        if not self._rest:
            self._rest = memoryview(self._ahead.result())
            if self._rest:
                self._number += 1
                self._ahead = self._fetched(self._number)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        self._read += size
        return size

    def close(self) -> None:
        """Also for a thread that waits for a chunk."""
        self._ahead.cancel()
        super().close()

    def _fetched(self, number: int) -> "Future[bytes]":
        return asyncio.run_coroutine_threadsafe(self._awaited(number), self._loop)

    async def _awaited(self, number: int) -> bytes:
        return await self._fetch(number)
