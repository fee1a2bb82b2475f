"""Imports: files of links that were sent, and how far each has got. The row is the job of a worker (import_jobs.py).

Rules of this file:

1. A file is received a chunk at a time, each in a transaction of its own; nobody sees the import before all of it is
   there. What was never completed is cleared away.
2. With the end of an import its file goes. What became of its lines stays for a while.
3. An import is told to the audit log as a whole: that it was created, and what it has come to.
"""

from datetime import datetime
from typing import NamedTuple

import asyncpg
import orjson

from admin.database import Connection
from admin.errors import Invalid, NotFound, RateLimited
from admin.http import ids
from admin.http.lists import Asked, Filter, Found, Listing, one_of, since, until
from admin.identity import audit
from admin.identity.principal import Principal
from admin.links.candidates import Note
from admin.links.importing import Plan

_MAX_WAITING = 10
_COME_AGAIN_S = 60
_SILENCE_H = 1
_KEPT_DAYS = 90
_LONGEST = 500
_ENDS = ("finished", "failed", "cancelled")


class Lost(Exception):
    """The import is not this worker's any more: it was cancelled, or another worker has taken it up."""


class Import(NamedTuple):
    """A row of imports."""

    id: int
    public_id: str
    organization_id: int
    organization: str
    """Its public id."""
    actor_type: str
    actor_id: str
    actor_name: str
    address: str
    request_id: str
    source: str
    hostname: str | None
    on_conflict: str
    is_dry_run: bool
    status: str
    """receiving, pending, running, finished, failed or cancelled."""
    failure: str
    """Why it has failed."""
    format: str
    columns_used: dict[str, str]
    columns_ignored: list[str]
    bytes_total: int
    bytes_done: int
    lines_done: int
    position: int
    """As in `Batch`."""
    counts: dict[str, int]
    noted: int
    attempts: int
    """To carry it out, since it last got on."""
    claimed_by: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def shown_id(self) -> str:
        """Its id on the wire."""
        return ids.shown("imp", self.public_id)

    @property
    def plan(self) -> Plan:
        """What was asked for."""
        return Plan(self.source, self.hostname, self.on_conflict, self.is_dry_run)

    @property
    def caller(self) -> Principal:
        """Who asked for it, as far as links and the audit log need to know."""
        return Principal(
            organization_id=self.organization_id,
            organization=self.organization,
            tier="",
            kind=self.actor_type,
            public_id=self.actor_id,
            name=self.actor_name,
            permissions=frozenset(),
            address=self.address,
            request_id=self.request_id,
        )


_OF_ITSELF = [name for name in Import._fields if name != "organization"]
COLUMNS = ", ".join(
    [
        *(f"imports.{name}" for name in _OF_ITSELF),
        "(select public_id from organizations where id = imports.organization_id) as organization",
    ]
)
"""What `of_row` reads."""

LISTING = Listing(
    prefix="imp",
    sorts={"createdAt": "created_at"},
    filters={
        "status": Filter("status = {}", one_of("pending", "running", *_ENDS)),
        "startDate": since("created_at"),
        "endDate": until("created_at"),
    },
)


def of_row(row: asyncpg.Record) -> Import:
    """A row as it was selected here."""
    fields = dict(row)
    for name in ("columns_used", "columns_ignored", "counts"):
        fields[name] = orjson.loads(fields[name])
    return Import(**fields)


async def receive(connection: Connection, caller: Principal, plan: Plan) -> int:
    """Make ready for the file of an import. Its id.

    Raises `RateLimited` while there are many to be received or carried out, and `Invalid` for a host of somebody else.
    """
    await check_host(connection, caller.organization_id, plan.hostname)
    waiting = await connection.fetchval(
        """
        /* imports.receive */
        select count(*) from imports
         where organization_id = $1 and status in ('receiving', 'pending', 'running')""",
        caller.organization_id,
    )
    if waiting >= _MAX_WAITING:
        raise RateLimited(_COME_AGAIN_S)
    import_id: int = await connection.fetchval(
        """
        /* imports.receive */
        insert into imports (public_id, organization_id, actor_type, actor_id, actor_name, address, request_id, source,
                             hostname, on_conflict, is_dry_run)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        returning id""",
        ids.new_id(),
        caller.organization_id,
        caller.kind,
        caller.public_id,
        caller.name,
        caller.address,
        caller.request_id,
        plan.source,
        plan.hostname,
        plan.on_conflict,
        plan.is_dry_run,
    )
    return import_id


