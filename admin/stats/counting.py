"""Counting: how an organization wants its clicks counted, and what is kept of whoever clicked."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_network
from typing import NamedTuple

from admin.database import Connection
from shared.addresses import Networks, networks

ADDRESSES = ("none", "truncated", "full")
"""What is kept of a visitor's address: nothing, the /24 or /48 it is in, or all of it."""


class Counting(NamedTuple):
    """A row of counting."""

    time_zone: str = "UTC"
    """Of IANA; a visitor is one for a day there."""
    addresses: str = "none"
    """One of `ADDRESSES`."""
    heeds_opt_out: bool = False
    """Whether who sends Sec-GPC or DNT is counted without visitor, address and agent."""
    internal: str = ""
    """Comma-separated addresses and ranges of its own people, whose clicks are no visits."""
    kept_days: int | None = None
    """How long single clicks are kept; None for ever."""

    @property
    def internal_networks(self) -> Networks:
        """`internal`, to compute with."""
        return _networks(self.internal)


COLUMNS = ", ".join(Counting._fields)


async def of_many(connection: Connection, organization_ids: Iterable[int]) -> dict[int, Counting]:
    """Of these organizations, those that want anything in particular."""
    rows = await connection.fetch(
        f"/* counting.of_many */ select organization_id, {COLUMNS} from counting where organization_id = any($1)",  # noqa: S608
        list(organization_ids),
    )
    return {row["organization_id"]: Counting(*(row[name] for name in Counting._fields)) for row in rows}


async def of(connection: Connection, organization_id: int, *, lock: bool = False) -> Counting:
    """Of one organization; locked against other changes if asked, also while there is nothing to lock."""
    if lock:
        await connection.execute(
            "/* counting.of */ select from organizations where id = $1 for no key update", organization_id
        )
    return (await of_many(connection, [organization_id])).get(organization_id, Counting())


async def change(connection: Connection, organization_id: int, wanted: Counting) -> None:
    """From now on; what is stored already stays as it is."""
    await connection.execute(
        f"""
        /* counting.change */
        insert into counting (organization_id, {COLUMNS}) values ($1, $2, $3, $4, $5, $6)
        on conflict (organization_id) do update
           set ({COLUMNS}) = (select {", ".join(f"excluded.{name}" for name in Counting._fields)})""",  # noqa: S608
        organization_id,
        *wanted,
    )


def kept_of(address: str, addresses: str) -> str | None:
    """What is stored of a canonical address, for one of `ADDRESSES`."""
    if not address or addresses == "none":
        return None
    if addresses == "full":
        return address
    return str(ip_network(f"{address}/{48 if ':' in address else 24}", strict=False))


@lru_cache(maxsize=1024)
def _networks(text: str) -> Networks:
    return networks(text)
