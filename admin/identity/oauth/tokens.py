"""The endpoints that clients call: for tokens (RFC 6749), to revoke (RFC 7009) and to look into them (RFC 7662)."""

from typing import Any, NamedTuple

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from admin.database import Connection, transaction
from admin.errors import InvalidToken, RateLimited, Unavailable
from admin.http import ids
from admin.http.answers import ErrorAnswer, documented
from admin.http.limits import Limit
from admin.http.request_ids import client as client_address
from admin.identity import access_tokens, refresh_tokens
from admin.identity.access_tokens import Claims
from admin.identity.oauth import clients, grants
from admin.identity.oauth.clients import Client
from admin.identity.oauth.grants import Grant
from admin.identity.oauth.messages import (
    NOT_KEPT,
    OAuthError,
    OAuthErrorBody,
    credentials_of,
    documented_form,
    form_of,
    scopes_of,
)
from admin.identity.people import fingerprint
from admin.identity.principal import Gate

_GUESSES = (Limit(30, 60),)
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": OAuthErrorBody, "description": "invalid_request, invalid_grant, invalid_scope, …"},
    401: {"model": OAuthErrorBody, "description": "invalid_client"},
    413: {"model": ErrorAnswer, "description": "PAYLOAD_TOO_LARGE"},
    **documented(RateLimited, Unavailable),
}

router = APIRouter(prefix="/oauth", tags=["OAuth 2.0"], responses=_ERRORS)


class TokenBody(BaseModel):
    """RFC 6749 §5.1."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int = access_tokens.LASTS_S
    refresh_token: str | None = None
    scope: str


class IntrospectionBody(BaseModel):
    """RFC 7662 §2.2. Of a token that is not active, or not this client's, nothing else is told."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    sub: str | None = None
    iss: str | None = None
    aud: str | None = None
    exp: int | None = None
    token_type: str | None = None


class _Caller(NamedTuple):
    """A client that has shown who it is, and what it sent."""

    client: Client
    form: dict[str, str]

    def sent(self, name: str) -> str:
        """Raises `OAuthError` for what is missing."""
        if name not in self.form:
            raise OAuthError("invalid_request", f"{name} is missing.")
        return self.form[name]


async def _caller(request: Request) -> _Caller:
    """Raises `OAuthError`, and `RateLimited` for one that guesses."""
    form = await form_of(request)
    credentials = credentials_of(request, form)
    async with transaction(request.app.state.pool) as connection:
        client = await clients.find(connection, credentials.client_id, credentials.secret)
    if client is None or (client.is_confidential and credentials.secret is None):
        gate: Gate = request.app.state.gate
        await gate.charge(f"oauth:{client_address(request)[1]}", _GUESSES)
        raise OAuthError("invalid_client", "There is no such client, or its secret is wrong.", status=401)
    return _Caller(client, form)


@router.post(
    "/token",
    summary="Get tokens",
    response_model=TokenBody,
    response_model_exclude_none=True,
    openapi_extra=documented_form(
        ["grant_type"],
        grant_type={"enum": ["authorization_code", "refresh_token", "client_credentials"]},
        code={},
        redirect_uri={},
        code_verifier={},
        refresh_token={},
        scope={},
        client_id={},
        client_secret={},
    ),
)
async def token(request: Request) -> Response:
    """With a code and its verifier, a refresh token, or the client's own credentials. Errors are those of RFC 6749."""
    caller = await _caller(request)
    grant_type = caller.sent("grant_type")
    if grant_type not in _GRANT_TYPES:
        raise OAuthError("unsupported_grant_type", f"Send one of: {', '.join(_GRANT_TYPES)}.")
    async with transaction(request.app.state.pool) as connection:
        granted = await _GRANT_TYPES[grant_type](request, connection, caller)
    if granted is None:  # what was stolen is ended by now: the transaction has committed
        raise OAuthError("invalid_grant", "It is invalid, expired, used, or not for this client.")
    grant, refresh_token = granted
    client, scope = caller.client, " ".join(grant.permissions)
    claims = Claims(grant.user or client.client_id, grant=grant.public_id, client=client.client_id, scope=scope)
    access_token = await request.app.state.access_tokens.issue(claims)
    body = TokenBody(access_token=access_token, refresh_token=refresh_token, scope=scope)
    return JSONResponse(body.model_dump(exclude_none=True), headers=NOT_KEPT)


