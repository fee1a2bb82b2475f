"""The routes of domains, and whether a certificate may be issued for one."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from admin import database, errors
from admin.database import Connection, transaction
from admin.errors import AlreadyExists, Detail, DomainNotVerified
from admin.http import ids
from admin.http.answers import (
    Instant,
    Resource,
    ResourceAnswer,
    ResourceListAnswer,
    Wire,
    documented,
    resource_answer,
    resource_list_answer,
)
from admin.http.bodies import body_of, documented_body
from admin.http.idempotency import Once
from admin.http.limits import Limit
from admin.http.request_ids import client
from admin.identity import audit
from admin.identity.principal import Administrator, LinkReader
from admin.links import claims, domains, loops, safety, verification
from admin.links.domain_fields import DomainChange, NewDomain
from admin.links.domains import Domain
from admin.links.verification import Verifier
from shared.links import Address, BadAddress, normal_hostname

router = APIRouter(tags=["Domains"], responses=documented(*errors.OF_EVERY_CALLER))

_ALL_LINKS_S = 300.0
"""A change of every link of a host may take longer than other requests: a million are a minute or two."""
_LOOKS = (Limit(10, 60),)
_ASKS = (Limit(6_000, 60),)


class TxtRecord(Wire):
    """The TXT record that shows whose the host is."""

    name: str
    value: str


class ProofFile(Wire):
    """The file that shows it."""

    url: str
    content: str


class Verification(Wire):
    """What is to be shown, one or the other, and what was."""

    txt: TxtRecord
    file: ProofFile
    verified_by: str | None
    verified_at: Instant | None


class DomainAttributes(Wire):
    """A domain as the API shows it."""

    hostname: str
    status: str
    is_default: bool
    verification: Verification
    case_sensitive: bool
    ignore_trailing_slash: bool
    root_url: str | None
    not_found_url: str | None
    expired_url: str | None
    robots_txt: str | None
    favicon_url: str | None
    apple_app_site_association: dict[str, Any] | None
    assetlinks: list[dict[str, Any]] | None
    created_at: Instant
    updated_at: Instant


def _resource(domain: Domain) -> Resource[DomainAttributes]:
    name, value = verification.record_of(domain.hostname, domain.proof)
    return Resource(
        id=ids.shown("dom", domain.public_id),
        type="domain",
        attributes=DomainAttributes(
            hostname=domain.hostname,
            status="verified" if domain.verified_at else "pending",
            is_default=domain.is_default,
            verification=Verification(
                txt=TxtRecord(name=name, value=value),
                file=ProofFile(url=verification.file_url(domain.hostname), content=domain.proof),
                verified_by=domain.verified_by,
                verified_at=domain.verified_at,
            ),
            case_sensitive=not domain.folds_case,
            ignore_trailing_slash=not domain.keeps_slash,
            root_url=domain.root_url,
            not_found_url=domain.not_found_url,
            expired_url=domain.expired_url,
            robots_txt=domain.robots_txt,
            favicon_url=domain.favicon_url,
            apple_app_site_association=_json(domain.apple_app_site_association),
            assetlinks=_json(domain.assetlinks),
            created_at=domain.created_at,
            updated_at=domain.updated_at,
        ),
    )


def _json(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


@router.get(
    "/domains",
    summary="List domains",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": domains.LISTING.parameters},
)
async def list_domains(request: Request, caller: LinkReader) -> ResourceListAnswer[DomainAttributes]:
    """Those of the organization, also where another one has links until this one shows whose the host is."""
    asked = domains.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        found = await domains.page_of(connection, caller.organization_id, asked)
    return resource_list_answer(request, [_resource(Domain(**row)) for row in found.rows], found)


@router.post(
    "/domains",
    status_code=201,
    summary="Add a domain",
    responses=documented(*errors.OF_EVERY_POST, errors.AlreadyExists),
    openapi_extra=documented_body(NewDomain),
)
async def create_domain(
    request: Request, caller: Administrator, once: Once, new: Annotated[NewDomain, Depends(body_of(NewDomain))]
) -> ResourceAnswer[DomainAttributes]:
    """Links can be made there at once, unless another organization has some. Certificates are for verified ones."""
    if new.hostname == request.app.state.settings.api_hostname:
        raise AlreadyExists("This is the hostname of the API.")
    async with database.connection(request.app.state.pool) as connection:
        async with connection.transaction():
            domain = await claims.add(connection, caller.organization_id, new.hostname)
            made = resource_answer(request, _resource(domain))
            await audit.record(connection, caller, "domain.created", made.data.id, hostname=domain.hostname)
            await once.keep(connection, made)
        await _publish(request, connection, domain)
    return made


@router.get("/domains/{domain_id}", summary="Get a domain", responses=documented(errors.NotFound))
async def get_domain(request: Request, caller: LinkReader, domain_id: str) -> ResourceAnswer[DomainAttributes]:
    """With what is to be shown in the DNS or on the host."""
    async with transaction(request.app.state.pool) as connection:
        domain = await domains.get(connection, caller.organization_id, ids.read("dom", domain_id))
    return resource_answer(request, _resource(domain))


@router.patch(
    "/domains/{domain_id}",
    summary="Change a domain",
    responses=documented(
        errors.Invalid,
        errors.DestinationBlocked,
        errors.NotFound,
        errors.AlreadyExists,
        errors.DomainNotVerified,
        errors.PayloadTooLarge,
    ),
    openapi_extra=documented_body(DomainChange),
)
async def change_domain(
    request: Request,
    caller: Administrator,
    domain_id: str,
    change: Annotated[DomainChange, Depends(body_of(DomainChange))],
) -> ResourceAnswer[DomainAttributes]:
    """Paths of links follow `caseSensitive` and `ignoreTrailingSlash`; a 409 names those that would become one."""
    public_id = ids.read("dom", domain_id)
    columns = change.columns()
    within_s = _ALL_LINKS_S if {"folds_case", "keeps_slash"} & set(columns) else database.REQUEST_S
    async with database.connection(request.app.state.pool, within_s=within_s) as connection:
        async with connection.transaction(), domains.held(connection, caller.organization_id, public_id) as domain:
            await _check_destinations(connection, domain, change)
            changed = await domains.change(connection, domain, domain._replace(**columns))
            await audit.record(
                connection, caller, "domain.changed", domain_id, hostname=domain.hostname, fields=sorted(columns)
            )
        if changed.policy == domain.policy:  # otherwise it is published in the order of the marks, by the worker
            await _publish(request, connection, domain)
    return resource_answer(request, _resource(changed))


async def _check_destinations(connection: Connection, domain: Domain, change: DomainChange) -> None:
    destinations = {destination for _, destination in change.destinations}
    ways = await loops.explored(connection, domain.organization_id, destinations, [domain.hostname])
    blocked = await safety.blocked(connection, destinations)
    wrong = [
        Detail(field, why)
        for field, destination in change.destinations
        if (why := ways.refusal(destination, lambda place: place.hostname == domain.hostname))
    ]
    if refusal := safety.refusal(wrong, change.destinations, blocked):
        raise refusal


@router.delete(
    "/domains/{domain_id}",
    status_code=204,
    summary="Remove a domain",
    response_class=Response,
    responses=documented(errors.NotFound, errors.AlreadyExists),
)
async def delete_domain(request: Request, caller: Administrator, domain_id: str) -> None:
    """Not while there are links on it. Anybody may have the host afterwards."""
    public_id = ids.read("dom", domain_id)
    async with database.connection(request.app.state.pool) as connection:
        async with connection.transaction(), domains.held(connection, caller.organization_id, public_id) as domain:
            await claims.release(connection, domain)
            await audit.record(connection, caller, "domain.deleted", domain_id, hostname=domain.hostname)
        await _publish(request, connection, domain)


@router.post(
    "/domains/{domain_id}/verify",
    summary="Verify a domain",
    responses=documented(*errors.OF_EVERY_POST, errors.NotFound, errors.AlreadyExists, errors.DomainNotVerified),
)
async def verify_domain(
    request: Request, caller: Administrator, domain_id: str, once: Once
) -> ResourceAnswer[DomainAttributes]:
    """Looks for the TXT record and for the file; one of them is enough. It takes up to five seconds.

    An organization that has the host without having shown as much loses it, and its links there.
    """
    public_id = ids.read("dom", domain_id)
    async with transaction(request.app.state.pool) as connection:
        domain = await domains.get(connection, caller.organization_id, public_id)
    method = domain.verified_by if domain.verified_by == "txt" else await _shown(request, domain)
    within_s = database.REQUEST_S if domain.is_held else _ALL_LINKS_S
    async with database.connection(request.app.state.pool, within_s=within_s) as connection:
        async with connection.transaction(), domains.held(connection, caller.organization_id, public_id) as domain:
            await claims.verify(connection, domain, method)
            if method != domain.verified_by:
                told = {"hostname": domain.hostname, "method": method}
                await audit.record(connection, caller, "domain.verified", domain_id, **told)
            verified = await domains.get(connection, caller.organization_id, public_id)
            made = resource_answer(request, _resource(verified))
            await once.keep(connection, made, 200)
        await _publish(request, connection, domain)
    return made


async def _shown(request: Request, domain: Domain) -> str:
    """How the proof is shown. Raises `DomainNotVerified`, and `RateLimited`: looking asks machines of others."""
    await request.app.state.gate.charge(f"looks:{domain.public_id}", _LOOKS)
    verifier: Verifier = request.app.state.verifier
    seen = await verifier.look(domain.hostname, domain.proof)
    if seen.method is None and domain.verified_by is None:
        raise DomainNotVerified(details=seen.missing)
    return seen.method or "file"


async def _publish(request: Request, connection: Connection, domain: Domain) -> None:
    await request.app.state.publisher.now(connection, [Address(domain.hostname, "")])


async def ask(request: Request) -> Response:
    """Whether a certificate may be issued for `domain`, as Caddy asks: 200 or 404, and nothing else is told."""
    await request.app.state.gate.charge(f"asks:{client(request)[1]}", _ASKS)
    try:
        hostname = normal_hostname(request.query_params.get("domain", ""))
    except BadAddress:
        return Response(status_code=404)
    if hostname == request.app.state.settings.default_hostname:
        return Response()
    async with transaction(request.app.state.pool) as connection:
        return Response(status_code=200 if await domains.is_verified(connection, hostname) else 404)
