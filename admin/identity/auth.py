"""The routes of sessions: register, log in, stay logged in, log out."""

import hashlib
from typing import Annotated

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
from admin.http.request_ids import client, request_id
from admin.identity import access_tokens, audit, invitations, members, organizations, passwords, sessions, users
from admin.identity.access_tokens import Claims
from admin.identity.fields import Login, Logout, Refresh, Registration
from admin.identity.people import (
    Said,
    Slowly,
    UserResource,
    acting,
    ask_to_verify,
    person_in,
    proven,
)
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


async def _tokens(request: Request, connection: Connection, user: User, session: Session, refresh: str) -> TokensMeta:
    access = await request.app.state.access_tokens.issue(connection, Claims(user.public_id, session.public_id))
    return TokensMeta(request_id=request_id(request), access_token=access, refresh_token=refresh)


async def _begin(
    request: Request, connection: Connection, user: User, organization_id: int, *, is_remembered: bool = False
) -> SessionAnswer:
    session, refresh = await sessions.begin(connection, user.id, organization_id, is_remembered=is_remembered)
    user = await users.logged_in(connection, user.id)
    member = await person_in(connection, user, organization_id)
    tokens = await _tokens(request, connection, user, session, refresh)
    await audit.record(connection, acting(request, member), "session.began", ids.shown("user", user.public_id))
    return SessionAnswer(data=member.resource(), meta=tokens)


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
    kept = await passwords.hashed(new.password)
    async with transaction(request.app.state.pool) as connection:
        if new.invitation_token is not None:
            invitation = await invitations.accept(connection, new.invitation_token, new.email)
            organization_id, role = invitation.organization_id, invitation.role
        else:
            name = new.organization_name or f"{new.name}'s organization"
            organization_id, role = (await organizations.create(connection, name=name, tier="free")).id, "owner"
        user = await users.create(
            connection, email=new.email, name=new.name, password_hash=kept, is_verified=new.invitation_token is not None
        )
        await members.add(connection, organization_id, user.id, role)
        if user.email_verified_at is None:
            await ask_to_verify(request, connection, user)
        return await _begin(request, connection, user, organization_id)


@router.post(
    "/login",
    summary="Log in",
    responses=documented(errors.InvalidCredentials, errors.AccountLocked, errors.EmailNotVerified),
    openapi_extra=documented_body(Login),
)
async def login(request: Request, sent: Annotated[Login, Depends(body_of(Login))]) -> SessionAnswer:
    """Tokens are in `meta`. After ten wrong passwords an address is locked for a quarter of an hour."""
    user = await proven(request, sent.email, sent.password)
    async with transaction(request.app.state.pool) as connection:
        organization_id = await members.first_of(connection, user.id)
        if organization_id is None:
            raise InsufficientPermissions("You are no member of an organization any more.")
        return await _begin(request, connection, user, organization_id, is_remembered=sent.remember_me)


@router.post(
    "/refresh",
    summary="Get new tokens",
    responses=documented(errors.InvalidRefreshToken, errors.TokenRevoked),
    openapi_extra=documented_body(Refresh),
)
async def refresh(request: Request, sent: Annotated[Refresh, Depends(body_of(Refresh))]) -> TokensAnswer:
    """A refresh token is good once: keep the new one. A token that is used twice ends its session."""
    async with transaction(request.app.state.pool) as connection:
        refreshed = await sessions.refresh(connection, sent.refresh_token, _client_of(request))
        if refreshed is not None:
            session, token = refreshed
            user = await users.get(connection, session.user_id)
            meta = await _tokens(request, connection, user, session, token)
    if refreshed is None:
        raise TokenRevoked
    return TokensAnswer(data=Tokens(access_token=meta.access_token, refresh_token=meta.refresh_token), meta=meta)


@router.post(
    "/logout",
    summary="Log out",
    openapi_extra=documented_body(Logout),
)
async def logout(request: Request, sent: Annotated[Logout, Depends(body_of(Logout))]) -> PlainAnswer[Said]:
    """The session ends, or all sessions of the user. A token that is none ends nothing and is not told apart."""
    async with transaction(request.app.state.pool) as connection:
        session = await sessions.by_token(connection, sent.refresh_token)
        if session is not None:
            user = await users.get(connection, session.user_id)
            member = await person_in(connection, user, session.organization_id)
            await sessions.end(connection, session.public_id)
            if sent.all_devices:
                await sessions.end_all(connection, user.id)
            await audit.record(
                connection,
                acting(request, member),
                "session.ended",
                ids.shown("user", user.public_id),
                allDevices=sent.all_devices,
            )
    return plain_answer(request, Said(message="Logged out."))


def _client_of(request: Request) -> str:
    """What one client has in common with itself, and hardly with a thief."""
    seen = f"{client(request)[1]}\n{request.headers.get('user-agent', '')}"
    return hashlib.sha256(seen.encode()).hexdigest()
