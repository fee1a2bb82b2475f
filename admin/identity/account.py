"""The routes of one's own account: password, e-mail address, name."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request

from admin import errors
from admin.database import Connection, transaction
from admin.errors import InvalidResetToken, InvalidToken
from admin.http.answers import Meta, PlainAnswer, documented, plain_answer
from admin.http.bodies import body_of, documented_body
from admin.http.request_ids import request_id
from admin.identity import audit, letters, mailed_tokens, members, passwords, sessions, users
from admin.identity.fields import (
    EmailVerify,
    InvitationAcceptance,
    PasswordChange,
    PasswordConfirm,
    PasswordReset,
    ProfileChange,
)
from admin.identity.oauth import grants
from admin.identity.people import (
    MAILS,
    PER_ACCOUNT,
    Said,
    Slowly,
    UserAnswer,
    account_name,
    acting,
    check_password,
    join,
    person_in,
)
from admin.identity.principal import Caller, Principal, user_of
from admin.identity.users import User

router = APIRouter(prefix="/auth", tags=["Authentication"])

_SHARED = (errors.Invalid, errors.PayloadTooLarge, errors.RateLimited, errors.Unavailable)


@router.post(
    "/password/reset",
    summary="Ask for a mail to choose a new password",
    dependencies=[Slowly],
    responses=documented(*_SHARED),
    openapi_extra=documented_body(PasswordReset),
)
async def reset_password(
    request: Request, sent: Annotated[PasswordReset, Depends(body_of(PasswordReset))]
) -> PlainAnswer[Said]:
    """The answer is always the same. The token in the mail is good once, for an hour."""
    if (await request.app.state.limits.charge(f"reset:{account_name(sent.email)}", MAILS)).is_allowed:
        async with transaction(request.app.state.pool) as connection:
            await letters.ask_for_reset(connection, sent.email)
    return plain_answer(request, Said(message="If there is an account with this address, a mail is on its way."))


@router.post(
    "/password/confirm",
    summary="Choose a new password with the token of a mail",
    dependencies=[Slowly],
    responses=documented(*_SHARED, errors.InvalidResetToken),
    openapi_extra=documented_body(PasswordConfirm),
)
async def confirm_password(
    request: Request, sent: Annotated[PasswordConfirm, Depends(body_of(PasswordConfirm))]
) -> PlainAnswer[Said]:
    """All sessions end, and all that was granted to apps. A locked account is open again."""
    async with transaction(request.app.state.pool) as connection:  # before the password is hashed, which is dear
        if not await mailed_tokens.is_good(connection, sent.token, "reset"):
            raise InvalidResetToken
    kept = await passwords.hashed(sent.password)
    async with transaction(request.app.state.pool) as connection:
        user_id = await mailed_tokens.use(connection, sent.token, "reset")
        if user_id is None:
            raise InvalidResetToken
        user = await users.get(connection, user_id)
        await users.set_password(connection, user_id, kept)
        await users.verify_email(connection, user_id)  # the mail has arrived there
        await sessions.end_all(connection, user_id)
        if actor := await _actor(request, connection, user):
            await grants.end_all(connection, user_id, actor, "password_changed")
            await audit.record(connection, actor, "password.changed", actor.shown_id)
    await request.app.state.limits.forget(account_name(user.email), PER_ACCOUNT)
    return plain_answer(request, Said(message="The password is changed. Please log in."))


async def _actor(request: Request, connection: Connection, user: User) -> Principal | None:
    """The user, acting for the organization that they joined first; None for one who belongs to none any more."""
    organization_id = await members.first_of(connection, user.id)
    if organization_id is None:
        return None
    return acting(request, await person_in(connection, user, organization_id))


@router.post(
    "/email/verify",
    summary="Confirm an e-mail address with the token of a mail",
    dependencies=[Slowly],
    responses=documented(*_SHARED, errors.InvalidResetToken),
    openapi_extra=documented_body(EmailVerify),
)
async def verify_email(
    request: Request, sent: Annotated[EmailVerify, Depends(body_of(EmailVerify))]
) -> PlainAnswer[Said]:
    """The token is in the mail that registration sends; a login with an unconfirmed address sends another."""
    async with transaction(request.app.state.pool) as connection:
        user_id = await mailed_tokens.use(connection, sent.token, "verify")
        if user_id is None:
            raise InvalidResetToken
        await users.verify_email(connection, user_id)
        if actor := await _actor(request, connection, await users.get(connection, user_id)):
            await audit.record(connection, actor, "user.verified", actor.shown_id)
    return plain_answer(request, Said(message="The address is confirmed."))


@router.get(
    "/me",
    summary="See who is logged in",
    responses=documented(*errors.OF_EVERY_CALLER),
)
async def show_me(request: Request, caller: Caller) -> UserAnswer:
    """For sessions; an API key is no person."""
    user_id, _session = user_of(caller)
    async with transaction(request.app.state.pool) as connection:
        member = await person_in(connection, await users.get(connection, user_id), caller.organization_id)
    return UserAnswer(data=member.resource(), meta=Meta(request_id=request_id(request)))


@router.patch(
    "/me",
    summary="Change one's name or picture",
    responses=documented(*errors.OF_EVERY_CALLER, errors.Invalid, errors.PayloadTooLarge),
    openapi_extra=documented_body(ProfileChange),
)
async def change_me(
    request: Request, caller: Caller, change: Annotated[ProfileChange, Depends(body_of(ProfileChange))]
) -> UserAnswer:
    """What is not sent stays as it is."""
    user_id, _session = user_of(caller)
    async with transaction(request.app.state.pool) as connection:
        user = await users.get(connection, user_id)
        wanted = {"name": user.name, "avatar": user.avatar, **change.model_dump(exclude_unset=True)}
        user = await users.change(connection, user_id, **wanted)
        await audit.record(connection, caller, "user.changed", caller.shown_id)
        member = await person_in(connection, user, caller.organization_id)
    return UserAnswer(data=member.resource(), meta=Meta(request_id=request_id(request)))


@router.post(
    "/change-password",
    summary="Change one's password",
    dependencies=[Slowly],
    responses=documented(
        *errors.OF_EVERY_CALLER, errors.Invalid, errors.InvalidCredentials, errors.AccountLocked, errors.PayloadTooLarge
    ),
    openapi_extra=documented_body(PasswordChange),
)
async def change_password(
    request: Request, caller: Caller, sent: Annotated[PasswordChange, Depends(body_of(PasswordChange))]
) -> PlainAnswer[Said]:
    """All other sessions end, and all that was granted to apps."""
    user_id, session = user_of(caller)
    async with transaction(request.app.state.pool) as connection:
        user = await users.get(connection, user_id)
    await check_password(request, user.email, sent.current_password, user.password_hash)
    kept = await passwords.hashed(sent.new_password)
    async with transaction(request.app.state.pool) as connection:
        await users.still(connection, user)
        if await sessions.by_public_id(connection, session) is None:
            raise InvalidToken
        await users.set_password(connection, user_id, kept)
        await sessions.end_all(connection, user_id, but=session)
        await grants.end_all(connection, user_id, caller, "password_changed")
        await audit.record(connection, caller, "password.changed", caller.shown_id)
    return plain_answer(request, Said(message="The password is changed."))


@router.post(
    "/invitations/accept",
    summary="Accept an invitation",
    dependencies=[Slowly],
    responses=documented(*errors.OF_EVERY_CALLER, errors.PayloadTooLarge, errors.AlreadyExists),
    openapi_extra=documented_body(InvitationAcceptance),
)
async def accept_invitation(
    request: Request,
    caller: Caller,
    sent: Annotated[InvitationAcceptance, Depends(body_of(InvitationAcceptance))],
) -> UserAnswer:
    """For somebody who has an account; others register with the token. It must have been sent to their address.

    To act for the organization, log in with its `organizationId`.
    """
    user_id, _session = user_of(caller)
    async with transaction(request.app.state.pool) as connection:
        user = await users.get(connection, user_id)
        person = await person_in(connection, user, await join(request, connection, user, sent.token))
    return UserAnswer(data=person.resource(), meta=Meta(request_id=request_id(request)))
