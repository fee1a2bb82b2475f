"""The routes of sessions: register, log in, stay logged in, log out."""

from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends
from starlette.requests import Request

from admin import errors
from admin.database import Connection, transaction
from admin.errors import (
    InsufficientPermissions,
    RegistrationClosed,
    TokenRevoked,
)
from admin.http import ids
from admin.http.answers import Meta, PlainAnswer, Wire, documented, plain_answer
from admin.http.bodies import body_of, documented_body
from admin.http.request_ids import request_id
from admin.identity import access_tokens, audit, invitations, members, organizations, passwords, sessions, users
from admin.identity.access_tokens import Claims, Issue
from admin.identity.fields import Login, Logout, Refresh, Registration
from admin.identity.people import (
    Person,
    Said,
    Slowly,
    UserResource,
    acting,
    ask_to_verify,
    fingerprint,
    gate_of,
    join,
    person_in,
    proven,
)
from admin.identity.principal import user_of
from admin.identity.sessions import Session
from admin.identity.users import User

router = APIRouter(
    prefix="/auth",
    tags=["Authentication"],
    dependencies=[Slowly],
    responses=documented(errors.Invalid, errors.PayloadTooLarge, errors.RateLimited, errors.Unavailable),
)


class Tokens(Wire):
    """What a session is kept with."""

    access_token: str
    refresh_token: str
    expires_in: int = access_tokens.LASTS_S
    token_type: str = "Bearer"  # noqa: S105


class TokensMeta(Tokens, Meta):
    """Tokens, beside what is known about the answer."""


class SessionAnswer(Wire):
    """A person and a session."""

    data: UserResource
    meta: TokensMeta


class TokensAnswer(Wire):
    """The next tokens of a session."""

    data: Tokens
    meta: TokensMeta


class _Begun(NamedTuple):
    """A session that has begun; its access token is made when that is certain."""

    person: Person
    session: Session
    refresh_token: str


async def _begin(
    request: Request, connection: Connection, user: User, organization_id: int, *, is_remembered: bool = False
) -> _Begun:
    session, refresh_token = await sessions.begin(connection, user.id, organization_id, is_remembered=is_remembered)
    person = await person_in(connection, await users.logged_in(connection, user.id), organization_id)
    await audit.record(connection, acting(request, person), "session.began", ids.shown("user", user.public_id))
    return _Begun(person, session, refresh_token)


def _answer(request: Request, issue: Issue, begun: _Begun) -> SessionAnswer:
    meta = _tokens(request, issue, begun.person.user, begun.session, begun.refresh_token)
    return SessionAnswer(data=begun.person.resource(), meta=meta)


def _tokens(request: Request, issue: Issue, user: User, session: Session, refresh_token: str) -> TokensMeta:
    access_token = issue(Claims(ids.shown("user", user.public_id), session.public_id))
    return TokensMeta(request_id=request_id(request), access_token=access_token, refresh_token=refresh_token)


@router.post(
    "/register",
    status_code=201,
    summary="Register",
    responses=documented(errors.RegistrationClosed, errors.EmailAlreadyExists),
    openapi_extra=documented_body(Registration),
)
async def register(request: Request, new: Annotated[Registration, Depends(body_of(Registration))]) -> SessionAnswer:
    """Needs an invitation, or a server that is open to everybody. Tokens are in `meta`."""
    if new.invitation_token is None and not request.app.state.settings.open_registration:
        raise RegistrationClosed
    if new.invitation_token is not None:  # looked at before the password is hashed, which is dear
        async with transaction(request.app.state.pool) as connection:
            await invitations.check(connection, new.invitation_token, new.email)
    kept = await passwords.hashed(new.password)
    issue = await request.app.state.access_tokens.ready()
    async with transaction(request.app.state.pool) as connection:
        user = await users.create(
            connection, email=new.email, name=new.name, password_hash=kept, is_verified=new.invitation_token is not None
        )
        if new.invitation_token is not None:
            organization_id = await join(request, connection, user, new.invitation_token)
        else:
            organization_id = await _found(request, connection, user, new)
        begun = await _begin(request, connection, user, organization_id)
    return _answer(request, issue, begun)


