"""Rows: clicks as they are stored. Everything that is recorded becomes one; what it is counted as is its class."""

from datetime import datetime
from typing import NamedTuple

from admin.database import Connection
from admin.stats.classify import REASONS

_AT_ONCE = 20_000

REASON_NUMBERS = {reason: number for number, reason in enumerate(REASONS)}
"""What rows have for a reason."""


class Row(NamedTuple):
    """A row of clicks."""

    clicked_at: datetime
    link_id: int
    organization_id: int
    visitor: int | None
    location: int
    referrer: int
    platform: int
    language: int
    campaign: int
    agent: int
    rule_id: int | None
    variant_id: int | None
    class_: int
    reason: int
    version: int
    is_head: bool
    is_prefetch: bool
    is_internal: bool
    is_use: bool
    is_scan: bool
    address: str | None
    click_id: str | None
    message_id: int | None = None
    """Of the message that carried the link (carriers.py)."""
    network: int | None = None
    """The place of its kind in `networks.KINDS`, from 1 on."""


COLUMNS = tuple(name.rstrip("_") for name in Row._fields)


async def rows_taken(
    connection: Connection, organization_id: int, link_id: int | None, begin: datetime, end: datetime
) -> list[Row]:
    """Rows of an organization, or of one of its links, in a range of time: some thousand, which are removed; none when
    there are no more. What is counted of them is the caller's, in the same transaction."""
    rows = await connection.fetch(
        f"""
        /* rows.rows_taken */
        with taken as (
            select tableoid as part, ctid as place from clicks
             where organization_id = $1 and ($2::bigint is null or link_id = $2)
               and clicked_at >= $3 and clicked_at < $4
             limit $5)
        delete from clicks using taken
         where clicks.tableoid = part and clicks.ctid = place and clicked_at >= $3 and clicked_at < $4
        returning {", ".join(f"clicks.{name}" for name in COLUMNS)}""",  # noqa: S608
        organization_id,
        link_id,
        begin,
        end,
        _AT_ONCE,
    )
    return [Row(*row.values()) for row in rows]