async def check_host(connection: Connection, organization_id: int, hostname: str | None) -> None:
    """Raises `Invalid` for a host of another organization."""
    is_theirs = await connection.fetchval(
        "/* imports.check_host */ select true from domains where hostname = $1 and organization_id <> $2",
        hostname,
        organization_id,
    )
    if is_theirs:
        raise Invalid.of("hostname", "This hostname belongs to another organization.")


async def add_chunk(connection: Connection, import_id: int, number: int, content: bytes) -> None:
    """Keep the next part of a file, numbered from 0."""
    await connection.execute(
        "/* imports.add_chunk */ insert into import_chunks (import_id, number, content) values ($1, $2, $3)",
        import_id,
        number,
        content,
    )


async def forget(connection: Connection, import_id: int) -> None:
    """Of a file that did not arrive, everything."""
    await connection.execute(
        "/* imports.forget */ delete from imports where id = $1 and status = 'receiving'", import_id
    )


async def begin(connection: Connection, caller: Principal, import_id: int, bytes_total: int) -> Import:
    """Have an import carried out whose file is there. Raises `NotFound` if it was cleared away meanwhile."""
    row = await connection.fetchrow(
        f"""
        /* imports.begin */
        update imports set status = 'pending', bytes_total = $2, claimed_until = now()
         where id = $1 and status = 'receiving'
        returning {COLUMNS}""",  # noqa: S608
        import_id,
        bytes_total,
    )
    if row is None:
        raise NotFound("The file took too long.")
    job = of_row(row)
    told = {"source": job.source, "onConflict": job.on_conflict, "dryRun": job.is_dry_run, "bytes": bytes_total}
    await audit.record(connection, caller, "import.created", job.shown_id, **told)
    return job


async def get(connection: Connection, organization_id: int, public_id: str, *, lock: bool = False) -> Import:
    """An import of this organization, locked against changes if asked. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"""
        /* imports.get */
        select {COLUMNS} from imports
         where organization_id = $1 and public_id = $2 and status <> 'receiving'"""  # noqa: S608
        + (" for update" if lock else ""),
        organization_id,
        public_id,
    )
    if row is None:
        raise NotFound("There is no such import.")
    return of_row(row)


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """Imports of this organization."""
    return await LISTING.run(
        connection,
        f"/* imports.page_of */ select {COLUMNS} from imports where organization_id = $1 and status <> 'receiving'",  # noqa: S608
        [organization_id],
        asked,
    )


async def notes_of(connection: Connection, import_id: int) -> list[Note]:
    """What is to be said of its lines, in their order."""
    rows = await connection.fetch(
        """
        /* imports.notes_of */
        select line, field, message, is_refusal from import_notes where import_id = $1 order by number""",
        import_id,
    )
    return [Note(row["line"], row["field"], row["message"], row["is_refusal"]) for row in rows]


async def cancel(connection: Connection, caller: Principal, job: Import) -> None:
    """Stop an import that was read with `lock`, unless it is over. What was made of it stays."""
    if job.status not in _ENDS:
        await end(connection, job, caller, "cancelled")


async def end(connection: Connection, job: Import, who: Principal, status: str, failure: str = "") -> None:
    """Have an import finished, failed or cancelled by whoever has it claimed, or locked. Raises `Lost`."""
    changed = await connection.execute(
        """
        /* imports.end */
        update imports
           set status = $3, failure = $4, finished_at = date_trunc('milliseconds', now()),
               bytes_done = case when $3 = 'finished' then bytes_total else bytes_done end
         where id = $1 and claimed_by is not distinct from $2 and status in ('pending', 'running')""",
        job.id,
        job.claimed_by,
        status,
        failure[:_LONGEST],
    )
    if changed != "UPDATE 1":
        raise Lost
    await connection.execute("/* imports.end */ delete from import_chunks where import_id = $1", job.id)
    told = {"dryRun": job.is_dry_run, "counts": job.counts} | ({"failure": failure[:_LONGEST]} if failure else {})
    await audit.record(connection, who, f"import.{status}", job.shown_id, **told)


async def clear(connection: Connection) -> None:
    """Remove files of which nothing has come for long, and imports that have been over for longer."""
    await connection.execute(
        f"""
        /* imports.clear */
        delete from imports
         where finished_at < now() - interval '{_KEPT_DAYS} days'
            or status = 'receiving' and created_at < now() - interval '{_SILENCE_H} hours'
               and not exists (
                   select from import_chunks
                    where import_id = imports.id and received_at > now() - interval '{_SILENCE_H} hours')"""  # noqa: S608
    )
