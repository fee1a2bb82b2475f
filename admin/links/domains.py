"""Domains: which organization a hostname belongs to."""

from admin.database import Connection


async def open_to_all(connection: Connection, hostname: str) -> None:
    """Make this the default domain: every organization may have links on it."""
    await connection.execute(
        """
        /* domains.open_to_all */
        insert into domains (hostname, organization_id) values ($1, null)
        on conflict (hostname) do nothing""",
        hostname,
    )


async def claim(connection: Connection, organization_id: int, hostname: str) -> bool:
    """Whether the organization may have links on this host. A host that nobody has yet becomes the organization's."""
    may = await _may_use(connection, organization_id, hostname)
    if may is None:
        await connection.execute(
            """
            /* domains.claim */
            insert into domains (hostname, organization_id) values ($1, $2)
            on conflict (hostname) do nothing""",
            hostname,
            organization_id,
        )
        may = await _may_use(connection, organization_id, hostname)
    return bool(may)


async def _may_use(connection: Connection, organization_id: int, hostname: str) -> bool | None:
    """None while the host is nobody's."""
    may: bool | None = await connection.fetchval(
        "/* domains.may_use */ select organization_id is null or organization_id = $2 from domains where hostname = $1",
        hostname,
        organization_id,
    )
    return may


async def is_own(connection: Connection, organization_id: int, hostname: str) -> bool:
    """Whether a hostname serves the organization's links, or is the default domain: a destination there could lead in
    circles."""
    return bool(
        await connection.fetchval(
            """
            /* domains.is_own */
            select exists (select from domains where hostname = $1 and organization_id is null)
                or exists (select from links where hostname = $1 and organization_id = $2)""",
            hostname,
            organization_id,
        )
    )
