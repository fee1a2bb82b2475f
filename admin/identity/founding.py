"""What the command line does with organizations: it is run by somebody who may do anything with the database."""

from admin.database import Connection
from admin.identity import audit, keys, members, organizations, passwords, users
from admin.identity.organizations import Organization
from admin.identity.principal import system


async def found(connection: Connection, *, name: str, tier: str, email: str, password: str) -> Organization:
    """An organization and its owner, whose address (in normal form) is believed."""
    organization = await organizations.create(connection, name=name, tier=tier)
    kept = await passwords.hashed(password)
    owner = await users.create(connection, email=email, name="", password_hash=kept, is_verified=True)
    await members.add(connection, organization.id, owner.id, "owner")
    await audit.record(connection, system(organization.id), "organization.created", organization.public_id)
    return organization


async def add_key(connection: Connection, organization_id: int, key: str, *, name: str) -> None:
    """Let a key do everything for an organization."""
    made = await keys.add(connection, organization_id, key, name=name, permissions=frozenset({"admin"}))
    await audit.record(connection, system(organization_id), "api_key.created", made.public_id)


async def set_tier(connection: Connection, public_id: str, tier: str) -> bool:
    """Whether there is such an organization; it has the tier now."""
    organization_id = await organizations.set_tier(connection, public_id, tier)
    if organization_id is None:
        return False
    await audit.record(connection, system(organization_id), "organization.changed", public_id, tier=tier)
    return True
