"""The routes of links, in the Linkkit dialect."""

import json
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Depends, Response
from starlette.requests import Request

from admin import database, errors
from admin.database import Connection, transaction
from admin.errors import ApiError, Invalid
from admin.http import ids
from admin.http.answers import Answer, Instant, ListAnswer, Wire, answer, documented, list_answer
from admin.http.bodies import body_of, documented_body
from admin.http.idempotency import Once
from admin.identity import audit
from admin.identity.principal import LinkReader, LinkWriter, Principal
from admin.links import changes, domains, drafts, links
from admin.links.fields import LinkChange, NewLink
from admin.links.filters import flat
from admin.links.links import Link
from admin.links.resources import DeletedResource, LinkAnswer, LinkResource, link_answer, resource

router = APIRouter(
    tags=["Links"],
    responses=documented(*errors.OF_EVERY_CALLER),
)


Sent = Annotated[NewLink, Depends(body_of(NewLink, or_form=True))]
SentChange = Annotated[LinkChange, Depends(body_of(LinkChange, or_form=True))]


_QUERY = {
    "name": "query",
    "in": "query",
    "required": False,
    "description": "Filters as a JSON object; also `query[path]=/a`, `query.path=/a`.",
    "schema": {"type": "string", "examples": ['{"path": "/spring"}']},
}


_PURGE = {
    "name": "purge",
    "in": "query",
    "required": False,
    "description": "Whether its address is free at once, also that of a link that is deleted already.",
    "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
}


async def _default_hostname(request: Request, caller: Principal, new: NewLink) -> str:
    """Where it is made when it names no host itself."""
    hostname: str = request.app.state.settings.default_hostname
    if new.hostname is None:
        async with transaction(request.app.state.pool) as connection:
            hostname = await domains.default_of(connection, caller.organization_id) or hostname
    return hostname


async def _publish(request: Request, connection: Connection, before: Link | None, after: Link) -> None:
    """Publish a link as it is now, and what is left where it was."""
    addresses = {after.address, *([before.address] if before else [])}
    is_first = after.was_limited and not (before and before.was_limited)
    await request.app.state.publisher.now(connection, addresses, first_limited=[after.id] if is_first else [])


def _is_purge(request: Request) -> bool:
    text = request.query_params.get("purge", "false")
    if text not in ("true", "false"):
        raise Invalid.of("purge", "It must be true or false.")
    return text == "true"


@router.get(
    "/links",
    summary="List links, newest first",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": [*links.LISTING.parameters, _QUERY]},
)
async def list_links(request: Request, caller: LinkReader) -> ListAnswer[LinkResource]:
    """Filters are exact and compare normal forms."""
    asked = links.LISTING.asked(*flat(request.query_params.multi_items()))
    async with transaction(request.app.state.pool) as connection:
        found = await links.page_of(connection, caller.organization_id, asked)
    return list_answer(request, [resource(request, links.of_row(row)) for row in found.rows], found)


@router.post(
    "/links",
    status_code=201,
    summary="Create a link",
    responses=documented(*errors.OF_EVERY_POST, errors.DestinationBlocked, errors.AlreadyExists),
    openapi_extra=documented_body(NewLink, or_form=True),
)
async def create_link(request: Request, caller: LinkWriter, once: Once, new: Sent) -> LinkAnswer:
    """Without a hostname it is on the default domain, without a path it gets a random one.

    The link can be followed when this has answered.
    """
    hostname = await _default_hostname(request, caller, new)
    wanted = await drafts.draft(caller.organization_id, caller.owner_id, new, default_hostname=hostname)
    async with database.connection(request.app.state.pool) as connection:
        async with connection.transaction():
            [link] = await changes.create(connection, caller, [wanted])
            if isinstance(link, ApiError):
                raise link
            made = link_answer(request, link)
            await once.keep(connection, made)
        await _publish(request, connection, None, link)
    return made


@router.put(
    "/links",
    summary="Create or change the link with an externalId",
    responses={
        201: {"model": LinkAnswer, "description": "It was created."},
        **documented(errors.Invalid, errors.DestinationBlocked, errors.AlreadyExists, errors.PayloadTooLarge),
    },
    openapi_extra=documented_body(NewLink, or_form=True),
)
async def put_link(request: Request, response: Response, caller: LinkWriter, new: Sent) -> LinkAnswer:
    """`externalId` is required. The link that the organization knows by it gets the fields that are sent.

    Without such a link it is created (201). To repeat the request does no harm, so it takes no Idempotency-Key.
    """
    if new.external_id is None:
        raise Invalid.of("externalId", "It is required here.")
    hostname = await _default_hostname(request, caller, new)
    sent = {name: getattr(new, name) for name in new.model_fields_set}
    # null is no address: a new link gets one, and another keeps its own.
    sent = {name: value for name, value in sent.items() if value is not None or name not in ("hostname", "path")}
    change = LinkChange.model_construct(set(sent), **sent)
    async with database.connection(request.app.state.pool) as connection:
        async with connection.transaction():
            before, link = await changes.put(connection, caller, new, change, default_hostname=hostname)
        await _publish(request, connection, before, link)
    response.status_code = 200 if before else 201
    return link_answer(request, link)


