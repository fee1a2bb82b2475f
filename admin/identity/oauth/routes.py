"""The routes of OAuth clients and of what they were granted, and what tells where everything is (RFC 8414)."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from admin import errors
from admin.database import transaction
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
from admin.identity import audit
from admin.identity.oauth import clients, grants
from admin.identity.oauth.clients import Client
from admin.identity.oauth.fields import NewClient
from admin.identity.oauth.grants import Grant
from admin.identity.permissions import PERMISSIONS
from admin.identity.principal import Administrator, Caller, user_of

router = APIRouter(tags=["OAuth 2.0"], responses=documented(*errors.OF_EVERY_CALLER))


class ClientAttributes(Wire):
    """A client as the API shows it. Its secret is in the answer that registers it, and null everywhere else."""

    name: str
    redirect_uris: list[str]
    permissions: list[str]
    is_confidential: bool
    secret: str | None
    created_at: Instant


class GrantAttributes(Wire):
    """What somebody has let an app do, as the API shows it."""

    client_id: str
    client_name: str
    organization_id: str
    organization_name: str
    user_id: str
    user_name: str
    permissions: list[str]
    created_at: Instant
    expires_at: Instant


def _resource(client: Client, secret: str | None = None) -> Resource[ClientAttributes]:
    return Resource(
        id=client.client_id,
        type="oauth_client",
        attributes=ClientAttributes(
            name=client.name,
            redirect_uris=client.redirect_uris,
            permissions=client.permissions,
            is_confidential=client.is_confidential,
            secret=secret,
            created_at=client.created_at,
        ),
    )


@router.get(
    "/oauth/clients",
    summary="List OAuth clients",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": clients.LISTING.parameters},
)
async def list_clients(request: Request, caller: Administrator) -> ResourceListAnswer[ClientAttributes]:
    """Those that the organization has registered."""
    asked = clients.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        found = await clients.page_of(connection, caller.organization_id, asked)
    return resource_list_answer(request, [_resource(Client(**row)) for row in found.rows], found)


@router.post(
    "/oauth/clients",
    status_code=201,
    summary="Register an OAuth client",
    responses=documented(errors.Invalid, errors.PayloadTooLarge),
    openapi_extra=documented_body(NewClient),
)
async def register_client(
    request: Request, caller: Administrator, new: Annotated[NewClient, Depends(body_of(NewClient))]
) -> ResourceAnswer[ClientAttributes]:
    """Its `client_id` is the resource's id; its secret is in this answer and nowhere else."""
    async with transaction(request.app.state.pool) as connection:
        client, secret = await clients.register(
            connection,
            caller.organization_id,
            name=new.name,
            redirect_uris=new.redirect_uris,
            permissions=sorted(set(new.permissions)),
            is_confidential=new.is_confidential,
        )
        await audit.record(connection, caller, "oauth_client.created", client.client_id, permissions=client.permissions)
    return resource_answer(request, _resource(client, secret))


@router.get("/oauth/clients/{client_id}", summary="Get an OAuth client", responses=documented(errors.NotFound))
async def get_client(request: Request, caller: Administrator, client_id: str) -> ResourceAnswer[ClientAttributes]:
    """What is known of it, but its secret."""
    async with transaction(request.app.state.pool) as connection:
        client = await clients.get(connection, caller.organization_id, ids.read(clients.PREFIX, client_id))
    return resource_answer(request, _resource(client))


@router.delete(
    "/oauth/clients/{client_id}",
    status_code=204,
    summary="Revoke an OAuth client",
    response_class=Response,
    responses=documented(errors.NotFound),
)
async def revoke_client(request: Request, caller: Administrator, client_id: str) -> None:
    """Its tokens are of no use within a second, whoever gave them."""
    async with transaction(request.app.state.pool) as connection:
        client = await clients.get(connection, caller.organization_id, ids.read(clients.PREFIX, client_id))
        await clients.revoke(connection, client)
        await audit.record(connection, caller, "oauth_client.revoked", client.client_id)


def _grant(grant: Grant) -> Resource[GrantAttributes]:
    return Resource(
        id=grant.shown_id,
        type="grant",
        attributes=GrantAttributes(
            client_id=ids.shown(clients.PREFIX, grant.client),
            client_name=grant.client_name,
            organization_id=ids.shown("org", grant.organization),
            organization_name=grant.organization_name,
            user_id=grant.subject,
            user_name=grant.user_name or "",
            permissions=grant.permissions,
            created_at=grant.created_at,
            expires_at=grant.expires_at,
        ),
    )


@router.get(
    "/oauth/grants",
    summary="List what members have let apps do",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": grants.LISTING.parameters},
)
async def list_grants(request: Request, caller: Administrator) -> ResourceListAnswer[GrantAttributes]:
    """For the organization. What has ended is in the audit log."""
    asked = grants.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        found = await grants.page_of(connection, caller.organization_id, asked)
    return resource_list_answer(request, [_grant(Grant(**row)) for row in found.rows], found)


@router.delete(
    "/oauth/grants/{grant_id}",
    status_code=204,
    summary="End what a member has let an app do",
    response_class=Response,
    responses=documented(errors.NotFound),
)
async def end_grant(request: Request, caller: Administrator, grant_id: str) -> None:
    """Its tokens are of no use within a second. The member may let the app again."""
    async with transaction(request.app.state.pool) as connection:
        grant = await grants.get(connection, caller.organization_id, ids.read(grants.PREFIX, grant_id))
        await grants.end(connection, grant, caller, "revoked")


@router.get(
    "/auth/grants",
    summary="List what one has let apps do",
    responses=documented(errors.Invalid),
    openapi_extra={"parameters": grants.LISTING.parameters},
)
async def list_own_grants(request: Request, caller: Caller) -> ResourceListAnswer[GrantAttributes]:
    """For people who have logged in, and all their organizations."""
    user_id, _session = user_of(caller)
    asked = grants.LISTING.asked(request.query_params.multi_items())
    async with transaction(request.app.state.pool) as connection:
        found = await grants.page_by(connection, user_id, asked)
    return resource_list_answer(request, [_grant(Grant(**row)) for row in found.rows], found)


@router.delete(
    "/auth/grants/{grant_id}",
    status_code=204,
    summary="End what one has let an app do",
    response_class=Response,
    responses=documented(errors.NotFound),
)
async def end_own_grant(request: Request, caller: Caller, grant_id: str) -> None:
    """Its tokens are of no use within a second."""
    user_id, _session = user_of(caller)
    async with transaction(request.app.state.pool) as connection:
        grant = await grants.get_by(connection, user_id, ids.read(grants.PREFIX, grant_id))
        await grants.end(connection, grant, caller, "revoked")


async def metadata(request: Request) -> Response:
    """RFC 8414 §2."""
    issuer = request.app.state.settings.api_url
    secrets = ["client_secret_basic", "client_secret_post"]
    return JSONResponse(
        {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/v1/oauth/authorize",
            "token_endpoint": f"{issuer}/v1/oauth/token",
            "revocation_endpoint": f"{issuer}/v1/oauth/revoke",
            "introspection_endpoint": f"{issuer}/v1/oauth/introspect",
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "scopes_supported": list(PERMISSIONS),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": [*secrets, "none"],
            "revocation_endpoint_auth_methods_supported": [*secrets, "none"],
            "introspection_endpoint_auth_methods_supported": secrets,
            "authorization_response_iss_parameter_supported": True,
        },
        headers={"Cache-Control": "max-age=300"},
    )
