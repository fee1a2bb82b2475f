"""Links: the rows. Every change takes a version and marks its addresses for publication (`publish.py`).

Changes of one address are serial: they hold an advisory lock on it until they commit, and take their version under that
lock. So per address a higher version is a later commit, which is what publication relies on. Whoever wants an external
id holds a lock on that, too; so what nobody has when the locks are there is free until the commit.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
import orjson

from admin.database import Connection
from admin.errors import AlreadyExists, NotFound
from admin.http import ids
from admin.http.lists import Asked, Found, Listing
from admin.links import taken
from admin.links.filters import LIST_FILTERS, SORTS
from shared.links import Address

_RANDOM_TRIES = 8


class Link(NamedTuple):
    """A row of links. What begins with `hostname` is for its owner to choose."""

    organization_id: int
    owner_id: str
    hostname: str
    path: str
    """In normal form; empty for a new link that gets a random one."""
    destination: str
    title: str | None = None
    tags: Sequence[str] = ()
    folder: str | None = None
    notes: str | None = None
    external_id: str | None = None
    archived: bool = False
    disabled: bool = False
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    click_limit: int | None = None
    fallback_url: str | None = None
    password_hash: str | None = None
    redirect_status: int = 302
    cache_seconds: int = 0
    query_policy: str = "none"
    click_id_parameter: str | None = None
    rules: Sequence[dict[str, Any]] = ()
    variants: Sequence[dict[str, Any]] = ()
    preview: dict[str, Any] = {}
    utm: dict[str, Any] = {}
    robots: str | None = None
    is_public_stats: bool = False
    metadata: dict[str, Any] = {}
    last_part: int = 0
    """The highest id that one of its rules or variants ever had."""
    historic_clicks: int = 0
    id: int = 0
    public_id: str = ""
    version: int = 0
    created_at: datetime = datetime.min
    updated_at: datetime = datetime.min
    reported_at: datetime | None = None
    deleted_at: datetime | None = None
    was_limited: bool = False
    """It has a click limit, or had one."""
    clicks: int = 0
    """Stored so far."""
    uses: int = 0
    """Of `clicks`, those that the click limit has counted."""
    destination_status: str = "unchecked"
    destination_checked_at: datetime | None = None

    @property
    def address(self) -> Address:
        """Where it is followed."""
        return Address(self.hostname, self.path)

    @property
    def known_as(self) -> tuple[int, str] | None:
        """What no other link may be known as: the organization's own id of it, if it has one."""
        return None if self.external_id is None else (self.organization_id, self.external_id)

    @property
    def destinations(self) -> list[tuple[str, str]]:
        """Everywhere it may lead, by the name of the field that says so."""
        named = [("destination", self.destination), ("fallbackUrl", self.fallback_url or "")]
        named += [(f"rules.{number}.destination", rule["destination"]) for number, rule in enumerate(self.rules)]
        named += [(f"variants.{number}.destination", part["destination"]) for number, part in enumerate(self.variants)]
        return [(name, destination) for name, destination in named if destination]


CHANGEABLE = {
    "hostname": "text",
    "path": "text",
    "destination": "text",
    "title": "text",
    "tags": "text[]",
    "folder": "text",
    "notes": "text",
    "external_id": "text",
    "archived": "boolean",
    "disabled": "boolean",
    "starts_at": "timestamptz",
    "expires_at": "timestamptz",
    "click_limit": "bigint",
    "fallback_url": "text",
    "password_hash": "text",
    "redirect_status": "smallint",
    "cache_seconds": "integer",
    "query_policy": "text",
    "click_id_parameter": "text",
    "rules": "jsonb",
    "variants": "jsonb",
    "preview": "jsonb",
    "utm": "jsonb",
    "robots": "text",
    "is_public_stats": "boolean",
    "metadata": "jsonb",
    "last_part": "integer",
    "historic_clicks": "bigint",
}
"""What a change may change, with the types of Postgres."""

