"""People as they see themselves, and what the routes for them share.

Nobody learns here whether somebody else has an account: but for registration, which must say that an address is taken,
answers and their timing are the same for addresses that have one and that have none.
"""

import hashlib
from typing import NamedTuple

from fastapi import Depends
from starlette.requests import Request

from admin.database import Connection, transaction
from admin.errors import AccountLocked, EmailNotVerified, InvalidCredentials, RateLimited
from admin.http import ids
from admin.http.answers import Instant, Meta, Wire
from admin.http.limits import Limit
from admin.http.request_ids import client, request_id
from admin.identity import audit, invitations, letters, mailed_tokens, members, organizations, passwords, users
from admin.identity.principal import Gate, Principal
from admin.identity.users import User

PER_ACCOUNT = (Limit(10, 900),)
"""Wrong passwords of one address."""
MAILS = (Limit(5, 3600),)
"""Mails to one address."""
_PER_ADDRESS = (Limit(30, 60),)


class UserAttributes(Wire):
    """A person, as they see themselves."""

    email: str
    name: str
    avatar: str | None
    email_verified: bool
    created_at: Instant
    last_login_at: Instant | None


class OrganizationReference(Wire):
    """The organization that a session is for."""

    id: str
    name: str
    role: str


class UserRelationships(Wire):
    """What a person belongs to."""

    organization: OrganizationReference


class UserResource(Wire):
    """A person."""

    id: str
    type: str = "user"
    attributes: UserAttributes
    relationships: UserRelationships


class UserAnswer(Wire):
    """A person."""

    data: UserResource
    meta: Meta


class Said(Wire):
    """A sentence for people."""

    message: str


class Person(NamedTuple):
    """A person in one organization."""

    user: User
    organization: organizations.Organization
    role: str

    def resource(self) -> UserResource:
        """What is told of them."""
        user = self.user
        return UserResource(
            id=ids.shown("user", user.public_id),
            attributes=UserAttributes(
                email=user.email,
                name=user.name,
                avatar=user.avatar,
                email_verified=user.email_verified_at is not None,
                created_at=user.created_at,
                last_login_at=user.last_login_at,
            ),
            relationships=UserRelationships(
                organization=OrganizationReference(
                    id=ids.shown("org", self.organization.public_id), name=self.organization.name, role=self.role
                )
            ),
        )


async def person_in(connection: Connection, user: User, organization_id: int) -> Person:
    """Raises nothing for one who is no member any more; the role is empty then."""
    role = await members.role_of(connection, organization_id, user.id)
    return Person(user, await organizations.get(connection, organization_id), role or "")


def acting(request: Request, member: Person) -> Principal:
    """Somebody who has just shown who they are."""
    return Principal(
        organization_id=member.organization.id,
        organization=member.organization.public_id,
        tier=member.organization.tier,
        kind="user",
        public_id=member.user.public_id,
        name=member.user.name or member.user.email,
        permissions=frozenset(),
        address=client(request)[0],
        request_id=request_id(request),
    )


def gate_of(request: Request) -> Gate:
    """What counts attempts."""
    gate: Gate = request.app.state.gate
    return gate


async def slowly(request: Request) -> None:
    """Every route here that takes a secret may be asked so often by one client. Raises `RateLimited`."""
    route = request.scope["route"].path.removeprefix("/api")
    await gate_of(request).charge(f"{route}:{client(request)[1]}", _PER_ADDRESS)


def fingerprint(request: Request) -> str:
    """What one client has in common with itself, and hardly with a thief: its network and its agent, hashed."""
    seen = f"{client(request)[1]}\n{request.headers.get('user-agent', '')}"
    return hashlib.sha256(seen.encode()).hexdigest()


def account_name(email: str) -> str:
    """What attempts at an address are counted by, whether it has an account or not."""
    return f"account:{hashlib.sha256(email.encode()).hexdigest()}"


async def ask_to_verify(request: Request, connection: Connection, user: User) -> None:
    """Send a mail with a token that shows that the address is theirs."""
    token = await mailed_tokens.make(connection, user.id, "verify")
    await letters.verification(connection, request.app.state.sealer, user.email, token)


async def proven(request: Request, email: str, password: str) -> User:
    """Whoever has this address and this password.

    Whoever goes on from here asks `users.still`, because the password may be changed meanwhile. Raises `AccountLocked`,
    `InvalidCredentials`, and `EmailNotVerified` after another mail was sent.
    """
    async with transaction(request.app.state.pool) as connection:
        user = await users.by_email(connection, email)
    await check_password(request, email, password, user.password_hash if user else None)
    if user is None:
        raise InvalidCredentials
    if user.email_verified_at is None:
        await _verify_again(request, user)
        raise EmailNotVerified
    return user


async def check_password(request: Request, email: str, password: str, kept: str | None) -> None:
    """Attempts are counted before they are looked at, so that parallel ones count, too.

    Raises `AccountLocked`, `InvalidCredentials`.
    """
    account = account_name(email)
    try:
        await gate_of(request).charge(account, PER_ACCOUNT)
    except RateLimited as error:
        raise AccountLocked from error
    if not await passwords.matches(password, kept):
        raise InvalidCredentials
    await request.app.state.limits.forget(account, PER_ACCOUNT)


async def _verify_again(request: Request, user: User) -> None:
    if (await request.app.state.limits.charge(f"verify:{user.public_id}", MAILS)).is_allowed:
        async with transaction(request.app.state.pool) as connection:
            await ask_to_verify(request, connection, user)


async def join(request: Request, connection: Connection, user: User, token: str) -> int:
    """Make the user a member of the organization that the invitation is for. Raises `Invalid`, `AlreadyExists`."""
    invitation = await invitations.accept(connection, token, user.email)
    await members.add(connection, invitation.organization_id, user.id, invitation.role)
    actor = acting(request, await person_in(connection, user, invitation.organization_id))
    await audit.record(connection, actor, "member.joined", ids.shown("user", user.public_id), role=invitation.role)
    return invitation.organization_id


Slowly = Depends(slowly)
