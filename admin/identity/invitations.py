"""Invitations: by e-mail address, with a token in the mail that is good once and for seven days."""

from datetime import datetime, timedelta
from typing import NamedTuple

from admin.database import Connection
from admin.errors import Invalid, NotFound
from admin.http.ids import new_id, random_base62
from admin.http.lists import Asked, Filter, Found, Listing, one_of, since, until
from admin.identity.keys import sha256

_VALID_FOR = timedelta(days=7)
_TOKEN_LENGTH = 40


class Invitation(NamedTuple):
    """A row of invitations."""

    public_id: str
    organization_id: int
    email: str
    role: str
    invited_by: str
    created_at: datetime
    expires_at: datetime
    status: str
    """pending, accepted, revoked or expired."""


_STATUS = (
    "case when accepted_at is not null then 'accepted' when revoked_at is not null then 'revoked'"
    " when expires_at <= now() then 'expired' else 'pending' end"
)

_COLUMNS = f"public_id, organization_id, email, role, invited_by, created_at, expires_at, {_STATUS} as status"

LISTING = Listing(
    prefix="inv",
    sorts={"createdAt": "created_at", "email": "email", "expiresAt": "expires_at"},
    filters={
        "status": Filter(f"{_STATUS} = {{}}", one_of("pending", "accepted", "revoked", "expired")),
        "startDate": since("created_at"),
        "endDate": until("created_at"),
    },
)


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """Invitations of this organization."""
    return await LISTING.run(
        connection,
        f"/* invitations.page_of */ select {_COLUMNS} from invitations where organization_id = $1",  # noqa: S608
        [organization_id],
        asked,
    )


async def create(
    connection: Connection, organization_id: int, *, email: str, role: str, invited_by: str
) -> tuple[Invitation, str]:
    """An invitation and its token, which is kept nowhere. An older one to the same address ends."""
    await connection.execute(
        """
        /* invitations.create */
        update invitations set revoked_at = now()
         where organization_id = $1 and email = $2 and accepted_at is null and revoked_at is null""",
        organization_id,
        email,
    )
    token = f"inv_{random_base62(_TOKEN_LENGTH)}"
    row = await connection.fetchrow(
        f"""
        /* invitations.create */
        insert into invitations (public_id, organization_id, email, role, sha256, invited_by, expires_at)
        values ($1, $2, $3, $4, $5, $6, now() + $7)
        returning {_COLUMNS}""",  # noqa: S608
        new_id(),
        organization_id,
        email,
        role,
        sha256(token),
        invited_by,
        _VALID_FOR,
    )
    assert row is not None
    return Invitation(**row), token


async def pending_role(connection: Connection, organization_id: int, email: str) -> str | None:
    """The role that the open invitation to this address gives."""
    role: str | None = await connection.fetchval(
        f"""
        /* invitations.pending_role */
        select role from invitations where organization_id = $1 and email = $2 and {_STATUS} = 'pending'""",  # noqa: S608
        organization_id,
        email,
    )
    return role


async def get(connection: Connection, organization_id: int, public_id: str) -> Invitation:
    """An invitation of this organization, locked against other changes. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"/* invitations.get */ select {_COLUMNS} from invitations"  # noqa: S608
        " where organization_id = $1 and public_id = $2 for update",
        organization_id,
        public_id,
    )
    if row is None:
        raise NotFound("There is no such invitation.")
    return Invitation(**row)


async def check(connection: Connection, token: str, email: str) -> None:
    """Raises `Invalid` for a token that `accept` would refuse now."""
    is_good = await connection.fetchval(
        f"""
        /* invitations.check */
        select exists (select from invitations where sha256 = $1 and email = $2 and {_STATUS} = 'pending')""",  # noqa: S608
        sha256(token),
        email,
    )
    if not is_good:
        raise _no_such_invitation()


def _no_such_invitation() -> Invalid:
    return Invalid.of("invitationToken", "There is no open invitation with this token for this address.")


async def accept(connection: Connection, token: str, email: str) -> Invitation:
    """Use the token up. Raises `Invalid` for one that is unknown, used, too old or for somebody else's address."""
    row = await connection.fetchrow(
        f"""
        /* invitations.accept */
        update invitations set accepted_at = now()
         where sha256 = $1 and email = $2 and {_STATUS} = 'pending'
        returning {_COLUMNS}""",  # noqa: S608
        sha256(token),
        email,
    )
    if row is None:
        raise _no_such_invitation()
    return Invitation(**row)


async def revoke(connection: Connection, organization_id: int, public_id: str) -> None:
    """The token of an open invitation is of no use any more."""
    await connection.execute(
        """
        /* invitations.revoke */
        update invitations set revoked_at = now()
         where organization_id = $1 and public_id = $2 and accepted_at is null and revoked_at is null""",
        organization_id,
        public_id,
    )
