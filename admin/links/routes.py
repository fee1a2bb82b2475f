"""The routes of links, in the Linkkit dialect."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request

from admin import database, errors
from admin.database import Connection, transaction
from admin.errors import Invalid
from admin.http.answers import Answer, Instant, ListAnswer, Wire, answer, documented, list_answer
from admin.http.bodies import body_of, documented_body
from admin.http.idempotency import Once
from admin.identity import audit
from admin.identity.principal import LinkReader, LinkWriter
from admin.links import domains, links
from admin.links.destinations import hostname_of
from admin.links.fields import LinkChange, NewLink, flat
from admin.links.links import Link

router = APIRouter(
    tags=["Links"],
    responses=documented(*errors.OF_EVERY_CALLER),
)


Sent = Annotated[NewLink, Depends(body_of(NewLink, or_form=True))]
SentChange = Annotated[LinkChange, Depends(body_of(LinkChange, or_form=True))]


class LinkResource(Wire):
    """A link as the API shows it."""

    id: str
    title: str | None
    hostname: str
    path: str
    destination: str
    short_url: str
    created_at: Instant
    updated_at: Instant
    schema_version: str = "1.0"
    owner_id: str


class DeletedResource(Wire):
    """What is left of a link."""

    id: str
    deleted: bool = True


def _resource(request: Request, link: Link) -> LinkResource:
    return LinkResource(
        id=link.public_id,
        title=link.title,
        hostname=link.hostname,
        path=link.path,
        destination=link.destination,
        short_url=request.app.state.settings.short_url(link.hostname, link.path),
        created_at=link.created_at,
        updated_at=link.updated_at,
        owner_id=link.owner_id,
    )


def _told(link: Link) -> dict[str, str]:
    """What the audit log tells of a link."""
    return {"hostname": link.hostname, "path": link.path, "destination": link.destination}


async def _check_hosts(connection: Connection, organization_id: int, hostname: str, destination: str) -> None:
    """The host must be free or the organization's, and the destination must not be on a host of its own links."""
    if not await domains.claim(connection, organization_id, hostname):
        raise Invalid.of("hostname", "This hostname belongs to another organization.")
    target = hostname_of(destination)
    if target == hostname or await domains.is_own(connection, organization_id, target):
        raise Invalid.of("destination", "A destination can't be on a host that serves your short links.")


_QUERY = {
    "name": "query",
    "in": "query",
    "required": False,
    "description": "Filters as a JSON object; also `query[path]=/a`, `query.path=/a`.",
    "schema": {"type": "string", "examples": ['{"path": "/spring"}']},
}


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
    return list_answer(request, [_resource(request, Link(**row)) for row in found.rows], found)


@router.post(
    "/links",
    status_code=201,
    summary="Create a link",
    responses=documented(*errors.OF_EVERY_POST, errors.AlreadyExists),
    openapi_extra=documented_body(NewLink, or_form=True),
)
async def create_link(request: Request, caller: LinkWriter, once: Once, new: Sent) -> Answer[LinkResource]:
    """Without a hostname it is on the default domain, without a path it gets a random one.

    The link can be followed when this has answered.
    """
    hostname = new.hostname or request.app.state.settings.default_hostname
    async with database.connection(request.app.state.pool) as connection:
        async with connection.transaction():
            await _check_hosts(connection, caller.organization_id, hostname, new.destination)
            link = await links.create(
                connection,
                organization_id=caller.organization_id,
                owner_id=caller.owner_id,
                hostname=hostname,
                path=new.path,
                destination=new.destination,
                title=new.title,
            )
            await audit.record(connection, caller, "link.created", link.public_id, **_told(link))
            made = answer(request, _resource(request, link))
            await once.keep(connection, made)
        await request.app.state.publisher.now(connection, [link.address])
    return made


@router.get("/links/{link_id}", summary="Get a link", responses=documented(errors.NotFound))
async def get_link(request: Request, caller: LinkReader, link_id: str) -> Answer[LinkResource]:
    """Links of other organizations are not found."""
    async with transaction(request.app.state.pool) as connection:
        link = await links.get(connection, caller.organization_id, link_id)
    return answer(request, _resource(request, link))


@router.put(
    "/links/{link_id}",
    summary="Change a link",
    responses=documented(errors.Invalid, errors.NotFound, errors.AlreadyExists, errors.PayloadTooLarge),
    openapi_extra=documented_body(LinkChange, or_form=True),
)
@router.patch(
    "/links/{link_id}",
    summary="Change a link",
    responses=documented(errors.Invalid, errors.NotFound, errors.AlreadyExists, errors.PayloadTooLarge),
    openapi_extra=documented_body(LinkChange, or_form=True),
)
async def change_link(
    request: Request,
    caller: LinkWriter,
    link_id: str,
    change: SentChange,
) -> Answer[LinkResource]:
    """PUT and PATCH are the same: fields that are not sent stay as they are. Edges follow at once."""
    async with database.connection(request.app.state.pool) as connection:
        async with connection.transaction():
            link = await links.get(connection, caller.organization_id, link_id, lock=True)
            wanted = link._replace(**change.model_dump(exclude_unset=True))
            if (wanted.hostname, wanted.destination) != (link.hostname, link.destination):
                await _check_hosts(connection, caller.organization_id, wanted.hostname, wanted.destination)
            changed = await links.update(connection, link, wanted)
            await audit.record(connection, caller, "link.changed", link.public_id, **_told(changed))
        await request.app.state.publisher.now(connection, {link.address, changed.address})
    return answer(request, _resource(request, changed))


@router.delete("/links/{link_id}", summary="Delete a link", responses=documented(errors.NotFound))
async def delete_link(request: Request, caller: LinkWriter, link_id: str) -> Answer[DeletedResource]:
    """It stops at once. Its clicks stay in the organization's totals."""
    async with database.connection(request.app.state.pool) as connection:
        async with connection.transaction():
            link = await links.get(connection, caller.organization_id, link_id, lock=True)
            await links.delete(connection, link)
            await audit.record(connection, caller, "link.deleted", link.public_id, **_told(link))
        await request.app.state.publisher.now(connection, [link.address])
    return answer(request, DeletedResource(id=link.public_id))
