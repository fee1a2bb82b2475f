"""Importing: from the rows of a file to links, a batch at a time.

Rules of this file:

1. A batch is one transaction, with the note of how far the file has got (`Book`): whatever dies, it goes on behind the
   last batch. When that has committed, its links are published, beside the next batch.
2. A row means the link with its externalId, or else the one at its address. If the organization has that link, it stays
   as it is, or is made what the file says of it, as the plan has it; what the file is silent about stays. An address of
   somebody else is refused. So the same file again changes nothing.
3. No host is taken because a file names it. What is on hosts that the organization does not have goes to the plan's.
4. Passwords come along in no file. A link that had one is disabled, unless it has one here already.
5. A dry run does it all, and undoes each batch. So of two rows for one link it knows only if they are in one batch.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, Protocol

from admin.database import Connection, Pool
from admin.errors import AlreadyExists, ApiError, Invalid
from admin.identity.principal import Principal
from admin.links import candidates, changes, domains, drafts, links, taken
from admin.links.candidates import Batch, Candidate, Note, column_of
from admin.links.fields import LinkChange, NewLink
from admin.links.links import Link
from admin.links.publish import Publisher
from admin.links.transfer.reading import Reading, read
from admin.settings import AdminSettings
from shared.links import Address
from shared.redis import Redis

COUNTED = ("created", "updated", "unchanged", "skipped", "refused", "moved", "disabled")
"""What is counted: each line once among the first five; `moved` are not on the host of the file, `disabled` had a
password."""

_DELETED = "A deleted link has this address or externalId: restore it, or delete it with purge=true."
_IN_THE_WAY = "Other lines of this file have this address or externalId, too. Import the file once more."
_NO_PASSWORD = "Its password is not in the file, so the link is disabled. Give it one, then enable it."  # noqa: S105
_TRIES = 5
_PUBLISH_S = 5.0
_STAY_S = 10.0


class Plan(NamedTuple):
    """What somebody wants of an import."""

    source: str = ""
    """Who wrote the file, of `transfer.formats.SOURCES`; empty for whoever its columns name."""
    hostname: str | None = None
    """For links that name no host, or one that the organization does not have; None for its default."""
    on_conflict: str = "skip"
    """skip or update: what becomes of links that are there."""
    is_dry_run: bool = False


@dataclass
class Done:
    """What became of a batch."""

    used: dict[str, str]
    """Of what its columns tell."""
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[Note] = field(default_factory=list)
    touched: set[Address] = field(default_factory=set)
    first_limited: list[int] = field(default_factory=list)

    def refuse(self, line: int, error: ApiError) -> None:
        """Why there is no link for a line."""
        self.counts["refused"] += 1
        for detail in error.details:
            self.notes.append(Note(line, column_of(self.used, detail.field), detail.message))
        if not error.details:
            self.notes.append(Note(line, "", str(error)))


class Book(Protocol):
    """Where it is written how far a file has got."""

    async def enter(self, connection: Connection, batch: Batch, done: Done) -> None:
        """What became of a batch, in its transaction; for a dry run, behind it. What it raises undoes the batch."""

    async def stay(self) -> None:
        """While it takes long to find a batch in the file."""


class Importer:
    """Carries imports out. It needs two connections of the pool, and more where the file itself is in Postgres."""

    def __init__(self, pool: Pool, redis: Redis, settings: AdminSettings) -> None:
        self._pool = pool
        self._publisher = Publisher(redis, within_s=_PUBLISH_S)
        self._settings = settings

    async def run(self, file: BinaryIO, plan: Plan, caller: Principal, book: Book, *, after: int = 0) -> None:
        """Import what is in a file behind a position; it is read in threads, and closed. Raises `NotReadable`."""
        ahead: asyncio.Task[Any] = asyncio.create_task(asyncio.to_thread(read, file, plan.source))
        publication = asyncio.create_task(self._published(Done({})))
        try:
            reading: Reading = await _when_read(ahead, book)
            found = candidates.batches(reading, self._settings, file.tell, after=after)
            ahead = _next(found)
            while batch := await _when_read(ahead, book):
                ahead = _next(found)
                done = await self._settled(plan, caller, batch, book)
                await publication
                publication = asyncio.create_task(self._published(done))
        finally:
            file.close()  # which ends what a thread still reads
            await asyncio.gather(ahead, publication, return_exceptions=True)

    async def _settled(self, plan: Plan, caller: Principal, batch: Batch, book: Book) -> Done:
        default = self._settings.default_hostname
        done = Done(batch.used, Counter(refused=batch.refused), list(batch.notes))
        async with self._pool.acquire() as connection:
            if plan.is_dry_run:
                trial = connection.transaction()
                await trial.start()
                try:
                    await settle(connection, caller, plan, batch.candidates, default, done)
                finally:
                    await trial.rollback()
                done.touched, done.first_limited = set(), []
            async with connection.transaction():
                if not plan.is_dry_run:
                    await settle(connection, caller, plan, batch.candidates, default, done)
                await book.enter(connection, batch, done)
        return done

    async def _published(self, done: Done) -> None:
        if done.touched:
            async with self._pool.acquire() as connection:
                await self._publisher.now(connection, done.touched, first_limited=done.first_limited)


def _next(found: Iterator[Batch]) -> "asyncio.Task[Batch | None]":
    return asyncio.create_task(asyncio.to_thread(next, found, None))


async def _when_read(reading: "asyncio.Task[Any]", book: Book) -> Any:
    while not reading.done():
        await asyncio.wait([reading], timeout=_STAY_S)
        if not reading.done():
            await book.stay()
    return reading.result()


class _Draft(NamedTuple):
    candidate: Candidate
    link: Link
    refusal: ApiError | None
    is_moved: bool


async def settle(
    connection: Connection,
    caller: Principal,
    plan: Plan,
    wanted: Sequence[Candidate],
    default_hostname: str,
    done: Done,
) -> None:
    """Make links of a batch, or find them made, and tell what became of each. In the caller's transaction."""
    waiting = await _drafts(connection, caller, plan, wanted, default_hostname, done)
    # What stands in the way of a row may be another one of the same batch: then it is there the next time.
    for _ in range(_TRIES):
        waiting = await _tried(connection, caller, plan, waiting, done)
    for draft in waiting:
        done.refuse(draft.candidate.line, draft.refusal or AlreadyExists(_IN_THE_WAY))
    done.notes.sort(key=lambda note: note.line)


