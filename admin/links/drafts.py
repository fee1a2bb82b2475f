"""Drafts: from the fields that were sent to the link that is wanted, and whether there may be such a link.

What a field may be on its own is said in fields.py; what is here needs the other fields, or what there is already.
"""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import argon2

from admin.database import Connection
from admin.errors import ApiError, Detail, Invalid
from admin.links import domains, loops, policies, safety
from admin.links.fields import ID_OF_A_RULE, NOT_LATER, LinkChange, NewLink
from admin.links.links import Link
from admin.links.loops import Ways
from admin.links.policies import Policy
from admin.links.taken import random_path
from admin.turns import Turns
from shared.links import is_reserved

# OWASP's recommendation with the least memory: an edge worker verifies, one at a time, beside its redirects.
_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

_turns = Turns(2, wait_s=1.0, sorry="Too many passwords are being set at the moment. Please try again.")

_REPEATS_UNSEEN = (
    "Browsers remember a redirect with status {}: they won't ask again, so repeated clicks of a visitor are not "
    "counted, and changes of the destination don't reach them."
)


class Draft(NamedTuple):
    """A link that is wanted, and what is found to be wrong with it before anything else is asked."""

    link: Link
    wrong: list[Detail]

    def accepted(self) -> Link:
        """The link. Raises `Invalid`."""
        if self.wrong:
            raise Invalid(details=self.wrong)
        return self.link


async def draft(organization_id: int, owner_id: str, new: NewLink, *, default_hostname: str) -> Draft:
    """The link that is wanted."""
    fields = new.model_dump()
    hostname, path = fields.pop("hostname") or default_hostname, fields.pop("path") or ""
    return await _drafted(Link(organization_id, owner_id, hostname, path, fields["destination"]), fields, [])


async def changed(link: Link, change: LinkChange) -> Draft:
    """The link with what was sent in place of what it has."""
    sent = {name: value for name, value in change.model_dump().items() if name in change.model_fields_set}
    address = (sent.get("hostname", link.hostname), sent.get("path", link.path))
    is_held = link.reported_at is not None and address != link.address
    stays = [Detail("path", "This link was reported: it stays at its address.")] if is_held else []
    return await _drafted(link, sent, stays)


async def _drafted(link: Link, fields: dict[str, Any], wrong: list[Detail]) -> Draft:
    """The link with these fields: what was sent as null is not kept, and a password only as its hash."""
    known = {None, *(part["id"] for part in (*link.rules, *link.variants))}
    wrong = wrong + [
        Detail(f"{name}.{number}.id", f"This link has no {name.removesuffix('s')} with this id.")
        for name in ("rules", "variants")
        for number, part in enumerate(fields.get(name, []))
        if part["id"] not in known
    ]
    for name in ("preview", "utm"):
        if name in fields:
            fields[name] = {key: value for key, value in fields[name].items() if value is not None}
    has_password, password = "password" in fields, fields.pop("password", None)
    wanted = link._replace(**fields)
    wrong += _disagreements(wanted)
    if has_password and not wrong:
        wanted = wanted._replace(password_hash=password and await _hashed(password))
    return Draft(_numbered(wanted), wrong)


async def settled(
    connection: Connection, organization_id: int, drafts: Sequence[Link], wrong: Sequence[list[Detail]] = ()
) -> list[tuple[Link, ApiError | None]]:
    """Each with its path as its host writes it, and with what speaks against it, beside what is known to be wrong.

    Until the transaction ends nobody changes the policy of these hosts, nor whose they are, nor what is blocked.
    """
    hostnames = {link.hostname for link in drafts}
    usable = {name for name in sorted(hostnames) if await domains.claim(connection, organization_id, name)}
    policies_of = await policies.held(connection, sorted(hostnames))
    destinations = {destination for link in drafts for _, destination in link.destinations}
    ways = await loops.explored(connection, organization_id, destinations, usable)
    blocked = await safety.blocked(connection, destinations)
    normal = [link._replace(path=_path(link, policies_of.get(link.hostname, Policy()))) for link in drafts]
    known = itertools.chain(wrong, itertools.repeat([]))
    return [(link, _refusal(link, found, usable, ways, blocked)) for link, found in zip(normal, known, strict=False)]


def _path(link: Link, policy: Policy) -> str:
    """Empty where it is for links.py to find a free one, which knows no policies."""
    path = link.path or (random_path() if policy.folds_case else "")
    return policy.normal(path) if path else ""


def _refusal(link: Link, wrong: list[Detail], usable: set[str], ways: Ways, blocked: set[str]) -> ApiError | None:
    found = [*wrong]
    if link.hostname not in usable:
        found.append(Detail("hostname", "This hostname belongs to another organization."))
    if is_reserved(link.path):
        found.append(Detail("path", "This path is reserved on every host."))
    for field, destination in link.destinations:
        if why := ways.refusal(destination, link.address.__eq__):
            found.append(Detail(field, why))
    return safety.refusal(found, link.destinations, blocked)


def warnings(link: Link) -> list[str]:
    """What its owner should know of a link that is accepted as it is."""
    repeats = [_REPEATS_UNSEEN.format(link.redirect_status)] if link.redirect_status in (301, 308) else []
    return [*repeats, *safety.lookalikes(link.destinations)]


async def _hashed(password: str) -> str:
    async with _turns:
        return await asyncio.to_thread(_hasher.hash, password)


def _disagreements(link: Link) -> list[Detail]:
    """Where its fields don't agree with each other."""
    wrong = []
    if link.starts_at and link.expires_at and link.starts_at >= link.expires_at:
        wrong.append(Detail("expiresAt", NOT_LATER))
    ids = [part["id"] for part in (*link.rules, *link.variants) if part["id"] is not None]
    if len(set(ids)) < len(ids):
        wrong.append(Detail("variants", ID_OF_A_RULE))
    return wrong


def _numbered(link: Link) -> Link:
    """The link with an id for each rule and variant that has none: one that no part of it ever had."""
    new_ids = itertools.count(link.last_part + 1)
    rules, variants = (
        [part | {"id": part["id"] or next(new_ids)} for part in parts] for parts in (link.rules, link.variants)
    )
    return link._replace(rules=rules, variants=variants, last_part=next(new_ids) - 1)
