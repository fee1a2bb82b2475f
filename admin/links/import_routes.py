"""The routes of imports: files of links are received here, and carried out by the worker (import_jobs.py)."""

import asyncio
import contextlib
import hashlib
import io
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from fastapi import APIRouter
from pydantic.alias_generators import to_snake
from starlette.requests import ClientDisconnect, Request

from admin import errors
from admin.database import transaction
from admin.errors import Detail, Invalid, PayloadTooLarge, Unavailable
from admin.http import ids
from admin.http.answers import (
    Instant,
    PlainAnswer,
    Resource,
    ResourceAnswer,
    ResourceListAnswer,
    Wire,
    documented,
    plain_answer,
    resource_answer,
    resource_list_answer,
)
from admin.http.idempotency import OnceRead
from admin.http.lists import Values, one_of
from admin.identity.principal import LinkReader, LinkWriter, Principal
from admin.links import imports
from admin.links.importing import Plan
from admin.links.imports import Import
from admin.links.transfer.formats import SOURCES
from admin.links.transfer.reading import read
from admin.links.transfer.rows import NotReadable
from shared.links import normal_hostname

router = APIRouter(tags=["Import and export"], responses=documented(*errors.OF_EVERY_CALLER))

_CHUNK_BYTES = 1024 * 1024
_TYPES = ("text/csv", "application/json", "application/x-ndjson", "application/octet-stream")
_PARAMETERS = {
    "source": (one_of(*SOURCES), "Who wrote the file; unless given, whoever its columns name."),
    "dryRun": (one_of("true", "false"), "Whether everything is checked and reported, and nothing done."),
    "hostname": (
        Values(normal_hostname, {"type": "string", "examples": ["go.example.com"]}),
        "For links that name no host, or one that the organization does not have; unless given, its default.",
    ),
    "onConflict": (one_of("skip", "update"), "What becomes of links that are there already; skip unless given."),
}


class Columns(Wire):
    """The columns of the file."""

    used: dict[str, str]
    """With the fields of links that they tell of."""
    ignored: list[str]
    """The first hundred of the others."""


class Progress(Wire):
    """How far it has got."""

    lines_done: int
    """In a JSON document, links."""
    bytes_done: int
    bytes_total: int


