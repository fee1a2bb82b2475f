"""Domains: the hosts of an organization, and what is served there beside links.

Rules of this file:

1. A host has one holder: its row in `domains` names the organization whose links are served there. Whoever makes a link
   on a host that nobody has becomes its holder, without having shown anything. How it changes hands is in claims.py.
2. Whoever changes a host holds its row; whoever makes a link there keeps the row from changing. A change would rather
   fail than wait for long, because others may be waiting for it.
3. Each change of a host marks it for publication, under an empty path.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Collection
from datetime import datetime
from typing import NamedTuple

import asyncpg
import orjson

from admin.database import Connection
from admin.errors import DomainNotVerified, NotFound, Unavailable
from admin.http import ids
from admin.http.lists import Asked, Filter, Found, Listing, Values, one_of, since, until
from admin.links import links, policies
from admin.links.policies import Policy
from shared.entries import HostEntry
from shared.links import Address, normal_hostname

_PATIENCE_MS = 300
_PROOF_BYTES = 16


class Domain(NamedTuple):
    """A host that an organization has, or says that it is its own."""

    public_id: str
    organization_id: int
    hostname: str
    proof: str
    """What is to be shown there, or in its DNS."""
    created_at: datetime
    updated_at: datetime
    is_held: bool
    """Whether links of the organization are served there; otherwise those of another one are."""
    verified_at: datetime | None
    verified_by: str | None
    """txt or file."""
    is_default: bool
    """Whether new links of the organization are made there, unless they say where."""
    folds_case: bool
    keeps_slash: bool
    root_url: str | None
    not_found_url: str | None
    expired_url: str | None
    robots_txt: str | None
    favicon_url: str | None
    apple_app_site_association: str | None
    """As JSON, like `assetlinks`."""
    assetlinks: str | None

    @property
    def policy(self) -> Policy:
        """How the paths of its links are compared."""
        return Policy(self.folds_case, self.keeps_slash)


_FLAGS = ("is_default", "folds_case", "keeps_slash")
_SERVED = (
    "root_url",
    "not_found_url",
    "expired_url",
    "robots_txt",
    "favicon_url",
    "apple_app_site_association",
    "assetlinks",
)
_CHANGEABLE = (*_FLAGS, *_SERVED)
_CHANGED = ", ".join(f"{name} = ${number}" for number, name in enumerate(_CHANGEABLE, start=2))
UNSET = ", ".join(f"{name} = default" for name in _CHANGEABLE)
"""In SQL: a domain as nobody has changed it yet."""

_COLUMNS = ", ".join(
    [
        "public_id",
        *(f"said.{name}" for name in ("organization_id", "hostname", "proof", "created_at")),
        "coalesce(held.updated_at, said.created_at) as updated_at",
        "held.hostname is not null as is_held",
        "held.verified_at",
        "held.verified_by",
        *(f"coalesce(held.{name}, false) as {name}" for name in _FLAGS),
        *(f"held.{name}" for name in _SERVED),
    ]
)
_SAID = "public_id, organization_id, hostname, proof, created_at"
_ROWS = f"""(select {_SAID} from domains union all select {_SAID} from domain_claims) as said
             left join domains as held using (public_id)"""  # noqa: S608
_STATUS = "case when held.verified_at is null then 'pending' else 'verified' end"

LISTING = Listing(
    prefix="dom",
    sorts={"createdAt": "said.created_at", "hostname": "said.hostname"},
    filters={
        "status": Filter(f"{_STATUS} = {{}}", one_of("pending", "verified")),
        "hostname": Filter(
            "said.hostname = {}", Values(normal_hostname, {"type": "string", "examples": ["go.example.com"]})
        ),
        "startDate": since("said.created_at"),
        "endDate": until("said.created_at"),
    },
)


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
    """Whether the organization may have links on this host, for as long as this transaction lasts.

    A host that nobody has yet becomes the organization's.
    """
    may = await _may_use(connection, organization_id, hostname)
    if may is None:
        await take_free(connection, organization_id, hostname)
        may = await _may_use(connection, organization_id, hostname)
    return bool(may)


async def _may_use(connection: Connection, organization_id: int, hostname: str) -> bool | None:
    """None while the host is nobody's."""
    may: bool | None = await connection.fetchval(
        """
        /* domains.may_use */
        select organization_id is null or organization_id = $2 from domains where hostname = $1 for key share""",
        hostname,
        organization_id,
    )
    return may


def new_proof() -> str:
    """What only the organization that it was made for can know until it is shown."""
    return secrets.token_hex(_PROOF_BYTES)


async def take_free(connection: Connection, organization_id: int, hostname: str) -> str | None:
    """Take a host that nobody has. The public id of the domain; None if somebody has the host after all."""
    public_id: str | None = await connection.fetchval(
        """
        /* domains.take_free */
        insert into domains (hostname, organization_id, public_id, proof) values ($1, $2, $3, $4)
        on conflict (hostname) do nothing
        returning public_id""",
        hostname,
        organization_id,
        ids.new_id(),
        new_proof(),
    )
    if public_id is not None:
        await mark(connection, hostname)
    return public_id


async def default_of(connection: Connection, organization_id: int) -> str | None:
    """The host that the organization has chosen for new links; None means the default domain."""
    hostname: str | None = await connection.fetchval(
        "/* domains.default_of */ select hostname from domains where organization_id = $1 and is_default",
        organization_id,
    )
    return hostname


