"""Members: users of an organization with a role. An organization always keeps an owner."""

from datetime import datetime
from typing import NamedTuple

from admin.database import Connection
from admin.errors import AlreadyExists, NotFound
from admin.http.lists import Asked, Filter, Found, Listing, one_of, since, until
from admin.identity.organizations import Organization
from admin.identity.permissions import ROLES


class Member(NamedTuple):
    """A user in an organization."""

    user_id: int
    public_id: str
    email: str
    name: str
    role: str
    created_at: datetime


class LastOwner(AlreadyExists):
    """Somebody must own the organization."""

    default = "This is the last owner; make somebody else an owner first."


_COLUMNS = "m.user_id, u.public_id, u.email, u.name, m.role, m.created_at"
_MEMBERS = f"{_COLUMNS} from memberships m join users u on u.id = m.user_id where m.organization_id = $1"

LISTING = Listing(
    prefix="user",
    sorts={"createdAt": "m.created_at", "name": "u.name", "email": "u.email", "role": "m.role"},
    filters={
        "role": Filter("m.role = {}", one_of(*ROLES)),
        "startDate": since("m.created_at"),
        "endDate": until("m.created_at"),
    },
    id_column="u.public_id",
)


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """Members of this organization."""
    return await LISTING.run(
        connection,
        f"/* members.page_of */ select {_MEMBERS}",
        [organization_id],
        asked,
    )


async def add(connection: Connection, organization_id: int, user_id: int, role: str) -> None:
    """Raises `AlreadyExists` for somebody who is a member already."""
    added = await connection.fetchval(
        """
        /* members.add */
        insert into memberships (organization_id, user_id, role) values ($1, $2, $3)
        on conflict do nothing returning true""",
        organization_id,
        user_id,
        role,
    )
    if not added:
        raise AlreadyExists("This user is a member already.")


async def get(connection: Connection, organization_id: int, public_id: str) -> Member:
    """A member of this organization, locked against other changes. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"/* members.get */ select {_MEMBERS} and u.public_id = $2 for update of m",
        organization_id,
        public_id,
    )
    if row is None:
        raise NotFound("There is no such member.")
    return Member(**row)


async def first_of(connection: Connection, user_id: int) -> int | None:
    """The organization that a user joined first; None for somebody who belongs to none (any more)."""
    organization_id: int | None = await connection.fetchval(
        """
        /* members.first_of */
        select organization_id from memberships where user_id = $1 order by created_at, organization_id limit 1""",
        user_id,
    )
    return organization_id


async def organization_of(connection: Connection, user_id: int, public_id: str) -> int | None:
    """The organization with this public id, if the user is a member of it, and until the caller commits."""
    organization_id: int | None = await connection.fetchval(
        """
        /* members.organization_of */
        select o.id from organizations o join memberships m on m.organization_id = o.id
         where o.public_id = $2 and m.user_id = $1
           for key share of m""",
        user_id,
        public_id,
    )
    return organization_id


async def organizations_of(connection: Connection, user_id: int) -> list[Organization]:
    """Those that a user is a member of, in the order of joining."""
    rows = await connection.fetch(
        """
        /* members.organizations_of */
        select o.id, o.public_id, o.name, o.tier, o.plan, o.created_at
          from memberships m join organizations o on o.id = m.organization_id
         where m.user_id = $1 order by m.created_at, o.id""",
        user_id,
    )
    return [Organization(**row) for row in rows]


async def has_verified_owner(connection: Connection, organization_id: int) -> bool:
    """Whether somebody is known to be reachable who answers for what the organization does."""
    return bool(
        await connection.fetchval(
            """
            /* members.has_verified_owner */
            select exists (select from memberships m join users u on u.id = m.user_id
                            where m.organization_id = $1 and m.role = 'owner' and u.email_verified_at is not null)""",
            organization_id,
        )
    )


async def role_of(connection: Connection, organization_id: int, user_id: int) -> str | None:
    """The role of a user; None for somebody who is no member."""
    role: str | None = await connection.fetchval(
        "/* members.role_of */ select role from memberships where organization_id = $1 and user_id = $2",
        organization_id,
        user_id,
    )
    return role


async def set_role(connection: Connection, organization_id: int, member: Member, role: str) -> Member:
    """The member with another role. Raises `LastOwner`."""
    await _keep_an_owner(connection, organization_id, member, becomes=role)
    await connection.execute(
        "/* members.set_role */ update memberships set role = $3 where organization_id = $1 and user_id = $2",
        organization_id,
        member.user_id,
        role,
    )
    return member._replace(role=role)


async def remove(connection: Connection, organization_id: int, member: Member) -> None:
    """Their sessions and grants for this organization are the caller's to end. Raises `LastOwner`."""
    await _keep_an_owner(connection, organization_id, member, becomes=None)
    await connection.execute(
        "/* members.remove */ delete from memberships where organization_id = $1 and user_id = $2",
        organization_id,
        member.user_id,
    )


async def _keep_an_owner(connection: Connection, organization_id: int, member: Member, becomes: str | None) -> None:
    if becomes == "owner":
        return
    # Locked, so that two owners can't remove each other at once.
    owners = await connection.fetch(
        """
        /* members.keep_an_owner */
        select user_id from memberships where organization_id = $1 and role = 'owner' order by user_id for update""",
        organization_id,
    )
    if [row["user_id"] for row in owners] == [member.user_id]:
        raise LastOwner
