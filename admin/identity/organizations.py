"""Organizations: who owns. Their tier says how much they may ask of the API."""

from datetime import datetime
from typing import NamedTuple

from admin.database import Connection
from admin.errors import NotFound
from admin.http.ids import new_id
from admin.http.limits import Limit

_MINUTE_S = 60
_DAY_S = 86400

TIERS = {
    "free": (Limit(60, _MINUTE_S), Limit(1_000, _DAY_S)),
    "starter": (Limit(300, _MINUTE_S), Limit(10_000, _DAY_S)),
    "pro": (Limit(1_000, _MINUTE_S), Limit(100_000, _DAY_S)),
}


def limits_of(tier: str, enterprise_per_minute: int) -> tuple[Limit, ...]:
    """What an organization of this tier may ask for."""
    return (Limit(enterprise_per_minute, _MINUTE_S),) if tier == "enterprise" else TIERS[tier]


class Organization(NamedTuple):
    """A row of organizations."""

    id: int
    public_id: str
    name: str
    tier: str
    plan: str
    created_at: datetime


_COLUMNS = "id, public_id, name, tier, plan, created_at"


async def first(connection: Connection) -> int | None:
    """The id of the oldest organization; None while there is none."""
    organization_id: int | None = await connection.fetchval(
        "/* organizations.first */ select id from organizations order by id limit 1"
    )
    return organization_id


async def create(connection: Connection, *, name: str, tier: str) -> Organization:
    """An organization without anybody in it."""
    row = await connection.fetchrow(
        f"""
        /* organizations.create */
        insert into organizations (public_id, name, tier, plan) values ($1, $2, $3, $3)
        returning {_COLUMNS}""",  # noqa: S608
        new_id(),
        name,
        tier,
    )
    assert row is not None
    return Organization(**row)


async def get(connection: Connection, organization_id: int) -> Organization:
    """An organization that exists."""
    row = await connection.fetchrow(
        f"/* organizations.get */ select {_COLUMNS} from organizations where id = $1",  # noqa: S608
        organization_id,
    )
    assert row is not None
    return Organization(**row)


async def by_public_id(connection: Connection, public_id: str) -> Organization:
    """An organization. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"/* organizations.by_public_id */ select {_COLUMNS} from organizations where public_id = $1",  # noqa: S608
        public_id,
    )
    if row is None:
        raise NotFound("There is no such organization.")
    return Organization(**row)


async def rename(connection: Connection, organization_id: int, name: str) -> Organization:
    """Its new name."""
    row = await connection.fetchrow(
        f"/* organizations.rename */ update organizations set name = $2 where id = $1 returning {_COLUMNS}",  # noqa: S608
        organization_id,
        name,
    )
    assert row is not None
    return Organization(**row)


async def set_tier(connection: Connection, public_id: str, tier: str) -> int | None:
    """Give it a tier, and the plan of that name. Its id; None when there is no such organization."""
    organization_id: int | None = await connection.fetchval(
        """
        /* organizations.set_tier */
        update organizations set tier = $2, plan = $2 where public_id = $1 returning id""",
        public_id,
        tier,
    )
    return organization_id
