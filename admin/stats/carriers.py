"""Carriers: messages that carry links, as far as clicks of these are judged and asked for by them.

Rules of this file:

1. A link is carried by one message from its beginning on, or never: those in messages are made for their recipient. So
   what was learned of a link stays true, but for when its message was sent.
2. Whoever makes messages says so in the transaction that makes them and their links (`carry`), and says that one is
   sent before anybody can have it (`sent`): a click before that is no recipient's.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from math import inf
from typing import NamedTuple

from admin.database import Connection
from admin.stats.classify import Carried

_REMEMBERED = 100_000


class Carrier(NamedTuple):
    """The message of a link."""

    message_id: int
    """As clicks have it; on the wire it is the public id."""
    sent_at: datetime | None
    """None until then."""
    is_email: bool
    is_honeypot: bool
    """The link is one that no person sees."""

    def judged(self, at: datetime, links_at_once: int, network_kind: str) -> Carried:
        """What a click at this moment is judged by."""
        since_s = (at - self.sent_at).total_seconds() if self.sent_at else -inf
        return Carried(since_s, links_at_once, self.is_honeypot, self.is_email, network_kind)


async def carry(
    connection: Connection, organization_id: int, public_id: str, links: Mapping[int, bool], *, is_email: bool
) -> None:
    """A message has these links, new ones; of each, whether no person sees it."""
    await connection.execute(
        """
        /* carriers.carry */
        with message as (
            insert into carriers (organization_id, public_id, is_email) values ($1, $2, $3) returning id)
        insert into carried_links (link_id, carrier_id, is_honeypot)
        select link_id, message.id, is_honeypot
          from message, unnest($4::bigint[], $5::boolean[]) as link (link_id, is_honeypot)""",
        organization_id,
        public_id,
        is_email,
        list(links),
        list(links.values()),
    )


async def sent(connection: Connection, public_id: str, at: datetime) -> None:
    """A message is handed over at this moment; of several attempts the first one counts."""
    await connection.execute(
        "/* carriers.sent */ update carriers set sent_at = $2 where public_id = $1 and sent_at is null", public_id, at
    )


class Carriers:
    """What one process has learned of links: at most of so many."""

    def __init__(self) -> None:
        self._known: dict[int, Carrier | None] = {}

    async def of(self, connection: Connection, link_ids: Iterable[int]) -> dict[int, Carrier]:
        """The carriers of those of these links that have one."""
        wanted = set(link_ids)
        if len(self._known) + len(wanted) > _REMEMBERED:
            self._known = {}
        found: dict[int, Carrier] = {}
        if unknown := wanted - self._known.keys():
            rows = await connection.fetch(
                """
                /* carriers.of */
                select link_id, carrier_id, sent_at, is_email, is_honeypot
                  from carried_links join carriers on carriers.id = carrier_id
                 where link_id = any($1)""",
                list(unknown),
            )
            found = {row["link_id"]: Carrier(*list(row.values())[1:]) for row in rows}
            waiting = {link_id for link_id, carrier in found.items() if carrier.sent_at is None}
            self._known |= {link_id: found.get(link_id) for link_id in unknown - waiting}
        return found | {link_id: known for link_id in wanted if (known := self._known.get(link_id)) is not None}
