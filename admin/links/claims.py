"""Claims: who says that a host is theirs, and who gets it.

Rules of this file:

1. Those who want a host that another organization has wait in `domain_claims`, which has rows only beside a holder's.
2. A proof takes a host from whoever has shown less: a TXT record counts more than a file, a file more than nothing.
   Where the name leads here, our own edge has the file: then it shows that somebody wants the name to, but not who.
3. With its holder a host loses the links there.
4. Whoever makes links takes their hosts first, and gives back those on which none came to be.
"""

from collections.abc import Collection

from admin.database import Connection
from admin.errors import AlreadyExists, Unavailable
from admin.http import ids
from admin.identity import audit, principal
from admin.links import domains, links, taken
from admin.links.domains import Domain
from shared.links import Address

_BATCH = 5_000
_WORTH = {None: 0, "file": 1, "txt": 2}


async def add(connection: Connection, organization_id: int, hostname: str) -> Domain:
    """A domain of the organization, which has the host at once if nobody else has. Raises `AlreadyExists`."""
    public_id = await domains.take_free(connection, organization_id, hostname) or await _wait_for(
        connection, organization_id, hostname
    )
    return await domains.get(connection, organization_id, public_id)


async def give_back(connection: Connection, organization_id: int, hostnames: Collection[str]) -> None:
    """Let go of those of these hosts that this transaction has taken for links which it has not made."""
    await connection.execute(
        """
        /* claims.give_back */
        delete from domains
         where hostname = any($1) and organization_id = $2 and created_at = now()  -- when the transaction began
           and not exists (select from links where links.hostname = domains.hostname)""",
        list(hostnames),
        organization_id,
    )


async def _wait_for(connection: Connection, organization_id: int, hostname: str) -> str:
    """Say that a host is the organization's which somebody else has. The public id of the claim."""
    holder = await connection.fetchrow(
        """
        /* claims.wait_for */
        select organization_id, verified_by from domains where hostname = $1 for key share""",
        hostname,
    )
    if holder is None:
        raise Unavailable("This domain is being changed. Please try again.")
    if holder["organization_id"] is None:
        raise AlreadyExists("This hostname is open to every organization.")
    if holder["organization_id"] == organization_id:
        raise AlreadyExists("This domain is among yours already.")
    if holder["verified_by"] == "txt":
        raise AlreadyExists("Another organization has shown that this hostname is theirs.")
    public_id: str | None = await connection.fetchval(
        """
        /* claims.wait_for */
        insert into domain_claims (public_id, hostname, organization_id, proof) values ($1, $2, $3, $4)
        on conflict (hostname, organization_id) do nothing
        returning public_id""",
        ids.new_id(),
        hostname,
        organization_id,
        domains.new_proof(),
    )
    if public_id is None:
        raise AlreadyExists("This domain is among yours already.")
    return public_id


async def release(connection: Connection, domain: Domain) -> None:
    """Remove a domain that is held; whoever has waited longest for its host has it then.

    Raises `AlreadyExists` while there are links, also deleted ones that keep their addresses.
    """
    if not domain.is_held:
        await _stop_waiting(connection, domain.public_id)
        return
    row = await connection.fetchrow(
        """
        /* claims.release */
        select count(*) as count, count(deleted_at) as deleted from links where hostname = $1""",
        domain.hostname,
    )
    assert row is not None
    if row["count"]:
        kept = f"{row['deleted']} of them are deleted, but keep their addresses for {taken.RESTORABLE_H} hours."
        raise AlreadyExists(f"{row['count']} links are on this domain; {kept} Delete them with purge=true first.")
    next_id = await connection.fetchval(
        """
        /* claims.release */
        select public_id from domain_claims where hostname = $1 order by public_id limit 1""",
        domain.hostname,
    )
    if next_id is None:
        await connection.execute("/* claims.release */ delete from domains where hostname = $1", domain.hostname)
    else:
        await _hand_over(connection, next_id, None)
    await domains.mark(connection, domain.hostname)


async def verify(connection: Connection, domain: Domain, method: str) -> None:
    """Note that a proof was found for a domain that is held: a txt record or a file.

    Another organization that has the host loses it, and its links there. Raises `AlreadyExists` when that one has shown
    as much.
    """
    if not domain.is_held:
        await _take_away(connection, domain.hostname, method)
        await _hand_over(connection, domain.public_id, method)
    elif _WORTH[method] > _WORTH[domain.verified_by]:
        await connection.execute(
            """
            /* claims.verify */
            update domains set verified_at = now(), verified_by = $2, version = nextval('versions'), updated_at = now()
             where public_id = $1""",
            domain.public_id,
            method,
        )
    await domains.mark(connection, domain.hostname)


async def _take_away(connection: Connection, hostname: str, method: str) -> None:
    """Remove the links of whoever has the host, and tell them; who has it now is not for them to know."""
    holder = await connection.fetchrow(
        """
        /* claims.take_away */
        select organization_id, public_id, verified_by from domains where hostname = $1""",
        hostname,
    )
    assert holder is not None
    if _WORTH[method] <= _WORTH[holder["verified_by"]]:
        raise AlreadyExists("Another organization has shown that this hostname is theirs.")
    nobody = principal.system(holder["organization_id"])
    nobody = nobody._replace(public_id="domains", name="proof of another organization")
    count = 0
    there = await connection.cursor(
        "/* claims.take_away */ select id, public_id, path, destination from links where hostname = $1 for update",
        hostname,
    )
    while part := await there.fetch(_BATCH):
        await connection.execute(
            "/* claims.take_away */ delete from links where id = any($1)", [row["id"] for row in part]
        )
        # Their rows were locked before: so the versions that are taken now are the last ones of these addresses.
        await links.mark(connection, [Address(hostname, row["path"]) for row in part])
        told = [
            (row["public_id"], {"hostname": hostname, "path": row["path"], "destination": row["destination"]})
            for row in part
        ]
        await audit.record_many(connection, nobody, "link.purged", told)
        count += len(part)
    lost = ids.shown("dom", holder["public_id"])
    await audit.record(connection, nobody, "domain.lost", lost, hostname=hostname, links=count)


async def _hand_over(connection: Connection, claim_id: str, verified_by: str | None) -> None:
    """Make somebody the holder who has waited for a host, without anything that was there."""
    await connection.execute(
        f"""
        /* claims.hand_over */
        update domains
           set public_id = claim.public_id, organization_id = claim.organization_id, proof = claim.proof,
               created_at = claim.created_at, updated_at = now(), version = nextval('versions'), {domains.UNSET},
               verified_by = $2::text, verified_at = case when $2 is null then null else now() end
          from domain_claims as claim
         where claim.public_id = $1 and domains.hostname = claim.hostname""",  # noqa: S608
        claim_id,
        verified_by,
    )
    await _stop_waiting(connection, claim_id)


async def _stop_waiting(connection: Connection, claim_id: str) -> None:
    await connection.execute("/* claims.stop_waiting */ delete from domain_claims where public_id = $1", claim_id)
