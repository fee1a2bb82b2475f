"""The page where people let an app act for them (RFC 6749 §4.1, RFC 7636, RFC 9207).

They log in on the page itself: there is no cookie that somebody else's page could make use of. Nothing is ever sent to
an address that the client has not registered, letter by letter.
"""

import re
from importlib import resources
from typing import NamedTuple

import jinja2
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from admin.database import transaction
from admin.errors import AccountLocked, ApiError, EmailNotVerified, InsufficientPermissions, InvalidCredentials
from admin.http.fields import email_of
from admin.identity import audit, members, users
from admin.identity.oauth import clients, grants
from admin.identity.oauth.clients import Client
from admin.identity.oauth.messages import OAuthError, form_of, once_each, scopes_of, with_parameters
from admin.identity.people import Slowly, acting, person_in, proven

router = APIRouter(prefix="/oauth", include_in_schema=False)

_CHALLENGE = re.compile("[A-Za-z0-9_-]{43}")  # SHA-256 in base64url
_MAX_STATE = 1000
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    (resources.files("admin.identity.oauth") / "consent.html").read_text(encoding="utf-8")
)


class _Asked(NamedTuple):
    """What a client asks a person for; all of it is checked."""

    client: Client
    redirect_uri: str
    scopes: list[str]
    state: str | None
    challenge: str

    def back(self, request: Request, **parameters: str | None) -> Response:
        """Back to the client, with who says so (RFC 9207). 303: a form must not be sent there again."""
        issuer = request.app.state.settings.api_url
        target = with_parameters(self.redirect_uri, **parameters, state=self.state, iss=issuer)
        return RedirectResponse(target, 303, _HEADERS)


class _Stopped(Exception):
    """It can't go on; `answer` says so to the person, or to the client at its redirect URI."""

    def __init__(self, answer: Response) -> None:
        super().__init__()
        self.answer = answer


@router.get("/authorize")
async def ask(request: Request) -> Response:
    """Show who wants to do what."""
    try:
        asked = await _asked(request, once_each(request.query_params.multi_items()))
    except OAuthError as error:
        return _failed(str(error))
    except _Stopped as stopped:
        return stopped.answer
    return _shown(asked)


@router.post("/authorize", dependencies=[Slowly])
async def decide(request: Request) -> Response:
    """Let the app, after the person has shown who they are; or don't."""
    try:
        form = await form_of(request)
        asked = await _asked(request, form)
    except OAuthError as error:
        return _failed(str(error))
    except _Stopped as stopped:
        return stopped.answer
    if form.get("decision") != "allow":
        return asked.back(request, error="access_denied", error_description="The person said no.")
    try:
        code = await _grant(request, asked, form)
    except (InvalidCredentials, AccountLocked, EmailNotVerified, InsufficientPermissions) as error:
        return _shown(asked, error, form.get("email", ""))
    return asked.back(request, code=code)


async def _grant(request: Request, asked: _Asked, form: dict[str, str]) -> str:
    try:
        email = email_of(form.get("email", ""))
    except ValueError as error:
        raise InvalidCredentials from error
    user = await proven(request, email, form.get("password", ""))
    async with transaction(request.app.state.pool) as connection:
        user = await users.still(connection, user)
        organization_id = await members.first_of(connection, user.id)
        if organization_id is None:
            raise InsufficientPermissions("You are no member of an organization any more.")
        grant = await grants.give(connection, asked.client.id, organization_id, user.id, asked.scopes)
        actor = acting(request, await person_in(connection, user, organization_id))
        await audit.record(connection, actor, "grant.given", asked.client.client_id, scopes=asked.scopes)
        return await grants.make_code(connection, grant, redirect_uri=asked.redirect_uri, challenge=asked.challenge)


async def _asked(request: Request, sent: dict[str, str]) -> _Asked:
    """Raises `_Stopped`: with a page as long as the redirect URI is not known to be the client's."""
    async with transaction(request.app.state.pool) as connection:
        client = await clients.find(connection, sent.get("client_id", ""))
    if client is None:
        raise _Stopped(_failed("There is no such app."))
    asked = _Asked(
        client,
        sent.get("redirect_uri", ""),
        scopes_of(sent.get("scope", "")) or client.permissions,
        sent.get("state"),
        sent.get("code_challenge", ""),
    )
    if asked.redirect_uri not in client.redirect_uris:
        raise _Stopped(_failed("The app has not registered the address that it wants you to be sent back to."))
    try:
        _check(asked, sent)
    except OAuthError as error:
        raise _Stopped(asked.back(request, error=error.code, error_description=str(error))) from error
    return asked


def _check(asked: _Asked, sent: dict[str, str]) -> None:
    if sent.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "The only response_type is code.")
    if sent.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(asked.challenge):
        raise OAuthError("invalid_request", "A code_challenge with the method S256 is needed (RFC 7636).")
    if not set(asked.scopes) <= set(asked.client.permissions):
        raise OAuthError("invalid_scope", "The client may ask for less.")
    if asked.state is not None and len(asked.state) > _MAX_STATE:
        raise OAuthError("invalid_request", "The state is too long.")


def _shown(asked: _Asked, error: ApiError | None = None, email: str = "") -> Response:
    sent = {
        "response_type": "code",
        "client_id": asked.client.client_id,
        "redirect_uri": asked.redirect_uri,
        "scope": " ".join(asked.scopes),
        "state": asked.state,
        "code_challenge": asked.challenge,
        "code_challenge_method": "S256",
    }
    page = _page.render(
        name=asked.client.name,
        scopes=asked.scopes,
        target=asked.redirect_uri,
        fields={name: value for name, value in sent.items() if value is not None},
        problem=str(error) if error else "",
        email=email,
        is_fatal=False,
    )
    return HTMLResponse(page, error.status if error else 200, _HEADERS)


def _failed(sentence: str) -> Response:
    page = _page.render(name="", scopes=[], target="", fields={}, problem=sentence, email="", is_fatal=True)
    return HTMLResponse(page, 400, _HEADERS)
