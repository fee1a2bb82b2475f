"""The endpoints that clients call: for tokens (RFC 6749), to revoke (RFC 7009) and to look into them (RFC 7662)."""

from typing import Any, NamedTuple

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from admin.database import Connection, transaction
from admin.errors import InvalidToken
from admin.http.limits import Limit
from admin.http.request_ids import client as client_address
from admin.http.request_ids import request_id
from admin.identity import access_tokens, refresh_tokens
from admin.identity.access_tokens import Claims, Signed
from admin.identity.keys import sha256
from admin.identity.oauth import clients, grants
from admin.identity.oauth.clients import Client
from admin.identity.oauth.grants import Grant
from admin.identity.oauth.messages import (
    NOT_KEPT,
    OAuthError,
    OAuthErrorBody,
    answering,
    credentials_of,
    documented_form,
    form_of,
    in_words_of_oauth,
    scopes_of,
)
from admin.identity.people import fingerprint, gate_of
from admin.identity.principal import Principal

_GUESSES = (Limit(30, 60),)
_CALLS = (Limit(600, 60),)
"""Of one client; of one without a secret, whose name anybody may use, from one network."""
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": OAuthErrorBody, "description": "invalid_request, invalid_grant, invalid_scope, …"},
    401: {"model": OAuthErrorBody, "description": "invalid_client"},
    413: {"model": OAuthErrorBody, "description": "invalid_request"},
    429: {"model": OAuthErrorBody, "description": "temporarily_unavailable"},
    503: {"model": OAuthErrorBody, "description": "temporarily_unavailable"},
}

router = APIRouter(
    prefix="/oauth", tags=["OAuth 2.0"], responses=_ERRORS, route_class=answering(with_=in_words_of_oauth)
)


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
    principal: Principal

    def sent(self, name: str) -> str:
        """Raises `OAuthError` for what is missing."""
        if name not in self.form:
            raise OAuthError("invalid_request", f"{name} is missing.")
        return self.form[name]


async def _caller(request: Request) -> _Caller:
    """Raises `OAuthError`, and `RateLimited` for one that guesses or asks too often."""
    form = await form_of(request)
    credentials = credentials_of(request, form)
    address, network = client_address(request)

    async def find() -> Client | None:
        async with transaction(request.app.state.pool) as connection:
            found = await clients.find(connection, credentials.client_id, credentials.secret)
        return None if found and found.is_confidential and credentials.secret is None else found

    gate, name = gate_of(request), sha256(f"{credentials.client_id}\n{credentials.secret or ''}")
    client = await gate.opened(name, f"oauth:{network}", _GUESSES, find)
    if client is None:
        raise OAuthError("invalid_client", "There is no such client, or its secret is wrong.", status=401)
    await gate.charge(f"{client.client_id}:{'' if client.is_confidential else network}", _CALLS)
    return _Caller(client, form, _principal(client, address, request_id(request)))


def _principal(client: Client, address: str, request_id: str) -> Principal:
    """A client in what it does to its own grants; it needs no permission for that."""
    return Principal(
        organization_id=client.organization_id,
        organization="",
        tier="",
        kind="client",
        public_id=client.public_id,
        name=client.name,
        permissions=frozenset(),
        address=address,
        request_id=request_id,
    )


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
    sign = await request.app.state.access_tokens.ready()  # or what is spent now could be spent in vain
    async with transaction(request.app.state.pool) as connection:
        granted = await _GRANT_TYPES[grant_type](request, connection, caller)
    if granted is None:  # what was stolen is ended by now: the transaction has committed
        raise OAuthError("invalid_grant", "It is invalid, expired, used, or not for this client.")
    grant, client_id, scope = granted.grant, caller.client.client_id, " ".join(granted.scopes)
    body = TokenBody(
        access_token=sign(Claims(grant.subject, grant=grant.public_id, client=client_id, scope=scope)),
        refresh_token=granted.refresh_token,
        scope=scope,
    )
    return JSONResponse(body.model_dump(exclude_none=True), headers=NOT_KEPT)


