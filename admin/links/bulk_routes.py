"""Many links at once: each with a result of its own, and none that hinders another."""

import contextlib
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.requests import Request

from admin import database, errors
from admin.database import Connection, transaction
from admin.errors import ApiError, Invalid, NotFound
from admin.http.answers import ErrorBody, Meta, Wire, documented, error_body
from admin.http.bodies import body_of, documented_body, validated
from admin.http.fields import Fields
from admin.http.idempotency import Once
from admin.http.request_ids import request_id
from admin.identity.principal import LinkWriter, Principal
from admin.links import changes, domains, drafts, links
from admin.links.drafts import Draft
from admin.links.fields import LinkChange, NewLink
from admin.links.links import Link
from admin.links.resources import LinkResource, resource
from admin.settings import AdminSettings
from admin.turns import Turns

_Sent = TypeVar("_Sent", NewLink, LinkChange)

MAX_LINKS = 1000
_WITHIN_S = 12.0
"""Shorter than the lease of an Idempotency-Key."""

router = APIRouter(tags=["Links"], responses=documented(*errors.OF_EVERY_CALLER))

# Each holds a lock for every address, of which Postgres has some thousand.
_turns = Turns(2, wait_s=1.0, sorry="Too many links are being changed at the moment. Please try again.")


class NewLinks(Fields):
    """What POST takes: the fields of each new link."""

    links: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_LINKS)]


class LinkChanges(Fields):
    """What PATCH takes: the `id` of each link, and the fields to change."""

    links: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_LINKS)]


class DoomedLinks(Fields):
    """What DELETE takes."""

    ids: Annotated[list[str], Field(min_length=1, max_length=MAX_LINKS)]
    purge: bool = False


class ItemResult(Wire):
    """What became of one of them. Either `data` or `error` is null."""

    index: int
    """Its place in the request, from 0."""
    status: int
    """What the answer would be if it had been alone."""
    data: LinkResource | None
    error: ErrorBody | None


class BulkAnswer(Wire):
    """What became of all of them."""

    success: bool
    """Whether no one of them failed."""
    data: list[ItemResult]
    meta: Meta


@router.post(
    "/links/bulk",
    summary="Create up to 1,000 links",
    status_code=200,
    responses=documented(*errors.OF_EVERY_POST),
    openapi_extra=documented_body(NewLinks),
)
async def create_links(
    request: Request, caller: LinkWriter, once: Once, sent: Annotated[NewLinks, Depends(body_of(NewLinks))]
) -> BulkAnswer:
    """As one by one, but for passwords: they take time, and are set with a change."""
    settings = request.app.state.settings
    async with transaction(request.app.state.pool) as connection:
        hostname = await domains.default_of(connection, caller.organization_id) or settings.default_hostname
    wanted = [await _draft(caller, fields, settings, hostname) for fields in sent.links]
    async with _connection(request) as connection:
        async with connection.transaction():
            made = iter(await changes.create(connection, caller, [one for one in wanted if isinstance(one, Draft)]))
            done = [next(made) if isinstance(one, Draft) else one for one in wanted]
            answer = _answer(request, done, 201)
            await once.keep(connection, answer, 200)
        new = [link for link in done if isinstance(link, Link)]
        await _publish(request, connection, new, first_limited=[link.id for link in new if link.was_limited])
    return answer


@router.patch(
    "/links/bulk",
    summary="Change up to 1,000 links",
    responses=documented(errors.Invalid, errors.PayloadTooLarge),
    openapi_extra=documented_body(LinkChanges),
)
async def change_links(
    request: Request, caller: LinkWriter, sent: Annotated[LinkChanges, Depends(body_of(LinkChanges))]
) -> BulkAnswer:
    """As one by one, in their order; passwords are set on one link at a time."""
    wanted = [_change(fields, request.app.state.settings) for fields in sent.links]
    done: list[Link | ApiError] = []
    async with _connection(request) as connection:
        async with connection.transaction():
            found = await links.get_many(connection, caller.organization_id, [link_id for link_id, _ in wanted])
            before = {**found}
            for part in _each_once(wanted):
                done += await _changed(connection, caller, found, part)
        pairs = [(before[link.public_id], link) for link in done if isinstance(link, Link)]
        first_limited = {link.id for was, link in pairs if link.was_limited and not was.was_limited}
        await _publish(request, connection, [link for pair in pairs for link in pair], first_limited=first_limited)
    return _answer(request, done, 200)