@router.get("/links/{link_id}", summary="Get a link", responses=documented(errors.NotFound))
async def get_link(request: Request, caller: LinkReader, link_id: str) -> LinkAnswer:
    """Links of other organizations are not found."""
    async with transaction(request.app.state.pool) as connection:
        link = await links.get(connection, caller.organization_id, link_id)
    return link_answer(request, link)


@router.put(
    "/links/{link_id}",
    summary="Change a link",
    responses=documented(
        errors.Invalid, errors.DestinationBlocked, errors.NotFound, errors.AlreadyExists, errors.PayloadTooLarge
    ),
    openapi_extra=documented_body(LinkChange, or_form=True),
)
@router.patch(
    "/links/{link_id}",
    summary="Change a link",
    responses=documented(
        errors.Invalid, errors.DestinationBlocked, errors.NotFound, errors.AlreadyExists, errors.PayloadTooLarge
    ),
    openapi_extra=documented_body(LinkChange, or_form=True),
)
async def change_link(request: Request, caller: LinkWriter, link_id: str, change: SentChange) -> LinkAnswer:
    """PUT and PATCH are the same: fields that are not sent stay as they are. Edges follow at once."""
    async with database.connection(request.app.state.pool) as connection:
        async with connection.transaction():
            link = await links.get(connection, caller.organization_id, link_id, lock=True)
            changed = await changes.change(connection, caller, link, change)
        await _publish(request, connection, link, changed)
    return link_answer(request, changed)


@router.delete(
    "/links/{link_id}",
    summary="Delete a link",
    responses=documented(errors.NotFound, errors.Invalid),
    openapi_extra={"parameters": [_PURGE]},
)
async def delete_link(request: Request, caller: LinkWriter, link_id: str) -> Answer[DeletedResource]:
    """It stops at once, and its clicks stay in the organization's totals.

    For 24 hours it keeps its address and can be restored, unless `purge=true` frees the address at once. A link
    that was reported keeps it for good.
    """
    purge = _is_purge(request)
    async with database.connection(request.app.state.pool) as connection:
        async with connection.transaction():
            link = await links.get(
                connection, caller.organization_id, link_id, lock=True, is_deleted=None if purge else False
            )
            await changes.delete(connection, caller, [link], purge=purge)
        await request.app.state.publisher.now(connection, [link.address])
    return answer(request, DeletedResource(id=link.public_id))


@router.post(
    "/links/{link_id}/restore",
    summary="Restore a deleted link",
    responses=documented(errors.NotFound, errors.DestinationBlocked, *errors.OF_EVERY_POST),
)
async def restore_link(request: Request, caller: LinkWriter, once: Once, link_id: str) -> LinkAnswer:
    """Within 24 hours of its deletion (reported: at any time), unless what it leads to is blocked since."""
    async with database.connection(request.app.state.pool) as connection:
        async with connection.transaction():
            link = await links.get(connection, caller.organization_id, link_id, lock=True, is_deleted=True)
            made = link_answer(request, await changes.restore(connection, caller, link))
            await once.keep(connection, made)
        await request.app.state.publisher.now(connection, [link.address])
    return made


class HistoryResource(Wire):
    """One change of a link."""

    id: str
    action: str
    at: Instant
    actor_type: str
    actor_id: str | None
    actor_name: str
    details: dict[str, Any]
    """After a change, `changes` has each field with what it was and what it is."""


@router.get(
    "/links/{link_id}/history",
    summary="See what became of a link",
    responses=documented(errors.NotFound, errors.Invalid),
    openapi_extra={"parameters": audit.LISTING.parameters},
)
async def list_history(request: Request, caller: LinkReader, link_id: str) -> ListAnswer[HistoryResource]:
    """Every change of it, newest first, also while it is deleted and can be restored."""
    asked = audit.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        link = await links.get(connection, caller.organization_id, link_id, is_deleted=None)
        found = await audit.of_object(connection, caller.organization_id, link.public_id, asked)
    return list_answer(request, [_history(row) for row in found.rows], found)


def _history(row: asyncpg.Record) -> HistoryResource:
    fields = {name: row[name] for name in HistoryResource.model_fields if name in row and name != "details"}
    return HistoryResource(id=ids.shown("log", row["public_id"]), details=json.loads(row["details"]), **fields)