_UPDATED = {"id": "bigint", **CHANGEABLE}
_CREATED = CHANGEABLE | {"public_id": "text", "organization_id": "bigint", "owner_id": "text"}
_JSON = [name for name, kind in CHANGEABLE.items() if kind == "jsonb"]
COLUMNS = ", ".join(
    [
        "id",
        *_CREATED,
        "version, created_at, updated_at, reported_at, deleted_at, was_limited",
        "coalesce((select total from link_counts where link_id = links.id), 0) as clicks",
        "coalesce((select uses from link_counts where link_id = links.id), 0) as uses",
        "coalesce((select status from destination_checks where link_id = links.id), 'unchecked') as destination_status",
        "(select checked_at from destination_checks where link_id = links.id) as destination_checked_at",
    ]
)
"""What `of_row` reads."""

LISTING = Listing(
    prefix="", sorts=SORTS, filters=LIST_FILTERS, limit_is_per_page=True
)  # as the Linkkit document has it


def of_row(row: asyncpg.Record) -> Link:
    """A row as it was selected here."""
    fields = dict(row)
    for name in _JSON:
        fields[name] = orjson.loads(fields[name])
    return Link(**fields)


async def get(
    connection: Connection,
    organization_id: int,
    public_id: str,
    *,
    lock: bool = False,
    is_deleted: bool | None = False,
) -> Link:
    """A link of this organization, locked against other changes if asked. Raises `NotFound`.

    Those that are deleted are others; None is for all of them.
    """
    row = await connection.fetchrow(
        f"""
        /* links.get */ select {COLUMNS} from links
         where organization_id = $1 and public_id = $2
           and ($3::boolean is null or (deleted_at is not null) = $3) and {taken.IS_THERE}"""  # noqa: S608
        + (" for update" if lock else ""),
        organization_id,
        ids.read("", public_id),
        is_deleted,
    )
    if row is None:
        raise NotFound("There is no such link.")
    return of_row(row)


async def get_many(
    connection: Connection, organization_id: int, public_ids: Sequence[str], *, is_deleted: bool | None = False
) -> dict[str, Link]:
    """Those of these links that there are in this organization, by their public ids, locked against other changes.

    Those that are deleted are others; None is for all of them.
    """
    rows = await connection.fetch(
        f"""
        /* links.get_many */ select {COLUMNS} from links
         where organization_id = $1 and public_id = any($2)
           and ($3::boolean is null or (deleted_at is not null) = $3) and {taken.IS_THERE}
         order by id for update""",  # noqa: S608
        organization_id,
        public_ids,
        is_deleted,
    )
    return {row["public_id"]: of_row(row) for row in rows}


async def by_external_id(connection: Connection, organization_id: int, external_id: str) -> Link | None:
    """The link that the organization knows by this id, locked against other changes, also while it is deleted."""
    row = await connection.fetchrow(
        f"""
        /* links.by_external_id */ select {COLUMNS} from links
         where organization_id = $1 and external_id = $2 and {taken.IS_THERE} for update""",  # noqa: S608
        organization_id,
        external_id,
    )
    return of_row(row) if row else None


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """Links of this organization."""
    is_by_clicks = asked.page is not None and (asked.sort, asked.order) == ("clicks", "desc")
    found = await LISTING.run(
        connection,
        f"/* links.page_of */ select {COLUMNS} from links where organization_id = $1 and deleted_at is null",  # noqa: S608
        [organization_id],
        asked._replace(sort=LISTING.default_sort) if is_by_clicks else asked,
    )
    return found._replace(rows=await _most_clicked(connection, organization_id, asked)) if is_by_clicks else found