async def _found(request: Request, connection: Connection, user: User, new: Registration) -> int:
    """An organization of their own, for somebody whose address is still to be confirmed."""
    name = new.organization_name or f"{new.name}'s organization"
    organization = await organizations.create(connection, name=name, tier="free")
    await members.add(connection, organization.id, user.id, "owner")
    actor = acting(request, await person_in(connection, user, organization.id))
    await audit.record(connection, actor, "organization.created", ids.shown("org", organization.public_id))
    await ask_to_verify(request, connection, user)
    return organization.id


@router.post(
    "/login",
    summary="Log in",
    responses=documented(errors.InvalidCredentials, errors.AccountLocked, errors.EmailNotVerified),
    openapi_extra=documented_body(Login),
)
async def login(request: Request, sent: Annotated[Login, Depends(body_of(Login))]) -> SessionAnswer:
    """Tokens are in `meta`. After ten wrong passwords an address is locked for a quarter of an hour.

    The session is for one organization: the one named, the one of an invitation, or the one that was joined first.
    """
    user = await proven(request, sent.email, sent.password)
    issue = await request.app.state.access_tokens.ready()
    async with transaction(request.app.state.pool) as connection:
        user = await users.still(connection, user)
        organization_id = await _organization_for(request, connection, user, sent)
        begun = await _begin(request, connection, user, organization_id, is_remembered=sent.remember_me)
    return _answer(request, issue, begun)


async def _organization_for(request: Request, connection: Connection, user: User, sent: Login) -> int:
    if sent.invitation_token is not None:
        return await join(request, connection, user, sent.invitation_token)
    if sent.organization_id is not None:
        organization_id = await members.organization_of(connection, user.id, ids.read("org", sent.organization_id))
    else:
        organization_id = await members.first_of(connection, user.id)
    if organization_id is None:
        raise InsufficientPermissions("You are no member of this organization, or of none any more.")
    return organization_id


@router.post(
    "/refresh",
    summary="Get new tokens",
    responses=documented(errors.InvalidRefreshToken, errors.TokenRevoked),
    openapi_extra=documented_body(Refresh),
)
async def refresh(request: Request, sent: Annotated[Refresh, Depends(body_of(Refresh))]) -> TokensAnswer:
    """A refresh token is good once: keep the new one. A token that is used twice ends its session."""
    issue = await request.app.state.access_tokens.ready()
    async with transaction(request.app.state.pool) as connection:
        refreshed = await sessions.refresh(
            connection, request.app.state.sealer, sent.refresh_token, fingerprint(request)
        )
        user = await users.get(connection, refreshed[0].user_id) if refreshed else None
    if refreshed is None or user is None:
        raise TokenRevoked
    meta = _tokens(request, issue, user, *refreshed)
    return TokensAnswer(data=Tokens(access_token=meta.access_token, refresh_token=meta.refresh_token), meta=meta)


@router.post(
    "/logout",
    summary="Log out",
    responses=documented(errors.NotAuthenticated, errors.InvalidApiKey, errors.InvalidToken),
    openapi_extra=documented_body(Logout),
)
async def logout(request: Request, sent: Annotated[Logout, Depends(body_of(Logout))]) -> PlainAnswer[Said]:
    """The session of the refresh token ends, or else that of the access token; or all sessions of the user.

    A refresh token that is none ends nothing and is not told apart.
    """
    caller = await gate_of(request).admit(request, []) if sent.refresh_token is None else None
    async with transaction(request.app.state.pool) as connection:
        if caller is not None:
            session = await sessions.by_public_id(connection, user_of(caller)[1])
        else:
            session = await sessions.by_token(connection, sent.refresh_token or "")
        if session is not None:
            await _end(request, connection, session, all_devices=sent.all_devices)
    return plain_answer(request, Said(message="Logged out."))


async def _end(request: Request, connection: Connection, session: Session, *, all_devices: bool) -> None:
    user = await users.get(connection, session.user_id)
    await sessions.end(connection, session.public_id)
    if all_devices:
        await sessions.end_all(connection, user.id)
    actor = acting(request, await person_in(connection, user, session.organization_id))
    await audit.record(connection, actor, "session.ended", ids.shown("user", user.public_id), allDevices=all_devices)