async def _drafts(
    connection: Connection,
    caller: Principal,
    plan: Plan,
    wanted: Sequence[Candidate],
    default_hostname: str,
    done: Done,
) -> list[_Draft]:
    target = plan.hostname or await domains.default_of(connection, caller.organization_id) or default_hostname
    ours = await _ours(connection, caller.organization_id, {one.new.hostname for one in wanted if one.new.hostname})
    found: list[tuple[Candidate, Link]] = []
    for one in wanted:
        hostname = one.new.hostname if one.new.hostname in ours else target
        try:
            draft = await drafts.draft(
                caller.organization_id, caller.owner_id, _without_ids(one.new), default_hostname=target
            )
            link = draft.accepted()
        except Invalid as error:
            done.refuse(one.line, error)
        else:
            is_disabled = link.disabled or one.had_password
            clicks = one.historic_clicks
            found.append((one, link._replace(hostname=hostname, disabled=is_disabled, historic_clicks=clicks)))
    settled = await drafts.settled(connection, caller.organization_id, [link for _, link in found])
    return [
        _Draft(one, link, refusal, is_moved=one.new.hostname not in (None, link.hostname))
        for (one, _), (link, refusal) in zip(found, settled, strict=True)
    ]


async def _ours(connection: Connection, organization_id: int, hostnames: Collection[str]) -> set[str]:
    """Those of these hosts on which the organization may have links already, until the transaction ends."""
    rows = await connection.fetch(
        """
        /* importing.ours */
        select hostname from domains
         where hostname = any($1) and (organization_id is null or organization_id = $2)
         order by hostname for key share""",
        list(hostnames),
        organization_id,
    )
    return {row["hostname"] for row in rows}


async def _tried(
    connection: Connection, caller: Principal, plan: Plan, waiting: Sequence[_Draft], done: Done
) -> list[_Draft]:
    """Those that another row has come in the way of, which is worth another try."""
    if not waiting:
        return []
    there = _There(await _like(connection, caller.organization_id, [draft.link for draft in waiting]))
    new = [draft for draft in waiting if there.of(draft.link) is None]
    met = [draft for draft in waiting if there.of(draft.link) is not None]
    again = []
    made = await changes.make(connection, [(draft.link, draft.refusal) for draft in new])
    for draft, link in zip(new, made, strict=True):
        if isinstance(link, Link):
            _tell(done, "created", draft, None, link)
        elif isinstance(link, AlreadyExists) and draft.refusal is None:
            again.append(draft._replace(refusal=link))
        else:
            done.refuse(draft.candidate.line, link)
    for draft in met:
        before = there.of(draft.link)
        if before is None:  # an earlier row has moved it
            is_free = isinstance(draft.refusal, AlreadyExists)
            again.append(draft._replace(refusal=None) if is_free else draft)
            continue
        try:
            outcome, after = await _met(connection, plan, draft, before)
        except ApiError as error:
            done.refuse(draft.candidate.line, error)
        else:
            there.is_now(before, after)
            _tell(done, outcome, draft, before, after)
    return sorted(again, key=lambda draft: draft.candidate.line)