async def _most_clicked(connection: Connection, organization_id: int, page: Asked) -> list[asyncpg.Record]:
    """A page in the order of clicks. Links that have none are in no index of it, and come behind the others."""
    begin = ((page.page or 1) - 1) * page.size
    select, values = LISTING.narrowed(
        f"""/* links.most_clicked */ select {COLUMNS} from links join link_counts on link_id = id and total > 0
             where organization_id = $1 and deleted_at is null""",  # noqa: S608
        [organization_id],
        page.filters,
    )
    part = f"offset ${len(values) + 1} limit ${len(values) + 2}"
    clicked_most = f"{select} order by total desc, public_id desc {part}"
    rows = await connection.fetch(clicked_most, *values, begin, page.size)
    if len(rows) == page.size:
        return rows
    name, _end, matching = select.partition("*/")
    counted = f"{name}*/ select count(*) from ({matching}) as clicked"  # noqa: S608
    clicked = begin + len(rows) if rows else await connection.fetchval(counted, *values)
    select, values = LISTING.narrowed(
        f"""/* links.most_clicked */ select {COLUMNS} from links
             where organization_id = $1 and deleted_at is null
               and not exists (select from link_counts where link_id = id and total > 0)""",  # noqa: S608
        [organization_id],
        page.filters,
    )
    unclicked = f"{select} order by public_id desc {part}"
    return rows + await connection.fetch(unclicked, *values, max(begin - clicked, 0), page.size - len(rows))


async def create_many(connection: Connection, new: Sequence[Link]) -> list[Link | None]:
    """New links, each with the time and an id; None for one whose address or external id is taken.

    One without a path gets a random one.
    """
    made: dict[str, Link] = {}
    named = [link._replace(public_id=ids.new_id()) for link in new]
    waiting = named
    for _ in range(_RANDOM_TRIES):
        tried = {link.public_id: link if link.path else link._replace(path=taken.random_path()) for link in waiting}
        await lock(connection, [link.address for link in tried.values()], taken.known_as(waiting))
        rows = await connection.fetch(
            f"""
            /* links.create_many */
            insert into links ({", ".join(_CREATED)}, was_limited, version, created_at, updated_at)
            select {", ".join(_CREATED)}, click_limit is not null, nextval('versions'),
                   date_trunc('milliseconds', now()), date_trunc('milliseconds', now())
              from jsonb_to_recordset($1) as new ({_declared(_CREATED)})
            on conflict do nothing
            returning public_id, id, was_limited, version, created_at, updated_at""",  # noqa: S608
            _records(list(tried.values()), _CREATED),
        )
        made |= {row["public_id"]: tried[row["public_id"]]._replace(**row) for row in rows}
        waiting = [link for link in waiting if link.public_id not in made]
        if waiting:
            holders = await taken.holders(connection, waiting)
            waiting = [link for link in waiting if not holders.of(link)]
        if not waiting:
            break
    await mark(connection, [link.address for link in made.values()])
    return [made.get(link.public_id) for link in named]


async def update(connection: Connection, link: Link, wanted: Link) -> Link:
    """Make a link that was read with `lock` what is wanted. Raises `AlreadyExists`."""
    [done] = await update_many(connection, [(link, wanted)])
    if isinstance(done, AlreadyExists):
        raise done
    return done


async def update_many(connection: Connection, pairs: Sequence[tuple[Link, Link]]) -> list[Link | AlreadyExists]:
    """Make links, none of them twice, what is wanted of each, as if one by one; and why others were not changed."""
    moved = [
        wanted for link, wanted in pairs if (link.address, link.external_id) != (wanted.address, wanted.external_id)
    ]
    await lock(connection, [one.address for pair in pairs for one in pair], taken.known_as(moved))
    holders = await taken.holders(connection, moved)
    if holders.entangle(moved, {link.id for link, _ in pairs}):
        return [one for pair in pairs for one in await update_many(connection, [pair])]
    refused = [wanted for wanted in moved if holders.of(wanted)]
    reasons = await taken.why(connection, refused) if refused else []
    done: dict[int, Link | AlreadyExists] = {
        link.id: AlreadyExists(why) for link, why in zip(refused, reasons, strict=True)
    }
    done |= await _updated(connection, [wanted for _, wanted in pairs if wanted.id not in done])
    await mark(connection, [one.address for pair in pairs if isinstance(done[pair[0].id], Link) for one in pair])
    return [done[link.id] for link, _ in pairs]


