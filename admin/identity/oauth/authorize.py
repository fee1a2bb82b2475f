"""The page where people let an app act for them (RFC 6749 §4.1, RFC 7636, RFC 9207).

They log in on the page itself, and then decide: there is no cookie that somebody else's page could make use of. Nothing
is ever sent to an address that the client has not registered, and nobody is sent there before they have logged in:
errors are told on a page, from which a link leads back.
"""

import json
import re
from typing import NamedTuple

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from admin.database import transaction
from admin.errors import AccountLocked, EmailNotVerified, InsufficientPermissions, InvalidCredentials
from admin.http import ids
from admin.http.limits import Limit
from admin.http.request_ids import client as client_address
from admin.identity import audit, members, organizations, users
from admin.identity.fields import Login
from admin.identity.oauth import clients, grants, pages, tickets
from admin.identity.oauth.clients import Client
from admin.identity.oauth.messages import OAuthError, answering, form_of, once_each, scopes_of, with_parameters
from admin.identity.oauth.pages import Question
from admin.identity.people import Slowly, acting, gate_of, person_in, proven

router = APIRouter(prefix="/oauth", include_in_schema=False, route_class=answering(with_=pages.failed))

_CHALLENGE = re.compile("[A-Za-z0-9_-]{43}")  # SHA-256 in base64url
_MAX_STATE = 1000
_VISITS = (Limit(120, 60),)
_ASKED_AGAIN = (InvalidCredentials, AccountLocked, EmailNotVerified, InsufficientPermissions)
_OWN_PAGE = ("same-origin", "none")


class _Asked(NamedTuple):
    """What a client asks a person for; all of it is checked."""

    client: Client
    organization: str
    """The name of the one that has registered the client."""
    redirect_uri: str
    scopes: list[str]
    state: str | None
    challenge: str

    @property
    def question(self) -> Question:
        """What the person is shown."""
        sent = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": " ".join(self.scopes),
            "state": self.state,
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
        }
        fields = {name: value for name, value in sent.items() if value is not None}
        return Question(self.client.name, self.organization, self.scopes, self.redirect_uri, fields)

    @property
    def as_text(self) -> str:
        """All of it, for tickets to be bound to."""
        return json.dumps(self.question.fields)


class _Stopped(Exception):
    """It can't go on; `answer` says so to the person."""

    def __init__(self, answer: Response) -> None:
        super().__init__()
        self.answer = answer


@router.get("/authorize")
async def ask(request: Request) -> Response:
    """Show who wants to do what."""
    await gate_of(request).charge(f"visits:{client_address(request)[1]}", _VISITS)
    try:
        asked = await _asked(request, once_each(request.query_params.multi_items()))
    except OAuthError as error:
        return pages.refused(str(error))
    except _Stopped as stopped:
        return stopped.answer
    return pages.log_in(asked.question)


@router.post("/authorize", dependencies=[Slowly])
async def decide(request: Request) -> Response:
    """Learn who the person is, or, by the form after that, whether they let the app."""
    if request.headers.get("sec-fetch-site", "none") not in _OWN_PAGE:
        return pages.refused("Another page has sent this form.")
    try:
        form = await form_of(request)
        asked = await _asked(request, form)
    except OAuthError as error:
        return pages.refused(str(error))
    except _Stopped as stopped:
        return stopped.answer
    try:
        match form.get("decision"):
            case "log_in":
                return await _logged_in(request, asked, form)
            case "allow":
                code = await _grant(request, asked, form)
                # 303: a form must not be sent there again.
                return RedirectResponse(_back(request, asked, code=code), 303, pages.HEADERS)
            case _:
                no = _back(request, asked, error="access_denied", error_description="The person said no.")
                return pages.denied(asked.question, no)
    except _ASKED_AGAIN as error:
        return pages.log_in(asked.question, error, form.get("email", ""))


async def _logged_in(request: Request, asked: _Asked, form: dict[str, str]) -> Response:
    try:
        sent = Login(email=form.get("email", ""), password=form.get("password", ""))
    except ValidationError as error:
        raise InvalidCredentials from error
    user = await proven(request, sent.email, sent.password)
    async with transaction(request.app.state.pool) as connection:
        user = await users.still(connection, user)
        own = await members.organizations_of(connection, user.id)
    if not own:
        raise InsufficientPermissions("You are no member of an organization any more.")
    ticket = tickets.make(request.app.state.sealer, user, asked.as_text)
    return pages.consent(asked.question, user.email, own, ticket)


async def _grant(request: Request, asked: _Asked, form: dict[str, str]) -> str:
    """A code for what the person has let the client do."""
    async with transaction(request.app.state.pool) as connection:
        user = await tickets.holder(connection, request.app.state.sealer, form.get("ticket", ""), asked.as_text)
        chosen = ids.read("org", form.get("organization", ""))
        organization_id = await members.organization_of(connection, user.id, chosen)
        if organization_id is None:
            raise InsufficientPermissions("You are no member of this organization any more.")
        actor = acting(request, await person_in(connection, user, organization_id))
        await grants.make_room(connection, user.id, actor)
        grant = await grants.give(connection, asked.client.id, organization_id, user.id, asked.scopes)
        client_id = asked.client.client_id
        await audit.record(connection, actor, "grant.given", grant.shown_id, client=client_id, scopes=asked.scopes)
        return await grants.make_code(connection, grant, redirect_uri=asked.redirect_uri, challenge=asked.challenge)


async def _asked(request: Request, sent: dict[str, str]) -> _Asked:
    """Raises `OAuthError` as long as it is not known where the client is, and then `_Stopped`."""
    async with transaction(request.app.state.pool) as connection:
        client = await clients.find(connection, sent.get("client_id", ""))
        if client is None:
            raise OAuthError("invalid_client", "There is no such app.")
        organization = await organizations.get(connection, client.organization_id)
    redirect_uri, state = sent.get("redirect_uri", ""), sent.get("state")
    if not client.may_be_answered_at(redirect_uri):
        raise OAuthError(
            "invalid_request", "The app has not registered the address that it wants you to be sent back to."
        )
    challenge = sent.get("code_challenge", "")
    asked = _Asked(client, organization.name, redirect_uri, client.permissions, state, challenge)
    try:
        _check(asked, sent)
        return asked._replace(scopes=scopes_of(sent.get("scope", ""), client.permissions))
    except OAuthError as error:
        back = _back(request, asked, error=error.code, error_description=str(error))
        raise _Stopped(pages.refused(str(error), app=client.name, code=error.code, back=back)) from error


def _check(asked: _Asked, sent: dict[str, str]) -> None:
    if sent.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "The only response_type is code.")
    if sent.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(asked.challenge):
        raise OAuthError("invalid_request", "A code_challenge with the method S256 is needed (RFC 7636).")
    if asked.state is not None and len(asked.state) > _MAX_STATE:
        raise OAuthError("invalid_request", "The state is too long.")


def _back(request: Request, asked: _Asked, **parameters: str) -> str:
    """The way back to the client, with who says so (RFC 9207)."""
    state = asked.state if asked.state is not None and len(asked.state) <= _MAX_STATE else None
    return with_parameters(asked.redirect_uri, **parameters, state=state, iss=request.app.state.settings.api_url)