async def is_verified(connection: Connection, hostname: str) -> bool:
    """Whether somebody has shown that this host is theirs."""
    return bool(
        await connection.fetchval(
            """
            /* domains.is_verified */
            select exists (select from domains where hostname = $1 and verified_at is not null)""",
            hostname,
        )
    )


async def get(connection: Connection, organization_id: int, public_id: str) -> Domain:
    """A domain of this organization. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"""
        /* domains.get */
        select {_COLUMNS} from {_ROWS} where said.organization_id = $1 and public_id = $2""",  # noqa: S608
        organization_id,
        public_id,
    )
    if row is None:
        raise NotFound("There is no such domain.")
    return Domain(**row)


@contextlib.asynccontextmanager
async def held(connection: Connection, organization_id: int, public_id: str) -> AsyncIterator[Domain]:
    """A domain of this organization, for a change of it: others who change its host, or make links there, wait.

    Raises `NotFound`, and `Unavailable` when something in the block has to wait for too long.
    """
    try:
        await connection.execute(f"/* domains.held */ set local lock_timeout = {_PATIENCE_MS}")
        domain = await get(connection, organization_id, public_id)
        await connection.execute(
            "/* domains.held */ select from domains where hostname = $1 for update", domain.hostname
        )
        yield await get(connection, organization_id, public_id)  # as whoever held it before has left it
    except asyncpg.LockNotAvailableError as error:
        raise Unavailable("This domain or its links are being changed. Please try again.") from error


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """Domains of this organization."""
    return await LISTING.run(
        connection,
        f"/* domains.page_of */ select {_COLUMNS} from {_ROWS} where said.organization_id = $1",  # noqa: S608
        [organization_id],
        asked,
    )


async def change(connection: Connection, domain: Domain, wanted: Domain) -> Domain:
    """Make a domain that is held what is wanted.

    Raises `DomainNotVerified`, and `AlreadyExists` when a policy would make two links one.
    """
    if not domain.is_held:
        raise DomainNotVerified("Another organization has links on this host. Verify the domain to make it yours.")
    if wanted.is_default and domain.verified_at is None:
        raise DomainNotVerified("Only a domain that is verified can be the default.")
    left: list[Address] = []
    if wanted.policy != domain.policy:
        left += await policies.rekey(connection, domain.hostname, wanted.policy)
        left += await _take_marks_back(connection, domain.hostname)
    if wanted.is_default:
        await _take_default_away(connection, domain.organization_id)
    await connection.execute(
        f"""
        /* domains.change */
        update domains
           set {_CHANGED}, version = nextval('versions'),
               updated_at = greatest(date_trunc('milliseconds', now()), updated_at + interval '1 millisecond')
         where public_id = $1""",  # noqa: S608
        domain.public_id,
        *(getattr(wanted, name) for name in _CHANGEABLE),
    )
    await mark(connection, domain.hostname)
    await links.mark(connection, left)
    return await get(connection, domain.organization_id, domain.public_id)


async def _take_marks_back(connection: Connection, hostname: str) -> list[Address]:
    """Unmark the host, and addresses there without a link; the answer is these, to be marked again behind the host.

    An older mark of an address that a link has just left would have it taken away before the host is published.
    """
    rows = await connection.fetch(
        """
        /* domains.take_marks_back */
        delete from unpublished
         where hostname = $1 and not exists (
               select from links where links.hostname = $1 and links.path = unpublished.path)
        returning path""",
        hostname,
    )
    return [Address(hostname, row["path"]) for row in rows if row["path"]]


async def _take_default_away(connection: Connection, organization_id: int) -> None:
    # One at a time: of two at once, each would miss the default that the other one makes.
    await connection.execute(
        "/* domains.take_default_away */ select from organizations where id = $1 for no key update", organization_id
    )
    await connection.execute(
        """
        /* domains.take_default_away */
        update domains set is_default = false where organization_id = $1 and is_default""",
        organization_id,
    )


async def mark(connection: Connection, hostname: str) -> None:
    """Have a host published again."""
    await links.lock(connection, [Address(hostname, "")])
    await links.mark(connection, [Address(hostname, "")])


async def host_entries(connection: Connection, hostnames: Collection[str]) -> dict[str, HostEntry]:
    """What edges need to know of these hosts; those that nobody has are missing."""
    rows = await connection.fetch(
        f"""
        /* domains.host_entries */
        select hostname, organization_id, folds_case, keeps_slash, verified_at, proof, {", ".join(_SERVED)}
          from domains where hostname = any($1)""",  # noqa: S608
        list(hostnames),
    )
    return {row["hostname"]: _entry(row) for row in rows}


def _entry(row: asyncpg.Record) -> HostEntry:
    return HostEntry(
        organization_id=row["organization_id"],
        folds_case=row["folds_case"],
        keeps_slash=row["keeps_slash"],
        root=row["root_url"] or "",
        not_found=row["not_found_url"] or "",
        expired=row["expired_url"] or "",
        robots_txt=row["robots_txt"] or "",
        favicon=row["favicon_url"] or "",
        apple_app_site_association=_compact(row["apple_app_site_association"]),
        assetlinks=_compact(row["assetlinks"]),
        proof="" if row["verified_at"] else row["proof"] or "",
    )


def _compact(json: str | None) -> str:
    """Postgres writes numbers out and adds spaces."""
    return "" if json is None else orjson.dumps(orjson.loads(json)).decode()