_Granted = tuple[Grant, str | None] | None
"""A grant and its next refresh token; a client that acts for itself has none, and asks again."""


async def _with_code(request: Request, connection: Connection, caller: _Caller) -> _Granted:
    grant = await grants.use_code(
        connection,
        caller.sent("code"),
        client_id=caller.client.id,
        redirect_uri=caller.sent("redirect_uri"),
        verifier=caller.sent("code_verifier"),
    )
    return (grant, await refresh_tokens.make(connection, grant_id=grant.id)) if grant else None


async def _with_refresh_token(request: Request, connection: Connection, caller: _Caller) -> _Granted:
    granted = await grants.use_refresh_token(
        connection,
        request.app.state.sealer,
        caller.sent("refresh_token"),
        client_id=caller.client.id,
        used_by=fingerprint(request),
    )
    if granted and not set(scopes_of(caller.form.get("scope", ""))) <= set(granted[0].permissions):
        raise OAuthError("invalid_scope", "More is asked for than was granted.")
    return granted


async def _with_credentials(request: Request, connection: Connection, caller: _Caller) -> _Granted:
    client = caller.client
    if not client.is_confidential:
        raise OAuthError("unauthorized_client", "A client without a secret can't act for itself.")
    wanted = scopes_of(caller.form.get("scope", "")) or client.permissions
    if not set(wanted) <= set(client.permissions):
        raise OAuthError("invalid_scope", "The client may ask for less.")
    return await grants.give(connection, client.id, client.organization_id, None, wanted), None


_GRANT_TYPES = {
    "authorization_code": _with_code,
    "refresh_token": _with_refresh_token,
    "client_credentials": _with_credentials,
}


@router.post(
    "/revoke",
    summary="Revoke a token",
    openapi_extra=documented_form(["token"], token={}, token_type_hint={}, client_id={}, client_secret={}),
)
async def revoke(request: Request) -> dict[str, Any]:
    """The whole grant ends, whichever of its tokens it is. A token that is none is none any more: 200."""
    caller = await _caller(request)
    async with transaction(request.app.state.pool) as connection:
        grant = await _grant_of(request, connection, caller)
        if grant is not None:
            await grants.end(connection, grant.id)
    return {}


@router.post(
    "/introspect",
    summary="Look into a token",
    response_model=IntrospectionBody,
    response_model_exclude_none=True,
    openapi_extra=documented_form(["token"], token={}, token_type_hint={}, client_id={}, client_secret={}),
)
async def introspect(request: Request) -> Response:
    """For clients with a secret, and for their own tokens."""
    caller = await _caller(request)
    if not caller.client.is_confidential:
        raise OAuthError("invalid_client", "This is for clients with a secret.", status=401)
    async with transaction(request.app.state.pool) as connection:
        grant = await _grant_of(request, connection, caller)
    body = IntrospectionBody(active=False)
    if grant is not None:
        body = IntrospectionBody(
            active=True,
            scope=" ".join(grant.permissions),
            client_id=caller.client.client_id,
            sub=ids.shown("user", grant.user) if grant.user else caller.client.client_id,
            iss=request.app.state.settings.api_url,
            aud=access_tokens.AUDIENCE,
            exp=int(grant.expires_at.timestamp()),
            token_type="Bearer",  # noqa: S106
        )
    return JSONResponse(body.model_dump(exclude_none=True), headers=NOT_KEPT)


async def _grant_of(request: Request, connection: Connection, caller: _Caller) -> Grant | None:
    """The living grant that a token of this client is of."""
    token = caller.sent("token")
    if not access_tokens.has_shape(token):
        return await grants.by_refresh_token(connection, token, caller.client.id)
    try:
        claims = await request.app.state.access_tokens.read(token)
    except InvalidToken:
        return None
    return await grants.by_public_id(connection, claims.grant, caller.client.id)
