"""File commands: `linkwire import` and `linkwire export`, which do with files of this machine what the API does.

Nobody keeps how far an import has got that was begun here: one that was stopped is simply begun again, and finds its
links there (importing.py).
"""

import io
from collections import Counter
from typing import Any, BinaryIO

import asyncpg
import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from admin import database
from admin.database import AWAY, Connection
from admin.errors import Invalid, NotFound
from admin.http import ids
from admin.identity import audit, organizations, principal
from admin.identity.principal import Principal
from admin.links import exports, imports
from admin.links.candidates import Batch, Note
from admin.links.import_jobs import MAX_NOTES, columns_of
from admin.links.importing import COUNTED, Done, Importer, Plan
from admin.links.transfer.formats import SOURCES
from admin.links.transfer.rows import NotReadable
from admin.settings import AdminSettings
from shared.links import BadAddress, normal_hostname
from shared.redis import open_redis

_CONNECTIONS = 2
_FORMATS = {"csv": exports.FORMATS["csv"], "jsonl": exports.FORMATS["json"]}


class CannotTransfer(click.ClickException):
    """Why nothing, or not everything, was imported or exported; one sentence for whoever asked."""

    def show(self, file: Any = None) -> None:
        """As all commands do."""
        click.echo(f"linkwire: {self.message}", err=True)


async def import_file(settings: AdminSettings, file: BinaryIO, organization: str, **wanted: Any) -> None:
    """Make links of a file, and print what became of its lines. `wanted` is a `Plan`. Raises `CannotTransfer`."""
    plan = Plan(**wanted)
    if plan.source and plan.source not in SOURCES:
        raise CannotTransfer(f"--source must be one of: {', '.join(SOURCES)}.")
    if not file.seekable():
        raise CannotTransfer("Keep what is to be imported in a file, so that it can be read again.")
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    async with database.connected(settings.database()) as connection:
        caller = await _caller(connection, organization)
        plan = await _with_host(connection, caller, plan)
        import_id = ids.shown("imp", ids.new_id())
        told = {"onConflict": plan.on_conflict, "dryRun": plan.is_dry_run, "bytes": size}
        await audit.record(connection, caller, "import.created", import_id, **told)
        book = _Console(size)
        try:
            await _import(settings, file, plan, caller, book)
        finally:
            book.close()
        done = {"dryRun": plan.is_dry_run, "counts": {name: book.counts[name] for name in COUNTED}}
        await audit.record(connection, caller, "import.finished", import_id, **done)


async def _import(settings: AdminSettings, file: BinaryIO, plan: Plan, caller: Principal, book: "_Console") -> None:
    redis = open_redis(settings.redis(), timeout_s=5.0)
    pool = await asyncpg.create_pool(settings.database(), min_size=0, max_size=_CONNECTIONS)
    try:
        await Importer(pool, redis, settings).run(file, plan, caller, book)
    except NotReadable as error:
        raise CannotTransfer(f"{file.name}: {error}") from error
    except (*AWAY, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        why = str(error) or type(error).__name__
        raise CannotTransfer(f"It was stopped ({why}). Begin again: what is there already is found.") from error
    finally:
        pool.terminate()
        await redis.aclose()


async def export_file(settings: AdminSettings, file: BinaryIO, organization: str, kind: str) -> None:
    """Write all links of an organization into a file. Raises `CannotTransfer`."""
    async with database.connected(settings.database()) as connection:
        caller = await _caller(connection, organization)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            async for piece in exports.pieces(connection, caller.organization_id, _FORMATS[kind], {}):
                _write(file, piece)


def _write(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise CannotTransfer(f"can't write {file.name}: {error.strerror}") from error


async def _caller(connection: Connection, organization: str) -> Principal:
    """The command line, acting for an organization."""
    try:
        found = await organizations.by_public_id(connection, ids.read("", organization.removeprefix("org_")))
    except NotFound as error:
        raise CannotTransfer(f"There is no organization {organization}.") from error
    return principal.system(found.id)._replace(organization=found.public_id)


async def _with_host(connection: Connection, caller: Principal, plan: Plan) -> Plan:
    """With the host in normal form, if the organization may have it."""
    if plan.hostname is None:
        return plan
    try:
        hostname = normal_hostname(plan.hostname)
        await imports.check_host(connection, caller.organization_id, hostname)
    except (BadAddress, Invalid) as error:
        why = error.details[0].message if isinstance(error, Invalid) else str(error)
        raise CannotTransfer(f"--hostname {plan.hostname}: {why}") from error
    return plan._replace(hostname=hostname)


class _Console:
    """The book of an import that somebody looks at."""

    def __init__(self, size: int) -> None:
        self.counts: Counter[str] = Counter()
        self._notes: list[Note] = []
        self._columns: tuple[dict[str, str], list[str]] = ({}, [])
        self._format = ""
        self._console = Console(stderr=True)
        bar = (TextColumn("{task.fields[rows]:,} rows"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*bar, console=self._console)
        self._task = self._progress.add_task("", total=size, rows=0)
        self._progress.start()

    async def enter(self, connection: Connection, batch: Batch, done: Done) -> None:
        """Remember it, and show how far it is."""
        self.counts += done.counts
        self._notes += done.notes[: MAX_NOTES - len(self._notes)]
        self._format, self._columns = batch.kind, columns_of(batch)
        self._progress.update(self._task, completed=batch.bytes_read, rows=batch.position)

    async def stay(self) -> None:
        """There is nothing to tell."""

    def close(self) -> None:
        """Print what has become of the lines."""
        self._progress.stop()
        if not self._format:
            return
        used, ignored = self._columns
        self._say(f"{self._format}: {', '.join(used)}")
        if ignored:
            self._say(f"Not used: {', '.join(ignored)}")
        for note in self._notes:
            self._say(f"line {note.line}{note.column and f', {note.column}'}: {note.message}")
        table = Table()
        for name in COUNTED:
            table.add_column(name, justify="right")
        table.add_row(*(f"{self.counts[name]:,}" for name in COUNTED))
        self._console.print(table)

    def _say(self, line: str) -> None:
        """In one line, and without anything of the file that a terminal would heed."""
        shown = "".join(character if character.isprintable() else " " for character in line)
        self._console.print(shown, highlight=False, markup=False, soft_wrap=True)