class _Granted(NamedTuple):
    """What the next access token is of."""

    grant: Grant
    refresh_token: str | None
    """The next one; a client that acts for itself has none, and asks again."""
    scopes: list[str]
    """Of this access token; the next one may be for all that was granted again."""


async def _with_code(request: Request, connection: Connection, caller: _Caller) -> _Granted | None:
    grant = await grants.use_code(
        connection,
        caller.sent("code"),
        client_id=caller.client.id,
        redirect_uri=caller.sent("redirect_uri"),
        verifier=caller.sent("code_verifier"),
        who=caller.principal,
    )
    if grant is None:
        return None
    return _Granted(grant, await refresh_tokens.make(connection, grant_id=grant.id), grant.permissions)


async def _with_refresh_token(request: Request, connection: Connection, caller: _Caller) -> _Granted | None:
    used = await grants.use_refresh_token(
        connection,
        request.app.state.sealer,
        caller.sent("refresh_token"),
        client_id=caller.client.id,
        used_by=fingerprint(request),
        who=caller.principal,
    )
    if used is None:
        return None
    grant, following = used
    return _Granted(grant, following, scopes_of(caller.form.get("scope", ""), grant.permissions))


async def _with_credentials(request: Request, connection: Connection, caller: _Caller) -> _Granted:
    client = caller.client
    if not client.is_confidential:
        raise OAuthError("unauthorized_client", "A client without a secret can't act for itself.")
    scopes = scopes_of(caller.form.get("scope", ""), client.permissions)
    grant = await grants.give(connection, client.id, client.organization_id, None, scopes)
    return _Granted(grant, None, scopes)


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
    """The whole grant ends, whichever of its tokens it is, used or expired, too. One that is none ends nothing: 200."""
    caller = await _caller(request)
    token = caller.sent("token")
    signed = await _signed(request, token)
    async with transaction(request.app.state.pool) as connection:
        if signed is not None:
            grant = await grants.by_public_id(connection, signed.claims.grant, caller.client.id)
        else:
            grant = await grants.by_refresh_token(connection, token, caller.client.id, even_used=True)
        if grant is not None:
            await grants.end(connection, grant, caller.principal, "revoked")
    return {}


async def _signed(request: Request, token: str) -> Signed | None:
    """What an access token says; None for what is none. It is read before there is a transaction."""
    if not access_tokens.has_shape(token):
        return None
    try:
        signed: Signed = await request.app.state.access_tokens.signed(token)
    except InvalidToken:
        return None
    return signed


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
    token = caller.sent("token")
    signed = await _signed(request, token)
    async with transaction(request.app.state.pool) as connection:
        if signed is not None:
            grant = await grants.by_public_id(connection, signed.claims.grant, caller.client.id)
        else:
            grant = await grants.by_refresh_token(connection, token, caller.client.id)
    told = _told(caller.client, grant, signed, request.app.state.settings.api_url)
    return JSONResponse(told.model_dump(exclude_none=True), headers=NOT_KEPT)


def _told(client: Client, grant: Grant | None, signed: Signed | None, issuer: str) -> IntrospectionBody:
    """What a living grant tells of its access token, or of the refresh token that was shown instead."""
    if grant is None or (signed is not None and signed.is_over):
        return IntrospectionBody(active=False)
    told = IntrospectionBody(
        active=True,
        scope=" ".join(grant.permissions),
        client_id=client.client_id,
        sub=grant.subject,
        iss=issuer,
        exp=int(grant.expires_at.timestamp()),
    )
    if signed is None:
        return told
    of_access_token = {
        "scope": signed.claims.scope,
        "exp": signed.expires_at,
        "aud": access_tokens.AUDIENCE,
        "token_type": "Bearer",
    }
    return told.model_copy(update=of_access_token)
