"""Loops: whether a link would lead back to itself, by way of other links here, whosesoever they are.

Rules of this file:

1. A destination is never on a host that serves links of the same organization, or everybody's. On hosts of others,
   a visitor of an address is taken to be sent wherever one might be: to each destination of the link that is there,
   deleted or not, and to each page of its host.
2. Whoever makes or changes a link, or a page of a host, looks whether there is a way back. A loop is closed by the last
   change of its parts, so none comes to be: nor where a host becomes one of ours after somebody linked to it. A way of
   more than `_STEPS` steps, or by too many addresses, is taken for one that leads back.
3. What can't be known here: ways by hosts that are not ours (`https://example.com/?url=…`); two changes at one moment,
   which don't see each other; which links are found when the policy of a host changes. A visitor in such a loop is
   stopped by the browser after some twenty redirects; nothing of ours goes round in it.
"""

import json
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import asyncpg
import can_ada

from admin.database import Connection
from admin.links.destinations import hostname_of
from admin.links.policies import Policy
from shared.links import Address

_STEPS = 10
_ADDRESSES = 1_000


class Ways(NamedTuple):
    """Where destinations lead, as far as that is here."""

    own: set[str]
    """The hosts on which no destination may be."""
    places: dict[str, Address]
    """The addresses of the destinations that are here, and of those behind them."""
    onwards: dict[Address, set[str]]
    """Where a visitor of an address might be sent; missing for those at which the search was given up."""

    def refusal(self, destination: str, is_back: Callable[[Address], bool]) -> str | None:
        """Why nothing may lead to this destination for which these are the addresses where it is itself."""
        if hostname_of(destination) in self.own:
            return "A destination can't be on a host that serves your short links."
        met: set[Address] = set()
        ahead = [destination]
        while ahead:
            place = self.places.get(ahead.pop())
            if place is None or place in met:
                continue
            if is_back(place) or place not in self.onwards:
                return "This destination leads back here, by way of other short links."
            met.add(place)
            ahead += self.onwards[place]
        return None


async def explored(
    connection: Connection, organization_id: int, destinations: Iterable[str], own: Collection[str] = ()
) -> Ways:
    """The ways from these destinations, which the organization has chosen. `own` are hosts that are known to be its."""
    new = {*destinations}
    hosts = await _hosts(connection, organization_id, {hostname_of(destination) for destination in new})
    ways = Ways({*own, *(name for name, host in hosts.items() if host["is_own"])}, {}, {})
    new = {destination for destination in new if hostname_of(destination) not in ways.own}
    for step in range(_STEPS + 1):
        ways.places.update(_places(new, hosts))
        met = {ways.places[destination] for destination in new & ways.places.keys()} - ways.onwards.keys()
        if not met or step == _STEPS or len(ways.onwards) + len(met) > _ADDRESSES:
            break
        ways.onwards.update(await _onwards(connection, met, hosts))
        new = {destination for place in met for destination in ways.onwards[place]} - ways.places.keys()
        hosts |= await _hosts(connection, organization_id, {hostname_of(one) for one in new} - hosts.keys())
    return ways


async def _hosts(connection: Connection, organization_id: int, hostnames: Collection[str]) -> dict[str, asyncpg.Record]:
    """Those of these hosts that serve links here."""
    rows = await connection.fetch(
        """
        /* loops.hosts */
        select hostname, folds_case, keeps_slash, array[root_url, not_found_url, expired_url, favicon_url] as pages,
               organization_id is null or exists (
                   select from links where links.hostname = domains.hostname and links.organization_id = $2
               ) as is_own
          from domains where hostname = any($1)""",
        list(hostnames),
        organization_id,
    )
    return {row["hostname"]: row for row in rows}


def _places(destinations: Collection[str], hosts: dict[str, asyncpg.Record]) -> dict[str, Address]:
    places = {}
    for destination in destinations:
        if host := hosts.get(hostname_of(destination)):
            policy = Policy(host["folds_case"], host["keeps_slash"])
            places[destination] = Address(host["hostname"], policy.normal(can_ada.parse(destination).pathname))
    return places


async def _onwards(
    connection: Connection, places: Collection[Address], hosts: dict[str, asyncpg.Record]
) -> dict[Address, set[str]]:
    rows = await connection.fetch(
        """
        /* loops.onwards */
        select hostname, path, destination, fallback_url, rules::text, variants::text from links
         where (hostname, path) in (select * from unnest($1::text[], $2::text[]))""",
        [place.hostname for place in places],
        [place.path for place in places],
    )
    onwards = {place: {page for page in hosts[place.hostname]["pages"] if page} for place in places}
    for row in rows:
        parts = [*json.loads(row["rules"]), *json.loads(row["variants"])]
        destinations = {row["destination"], row["fallback_url"] or "", *(part["destination"] for part in parts)}
        onwards[Address(row["hostname"], row["path"])] |= destinations - {""}
    return onwards