class _There:
    """Links of the organization that rows may mean."""

    def __init__(self, found: Sequence[Link]) -> None:
        self._by_address = {link.address: link for link in found}
        self._by_external_id = {link.external_id: link for link in found if link.external_id is not None}

    def of(self, wanted: Link) -> Link | None:
        """The one that is meant by this."""
        known = self._by_external_id.get(wanted.external_id) if wanted.external_id is not None else None
        return known or self._by_address.get(wanted.address)

    def is_now(self, before: Link, after: Link) -> None:
        """Take note of a change."""
        self._by_address.pop(before.address, None)
        self._by_address[after.address] = after
        if before.external_id is not None:
            self._by_external_id.pop(before.external_id, None)
        if after.external_id is not None:
            self._by_external_id[after.external_id] = after


async def _like(connection: Connection, organization_id: int, wanted: Sequence[Link]) -> list[Link]:
    """Links of the organization with these addresses or external ids, also deleted ones, locked against changes."""
    rows = await connection.fetch(
        f"""
        /* importing.like */
        select {links.COLUMNS} from links
         where organization_id = $1 and {taken.IS_THERE}
           and id = any(array(
               select id from links where (hostname, path) in (select * from unnest($2::text[], $3::text[]))
               union
               select id from links where organization_id = $1 and external_id = any($4)))
         order by id for update""",  # noqa: S608
        organization_id,
        [link.hostname for link in wanted],
        [link.path for link in wanted],
        [link.external_id for link in wanted if link.external_id is not None],
    )
    return [links.of_row(row) for row in rows]


async def _met(connection: Connection, plan: Plan, draft: _Draft, link: Link) -> tuple[str, Link]:
    """What becomes of a link that is there, and what it is then. Raises `ApiError`."""
    if link.deleted_at:
        raise AlreadyExists(_DELETED)
    is_update = plan.on_conflict == "update"
    try:
        wanted = (await drafts.changed(link, _change(draft, link))).accepted()
    except Invalid:
        if is_update:
            raise
        return "skipped", link
    if draft.candidate.historic_clicks:
        wanted = wanted._replace(historic_clicks=draft.candidate.historic_clicks)
    if wanted == link:
        return "unchanged", link
    return ("updated", await changes.alter(connection, link, wanted)) if is_update else ("skipped", link)


def _change(draft: _Draft, link: Link) -> LinkChange:
    """What the file says of a link that is there."""
    new = draft.candidate.new
    sent = {name: getattr(new, name) for name in new.model_fields_set}
    if "hostname" in sent:
        sent["hostname"] = draft.link.hostname
    if "path" in sent:
        sent["path"] = draft.link.path
    if draft.candidate.had_password and link.password_hash is None:
        sent["disabled"] = True
    for name in {"rules", "variants"} & sent.keys():
        known = {part["id"] for part in getattr(link, name)} if draft.candidate.public_id == link.public_id else set()
        parts = [part if part.id in known else part.model_copy(update={"id": None}) for part in sent[name]]
        if _bare(part.model_dump() for part in parts) == _bare(getattr(link, name)):
            del sent[name]  # they are the same, by whatever ids
        else:
            sent[name] = parts
    return LinkChange.model_construct(set(sent), **sent)


def _bare(parts: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in part.items() if key != "id"} for part in parts]


def _without_ids(new: NewLink) -> NewLink:
    """As a link that is made, whose rules and variants have no ids yet."""
    if not new.rules and not new.variants:
        return new
    bare = {
        name: [part.model_copy(update={"id": None}) for part in getattr(new, name)] for name in ("rules", "variants")
    }
    return new.model_copy(update=bare)


def _tell(done: Done, outcome: str, draft: _Draft, before: Link | None, after: Link) -> None:
    done.counts[outcome] += 1
    done.counts["moved"] += draft.is_moved
    if outcome not in ("created", "updated"):
        return
    done.touched |= {after.address, *([before.address] if before else [])}
    if after.was_limited and not (before and before.was_limited):
        done.first_limited.append(after.id)
    if draft.candidate.had_password and after.password_hash is None:
        done.counts["disabled"] += 1
        done.notes.append(Note(draft.candidate.line, "", _NO_PASSWORD, is_refusal=False))
