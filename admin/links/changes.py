"""Changes: what a caller does to links, checked, written, and told to the audit log, in the caller's transaction.

Several links at once are several changes: what is refused of one is no trouble for the others. Only `make` and `alter`
leave it to their callers to tell of them.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from pydantic.alias_generators import to_camel

from admin.database import Connection
from admin.errors import AlreadyExists, ApiError, Detail, Invalid
from admin.http.answers import instant
from admin.identity import audit
from admin.identity.principal import Principal
from admin.links import checker, claims, drafts, links, safety, taken
from admin.links.drafts import Draft
from admin.links.fields import LinkChange, NewLink
from admin.links.links import Link
from shared.links import Address

_TOLD = [name for name in links.CHANGEABLE if name not in ("last_part", "password_hash")]


async def create(connection: Connection, caller: Principal, wanted: Sequence[Draft]) -> list[Link | ApiError]:
    """The links that were made, and why others were not."""
    new, wrong = [draft.link for draft in wanted], [draft.wrong for draft in wanted]
    done = await make(connection, await drafts.settled(connection, caller.organization_id, new, wrong))
    await _give_back(connection, caller, new, done)
    created = [link for link in done if isinstance(link, Link)]
    await audit.record_many(connection, caller, "link.created", [(link.public_id, told(link)) for link in created])
    return done


async def make(connection: Connection, settled: Sequence[tuple[Link, ApiError | None]]) -> list[Link | ApiError]:
    """The same of links that are settled. Nobody is told."""
    made = iter(await links.create_many(connection, [link for link, refusal in settled if refusal is None]))
    done = [refusal or next(made) or link for link, refusal in settled]
    refused = [link for link in done if isinstance(link, Link) and not link.id]
    reasons = iter(await taken.why(connection, refused) if refused else [])
    return [AlreadyExists(next(reasons)) if isinstance(one, Link) and not one.id else one for one in done]


async def change(connection: Connection, caller: Principal, link: Link, change: LinkChange) -> Link:
    """Change a link that was read with `lock`. Raises `Invalid`, `DestinationBlocked`, `AlreadyExists`."""
    [changed] = await change_many(connection, caller, [(link, change)])
    if isinstance(changed, ApiError):
        raise changed
    return changed


async def change_many(
    connection: Connection, caller: Principal, asked: Sequence[tuple[Link, LinkChange]]
) -> list[Link | ApiError]:
    """Links, none of them twice, that were read with `lock` as they are after their changes; why others have none."""
    wanted = [await drafts.changed(link, change) for link, change in asked]
    pairs = [(before, draft.link) for (before, _), draft in zip(asked, wanted, strict=True)]
    done = await alter_many(connection, pairs, [draft.wrong for draft in wanted])
    await _give_back(connection, caller, [link for _, link in pairs], done)
    told_of = [
        (after.public_id, told(after) | {"changes": _differences(before, after)})
        for (before, _), after in zip(asked, done, strict=True)
        if isinstance(after, Link)
    ]
    await audit.record_many(connection, caller, "link.changed", told_of)
    return done


async def _give_back(
    connection: Connection, caller: Principal, wanted: Sequence[Link], done: Sequence[Link | ApiError]
) -> None:
    """Leave no host with the organization only because a link was wanted there."""
    refused = {link.hostname for link, one in zip(wanted, done, strict=True) if isinstance(one, ApiError)}
    if refused:
        await claims.give_back(connection, caller.organization_id, refused)


async def alter(connection: Connection, link: Link, wanted: Link) -> Link:
    """Make a link that was read with `lock` what is wanted (`drafts.changed`). Nobody is told. Raises as the others."""
    [altered] = await alter_many(connection, [(link, wanted)])
    if isinstance(altered, ApiError):
        raise altered
    return altered


async def alter_many(
    connection: Connection, pairs: Sequence[tuple[Link, Link]], wrong: Sequence[list[Detail]] = ()
) -> list[Link | ApiError]:
    """The same of links, none of them twice; and why others stay as they are, beside what is known to be wrong."""
    known = {link.id: found for (link, _), found in zip(pairs, wrong, strict=False)}
    done: dict[int, Link | ApiError] = {key: Invalid(details=found) for key, found in known.items() if found}
    wanted_of = {link.id: wanted for link, wanted in pairs}
    leading = [link.id for link, wanted in pairs if _leads(link) != _leads(wanted)]
    if leading:
        found = await drafts.settled(
            connection,
            pairs[0][0].organization_id,
            [wanted_of[key] for key in leading],
            [known.get(key, []) for key in leading],
        )
        wanted_of |= {key: wanted for key, (wanted, _) in zip(leading, found, strict=True)}
        done |= {key: refusal for key, (_, refusal) in zip(leading, found, strict=True) if refusal}
    accepted = []
    for link, _ in pairs:
        wanted = wanted_of[link.id]
        if link.id not in done:
            if wanted.destination != link.destination:
                await checker.forget(connection, link.id)
                wanted = wanted._replace(destination_status="unchecked", destination_checked_at=None)
            accepted.append((link, wanted))
    updated = await links.update_many(connection, accepted) if accepted else []
    done |= {link.id: after for (link, _), after in zip(accepted, updated, strict=True)}
    return [done[link.id] for link, _ in pairs]


def _leads(link: Link) -> tuple[Address, list[tuple[str, str]]]:
    """From where to where: what may be wrong because of other links, and of whose the hosts are."""
    return link.address, link.destinations


async def put(
    connection: Connection, caller: Principal, new: NewLink, change_of: LinkChange, *, default_hostname: str
) -> tuple[Link | None, Link]:
    """The link with the external id of `new`, as it was and as it is: changed, or made. Raises as the others do."""
    assert new.external_id is not None
    before = await links.by_external_id(connection, caller.organization_id, new.external_id)
    if before is None:
        wanted = await drafts.draft(caller.organization_id, caller.owner_id, new, default_hostname=default_hostname)
        [made] = await create(connection, caller, [wanted])
        if isinstance(made, Link):
            return None, made
        before = await links.by_external_id(connection, caller.organization_id, new.external_id)
        if before is None:  # it is not another request that was faster
            raise made
    if before.deleted_at:
        raise AlreadyExists(f"A deleted link has this externalId; {taken.way_out(bool(before.reported_at))}")
    return before, await change(connection, caller, before, change_of)


async def delete(connection: Connection, caller: Principal, doomed: Collection[Link], *, purge: bool = False) -> None:
    """Delete links that were read with `lock`. Those that were reported keep their addresses also from `purge`."""
    freed = [link for link in doomed if purge and not link.reported_at]
    kept = [link for link in doomed if link.reported_at or not purge]
    for have_gone, some, action in ((links.purge, freed, "link.purged"), (links.delete, kept, "link.deleted")):
        if some:
            await have_gone(connection, some)
            await audit.record_many(connection, caller, action, [(link.public_id, told(link)) for link in some])


async def restore(connection: Connection, caller: Principal, link: Link) -> Link:
    """Bring back a deleted link that was read with `lock`. Raises `DestinationBlocked`.

    One that was reported may come back whatever is blocked, because it leads nowhere.
    """
    blocked = set() if link.reported_at else await safety.blocked(connection, {one for _, one in link.destinations})
    if refusal := safety.refusal([], link.destinations, blocked):
        raise refusal
    restored = await links.restore(connection, link)
    await audit.record(connection, caller, "link.restored", link.public_id, **told(link))
    return restored


def told(link: Link) -> dict[str, Any]:
    """What the audit log tells of a link."""
    return {"hostname": link.hostname, "path": link.path, "destination": link.destination}


def _differences(before: Link, after: Link) -> dict[str, list[Any]]:
    """The fields that are not as they were: what they were, and are; of a password only whether there is one."""
    differences = {
        to_camel(name): [_plain(getattr(before, name)), _plain(getattr(after, name))]
        for name in _TOLD
        if getattr(before, name) != getattr(after, name)
    }
    if before.password_hash != after.password_hash:
        differences["hasPassword"] = [before.password_hash is not None, after.password_hash is not None]
    return differences


def _plain(value: Any) -> Any:
    return instant(value) if isinstance(value, datetime) else value