async def _updated(connection: Connection, wanted: Sequence[Link]) -> dict[int, Link]:
    rows = await connection.fetch(
        f"""
        /* links.updated */
        update links
           set {", ".join(f"{name} = wanted.{name}" for name in CHANGEABLE)},
               was_limited = was_limited or wanted.click_limit is not null,
               version = nextval('versions'),
               updated_at = greatest(date_trunc('milliseconds', now()), updated_at + interval '1 millisecond')
          from jsonb_to_recordset($1) as wanted ({_declared(_UPDATED)})
         where links.id = wanted.id
        returning links.id, was_limited, version, updated_at""",  # noqa: S608
        _records(wanted, _UPDATED),
    )
    known = {link.id: link for link in wanted}
    return {row["id"]: known[row["id"]]._replace(**row) for row in rows}


async def delete(connection: Connection, links: Collection[Link]) -> None:
    """Have links that were read with `lock` lead nowhere. Their clicks stay, and their addresses are kept for them."""
    addresses = [link.address for link in links]
    await lock(connection, addresses)
    await connection.execute(
        "/* links.delete */ update links set deleted_at = now(), version = nextval('versions') where id = any($1)",
        [link.id for link in links],
    )
    await mark(connection, addresses)


async def purge(connection: Connection, links: Collection[Link]) -> None:
    """The same, and their addresses are free."""
    addresses = [link.address for link in links]
    await lock(connection, addresses)
    await connection.execute("/* links.purge */ delete from links where id = any($1)", [link.id for link in links])
    await mark(connection, addresses)


async def restore(connection: Connection, link: Link) -> Link:
    """Bring back a deleted link that was read with `lock`."""
    await lock(connection, [link.address])
    await connection.execute(
        "/* links.restore */ update links set deleted_at = null, version = nextval('versions') where id = $1", link.id
    )
    await mark(connection, [link.address])
    return link._replace(deleted_at=None)


async def clear(connection: Connection) -> None:
    """Free the addresses of links that nobody may restore any more. Nothing is published there since the deletion."""
    await connection.execute(f"/* links.clear */ delete from links where not {taken.IS_THERE}")  # noqa: S608


async def lock(connection: Connection, addresses: Iterable[Address], known_as: Iterable[tuple[int, str]] = ()) -> None:
    """Have changes of these addresses, and of what has these external ids, wait until this transaction ends."""
    keys = {address.key for address in addresses} | {f"known:{owner}:{name}" for owner, name in known_as}
    # In one order everywhere, so that two changes that swap addresses can't wait for each other.
    await connection.execute(
        "/* links.lock */ select pg_advisory_xact_lock(hashtextextended(key, 0)) from unnest($1::text[]) as key",
        sorted(keys),
    )


async def mark(connection: Connection, addresses: Iterable[Address]) -> None:
    """Have these addresses published. Their locks must be held."""
    marked = sorted(set(addresses))
    await connection.execute(
        """
        /* links.mark */
        insert into unpublished (version, hostname, path)
        select nextval('versions'), hostname, path from unnest($1::text[], $2::text[]) as marked (hostname, path)""",
        [address.hostname for address in marked],
        [address.path for address in marked],
    )


def _declared(types: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in types.items())


def _records(links: Sequence[Link], types: dict[str, str]) -> str:
    """The rows for `jsonb_to_recordset`: one argument, however many and of whatever types."""
    rows = [{name: getattr(link, name) for name in types} for link in links]
    return json.dumps(rows, default=datetime.isoformat)  # unlike orjson it writes what Postgres makes of 1e20
