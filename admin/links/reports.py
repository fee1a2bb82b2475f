"""Reports: links that the operator has stopped, because somebody reported them. Edges answer them with 410.

Only the operator takes a report back. Until then a link keeps its address, also when its owner deletes it: nobody can
put the same thing there again.
"""

from collections.abc import Sequence

import asyncpg

from admin.database import Connection
from admin.identity import audit, principal
from admin.links import links, policies
from admin.links.policies import Policy
from admin.links.safety import Pattern
from shared.links import Address, normal_hostname, normal_path

_BATCH = 1_000


async def address_of(connection: Connection, text: str) -> Address:
    """The address that `go.example/a` means, or a short URL, by the policy of its host. Raises `BadAddress`."""
    host, _slash, path = text.removeprefix("https://").removeprefix("http://").partition("/")
    hostname = normal_hostname(host)
    policy = (await policies.held(connection, [hostname])).get(hostname, Policy())
    return Address(hostname, policy.normal(normal_path(f"/{path.partition('?')[0]}".encode(), keeps_slash=True)))


async def report(connection: Connection, address: Address, reason: str) -> bool:
    """Stop the link at an address, also one that is deleted. Whether there is one that was not stopped already."""
    row = await _locked(connection, address)
    if row is None or row["reported_at"]:
        return False
    await _stop(connection, [row], {"reason": reason})
    return True


async def withdraw(connection: Connection, address: Address) -> bool:
    """Let the link at an address lead again. Whether there is one that was stopped."""
    row = await _locked(connection, address)
    if row is None or not row["reported_at"]:
        return False
    await links.lock(connection, [address])
    await connection.execute(
        "/* reports.withdraw */ update links set reported_at = null, version = nextval('versions') where id = $1",
        row["id"],
    )
    await _tell(connection, "link.report_withdrawn", [row], {})
    return True


async def report_some(
    connection: Connection, pattern: Pattern, reason: str, *, after: int
) -> tuple[list[Address], int | None]:
    """Stop those that lead where a pattern means, among some links with an id above `after`.

    Where they are, and the id to go on after; None at the end.
    """
    rows = await connection.fetch(
        """
        /* reports.report_some */
        select id, organization_id, public_id, hostname, path,
               array(select part ->> 'destination' from jsonb_array_elements(rules || variants) as part)
               || array_remove(array[destination, fallback_url], null) as destinations
          from links
         where id > $1 and reported_at is null
           and position($2 in concat_ws(' ', destination, fallback_url, rules::text, variants::text)) > 0
         order by id limit $3 for update""",
        after,
        pattern.end_of_host,
        _BATCH,
    )
    meant = [row for row in rows if any(map(pattern.means, row["destinations"]))]
    await _stop(connection, meant, {"reason": reason, "pattern": str(pattern)})
    return [_address(row) for row in meant], rows[-1]["id"] if len(rows) == _BATCH else None


async def _locked(connection: Connection, address: Address) -> asyncpg.Record | None:
    return await connection.fetchrow(
        """
        /* reports.locked */
        select id, organization_id, public_id, hostname, path, reported_at from links
         where hostname = $1 and path = $2 for update""",
        *address,
    )


async def _stop(connection: Connection, rows: Sequence[asyncpg.Record], told: dict[str, str]) -> None:
    """Of links that are locked."""
    await links.lock(connection, map(_address, rows))
    await connection.execute(
        "/* reports.stop */ update links set reported_at = now(), version = nextval('versions') where id = any($1)",
        [row["id"] for row in rows],
    )
    await _tell(connection, "link.reported", rows, told)


async def _tell(connection: Connection, action: str, rows: Sequence[asyncpg.Record], told: dict[str, str]) -> None:
    """Those who publish, and those who own."""
    await links.mark(connection, map(_address, rows))
    for organization_id in {row["organization_id"] for row in rows}:
        theirs = [row for row in rows if row["organization_id"] == organization_id]
        objects = [(row["public_id"], {**_address(row)._asdict(), **told}) for row in theirs]
        await audit.record_many(connection, principal.system(organization_id), action, objects)


def _address(row: asyncpg.Record) -> Address:
    return Address(row["hostname"], row["path"])