class Counts(Wire):
    """What became of the lines."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    """The link is there as the file has it."""
    skipped: int = 0
    """It is there otherwise, and was left as it is."""
    refused: int = 0
    moved: int = 0
    """Of those that were not refused, how many are not on the host that the file names."""
    disabled: int = 0
    """Of those that were created or updated, how many had a password, and lead nowhere until they get one."""


class ImportAttributes(Wire):
    """An import as the API shows it."""

    status: str
    """pending, running, finished, failed or cancelled."""
    failure: str | None
    """Why it has failed."""
    source: str | None
    format: str | None
    """What the file was taken for."""
    columns: Columns
    hostname: str | None
    on_conflict: str
    dry_run: bool
    progress: Progress
    counts: Counts
    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None


class NoteResource(Wire):
    """What is to be said of a line."""

    line: int
    column: str
    """As the file names it; empty for the line as a whole."""
    message: str
    is_refusal: bool
    """Whether there is no link for the line; otherwise there is, but something of it could not come along."""


def _resource(job: Import) -> Resource[ImportAttributes]:
    attributes = ImportAttributes(
        status=job.status,
        failure=job.failure or None,
        source=job.source or None,
        format=job.format or None,
        columns=Columns(used=job.columns_used, ignored=job.columns_ignored),
        hostname=job.hostname,
        on_conflict=job.on_conflict,
        dry_run=job.is_dry_run,
        progress=Progress(lines_done=job.lines_done, bytes_done=job.bytes_done, bytes_total=job.bytes_total),
        counts=Counts(**job.counts),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
    return Resource(id=job.shown_id, type="import", attributes=attributes)


def _plan(request: Request) -> Plan:
    """What the query string asks for. Raises `Invalid`."""
    spellings = {spelling: name for name in _PARAMETERS for spelling in (name, to_snake(name))}
    asked: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for parameter, text in request.query_params.multi_items():
        name = spellings.get(parameter, "")
        if not name:
            wrong[parameter] = "There is no such parameter."
        elif name in asked:
            wrong[parameter] = "It is given twice."
        else:
            try:
                asked[name] = _PARAMETERS[name][0].read(text)
            except ValueError as error:
                wrong[parameter] = str(error)
    if wrong:
        raise Invalid(details=[Detail(*one) for one in wrong.items()])
    return Plan(
        source=asked.get("source", ""),
        hostname=asked.get("hostname"),
        on_conflict=asked.get("onConflict", "skip"),
        is_dry_run=asked.get("dryRun") == "true",
    )


@router.post(
    "/imports",
    status_code=202,
    summary="Import links from a file",
    responses=documented(*errors.OF_EVERY_POST),
    openapi_extra={
        "parameters": [
            {"name": name, "in": "query", "required": False, "description": description, "schema": values.schema}
            for name, (values, description) in _PARAMETERS.items()
        ],
        "requestBody": {"required": True, "content": {media_type: {} for media_type in _TYPES}},
    },
)
async def create_import(request: Request, caller: LinkWriter, later: OnceRead) -> ResourceAnswer[ImportAttributes]:
    """The body is the file: CSV, JSON or JSON Lines of Bitly, Dub, Shlink, Kutt, YOURLS, Short.io, Sink, Rebrandly or
    Linkwire. It is dealt with after the answer."""
    plan = _plan(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind not in _TYPES:
        raise Invalid.of("body", f"Send {', '.join(_TYPES[:-1])} or {_TYPES[-1]}.")
    async with (
        _received(request, caller, plan) as file,
        later.once(file.digest) as once,
        transaction(request.app.state.pool) as connection,
    ):
        job = await imports.begin(connection, caller, file.import_id, file.size)
        made = resource_answer(request, _resource(job))
        await once.keep(connection, made, 202)
    return made


class _File(NamedTuple):
    import_id: int
    size: int
    digest: bytes
    """Of all that must be the same in a repeat of the request."""


@contextlib.asynccontextmanager
async def _received(request: Request, caller: Principal, plan: Plan) -> AsyncIterator[_File]:
    """The file, which is kept unless the block fails. Raises `Invalid`, `PayloadTooLarge`, `RateLimited`."""
    pool = request.app.state.pool
    async with transaction(pool) as connection:
        import_id = await imports.receive(connection, caller, plan)
    try:
        digest, size = hashlib.sha256(f"{sorted(plan._asdict().items())}\n".encode()), 0
        async for number, chunk in _chunks(request):
            if number == 0:
                await asyncio.to_thread(_look_at, chunk, plan)
            digest.update(chunk)
            size += len(chunk)
            async with transaction(pool) as connection:
                await imports.add_chunk(connection, import_id, number, chunk)
        yield _File(import_id, size, digest.digest())
    except BaseException:
        with contextlib.suppress(Unavailable):
            async with transaction(pool) as connection:
                await imports.forget(connection, import_id)
        raise


async def _chunks(request: Request) -> AsyncIterator[tuple[int, bytes]]:
    """The body in numbered parts of a size, at least one. Raises `Invalid`, `PayloadTooLarge`."""
    most = request.app.state.settings.import_max_bytes
    number, rest, size = 0, bytearray(), 0
    try:
        async for piece in request.stream():
            rest += piece
            size += len(piece)
            if size > most:
                raise PayloadTooLarge(f"A file may have {most} bytes here. Send it in several parts.")
            while len(rest) >= _CHUNK_BYTES:
                yield number, bytes(rest[:_CHUNK_BYTES])
                del rest[:_CHUNK_BYTES]
                number += 1
    except ClientDisconnect as error:
        raise Invalid.of("body", "It ended early.") from error
    if rest or number == 0:
        yield number, bytes(rest)


class _More(Exception):
    """What the rest of a file is has to be known."""


class _Begin(io.BytesIO):
    """The begin of a file, behind which there is more."""

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if not content:
            raise _More
        return content


def _look_at(begin: bytes, plan: Plan) -> None:
    """Raises `Invalid` for a file of which it is plain from its begin that it has no links."""
    try:
        read(io.BytesIO(begin) if len(begin) < _CHUNK_BYTES else _Begin(begin), plan.source)
    except NotReadable as error:
        raise Invalid.of("body", str(error)) from error
    except _More:
        pass  # the worker will see


@router.get(
    "/imports",
    summary="List imports, newest first",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": imports.LISTING.parameters},
)
async def list_imports(request: Request, caller: LinkReader) -> ResourceListAnswer[ImportAttributes]:
    """Those of the last 90 days, and those that are not over."""
    asked = imports.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        found = await imports.page_of(connection, caller.organization_id, asked)
    return resource_list_answer(request, [_resource(imports.of_row(row)) for row in found.rows], found)


@router.get("/imports/{import_id}", summary="Get an import", responses=documented(errors.NotFound))
async def get_import(request: Request, caller: LinkReader, import_id: str) -> ResourceAnswer[ImportAttributes]:
    """How far it has got, and how many lines became what."""
    async with transaction(request.app.state.pool) as connection:
        job = await imports.get(connection, caller.organization_id, ids.read("imp", import_id))
    return resource_answer(request, _resource(job))


@router.get(
    "/imports/{import_id}/refusals", summary="See what an import refused", responses=documented(errors.NotFound)
)
async def list_refusals(request: Request, caller: LinkReader, import_id: str) -> PlainAnswer[list[NoteResource]]:
    """Why lines are no links, and what of others could not come along: the first thousand, by line."""
    async with transaction(request.app.state.pool) as connection:
        job = await imports.get(connection, caller.organization_id, ids.read("imp", import_id))
        notes = await imports.notes_of(connection, job.id)
    return plain_answer(request, [NoteResource(**note._asdict()) for note in notes])


@router.delete("/imports/{import_id}", summary="Cancel an import", responses=documented(errors.NotFound))
async def cancel_import(request: Request, caller: LinkWriter, import_id: str) -> ResourceAnswer[ImportAttributes]:
    """What was made of the file stays, and the rest is forgotten. Nothing happens to an import that is over."""
    async with transaction(request.app.state.pool) as connection:
        public_id = ids.read("imp", import_id)
        job = await imports.get(connection, caller.organization_id, public_id, lock=True)
        await imports.cancel(connection, caller, job)
        job = await imports.get(connection, caller.organization_id, public_id)
    return resource_answer(request, _resource(job))