@router.delete(
    "/links/bulk",
    summary="Delete up to 1,000 links",
    responses=documented(errors.Invalid, errors.PayloadTooLarge),
    openapi_extra=documented_body(DoomedLinks),
)
async def delete_links(
    request: Request, caller: LinkWriter, sent: Annotated[DoomedLinks, Depends(body_of(DoomedLinks))]
) -> BulkAnswer:
    """As one by one. The links are shown as they were."""
    async with _connection(request) as connection:
        async with connection.transaction():
            found = await links.get_many(
                connection, caller.organization_id, sent.ids, is_deleted=None if sent.purge else False
            )
            await changes.delete(connection, caller, list(found.values()), purge=sent.purge)
        await _publish(request, connection, list(found.values()))
    return _answer(request, [found.pop(link_id, NotFound("There is no such link.")) for link_id in sent.ids], 200)


@contextlib.asynccontextmanager
async def _connection(request: Request) -> AsyncIterator[Connection]:
    """A connection, when it is the request's turn. Raises `Unavailable`."""
    async with _turns, database.connection(request.app.state.pool, within_s=_WITHIN_S) as connection:
        yield connection


async def _draft(
    caller: Principal, fields: dict[str, Any], settings: AdminSettings, default_hostname: str
) -> Draft | ApiError:
    try:
        new = _without_password(validated(NewLink, fields, settings))
        return await drafts.draft(caller.organization_id, caller.owner_id, new, default_hostname=default_hostname)
    except Invalid as error:
        return error


def _without_password(sent: _Sent) -> _Sent:
    if sent.password is not None:
        raise Invalid.of("password", "It can be set on one link at a time only.")
    return sent


class _Change(NamedTuple):
    """What was sent for a link, or what is wrong with it."""

    link_id: str
    change: LinkChange | ApiError


def _change(fields: dict[str, Any], settings: AdminSettings) -> _Change:
    link_id = fields.pop("id", None)
    if not isinstance(link_id, str):
        return _Change("", Invalid.of("id", "It is required."))
    try:
        return _Change(link_id, _without_password(validated(LinkChange, fields, settings)))
    except Invalid as error:
        return _Change(link_id, error)


def _each_once(wanted: Sequence[_Change]) -> Iterator[list[_Change]]:
    """In their order, in parts that have no link twice."""
    part: list[_Change] = []
    met: set[str] = set()
    for one in wanted:
        if one.link_id in met:
            yield part
            part, met = [], set()
        part.append(one)
        met.add(one.link_id)
    yield part


async def _changed(
    connection: Connection, caller: Principal, found: dict[str, Link], part: Sequence[_Change]
) -> list[Link | ApiError]:
    """What became of a part. `found` is what there is, before and afterwards."""
    asked = [(found[key], change) for key, change in part if key in found and isinstance(change, LinkChange)]
    changed = iter(await changes.change_many(connection, caller, asked))
    done: list[Link | ApiError] = []
    for link_id, change in part:
        if isinstance(change, ApiError):
            done.append(change)
        else:
            done.append(next(changed) if link_id in found else NotFound("There is no such link."))
    found |= {link.public_id: link for link in done if isinstance(link, Link)}
    return done


def _answer(request: Request, done: Sequence[Link | ApiError], status: int) -> BulkAnswer:
    results = [
        ItemResult(index=index, status=one.status, data=None, error=error_body(one))
        if isinstance(one, ApiError)
        else ItemResult(index=index, status=status, data=resource(request, one), error=None)
        for index, one in enumerate(done)
    ]
    is_success = not any(isinstance(one, ApiError) for one in done)
    return BulkAnswer(success=is_success, data=results, meta=Meta(request_id=request_id(request)))


async def _publish(
    request: Request, connection: Connection, touched: Sequence[Link], *, first_limited: Collection[int] = ()
) -> None:
    addresses = {link.address for link in touched}
    await request.app.state.publisher.now(connection, addresses, first_limited=first_limited)
