"""The audit log: who did what to which object, from where. It is only ever appended to, by the change's transaction."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from admin.database import Connection
from admin.http.ids import new_id
from admin.http.lists import Asked, Filter, Found, Listing, since, text, until
from admin.identity.principal import Principal


class Entry(NamedTuple):
    """A row of audit_log."""

    public_id: str
    at: datetime
    actor_type: str
    actor_id: str | None
    actor_name: str
    action: str
    object_type: str
    object_id: str | None
    address: str
    request_id: str
    details: str


_COLUMNS = (
    "public_id, at, actor_type, actor_id, actor_name, action, object_type, object_id, address, request_id, details"
)

LISTING = Listing(
    prefix="log",
    sorts={"createdAt": "public_id"},  # ids are in the order of time, and have an index
    filters={
        "action": Filter("action = {}", text),
        "actorId": Filter("actor_id = {}", text),
        "objectType": Filter("object_type = {}", text),
        "objectId": Filter("object_id = {}", text),
        "startDate": since("at"),
        "endDate": until("at"),
    },
)


async def record(
    connection: Connection,
    who: Principal,
    action: str,
    object_id: str,
    **details: Any,
) -> None:
    """`action` names the object and what became of it: `link.created`. Details must hold no secrets."""
    await record_many(connection, who, action, [(object_id, details)])


async def record_many(
    connection: Connection, who: Principal, action: str, objects: Sequence[tuple[str, dict[str, Any]]]
) -> None:
    """The same of several objects, each with its id and details."""
    await connection.execute(
        """
        /* audit.record_many */
        insert into audit_log (public_id, organization_id, actor_type, actor_id, actor_name, action, object_type,
                               object_id, address, request_id, details)
        select public_id, $2, $3, $4, $5, $6, $7, object_id, $8, $9, details::jsonb
          from unnest($1::text[], $10::text[], $11::text[]) as objects (public_id, object_id, details)""",
        [new_id() for _ in objects],
        who.organization_id,
        who.kind,
        who.shown_id,
        who.name,
        action,
        action.partition(".")[0],
        who.address,
        who.request_id,
        [object_id for object_id, _ in objects],
        [json.dumps(details) for _, details in objects],
    )


async def of_object(connection: Connection, organization_id: int, object_id: str, asked: Asked) -> Found:
    """What was done to one object."""
    return await LISTING.run(
        connection,
        f"/* audit.of_object */ select {_COLUMNS} from audit_log where organization_id = $1 and object_id = $2",  # noqa: S608
        [organization_id, object_id],
        asked,
    )


async def page_of(connection: Connection, organization_id: int, asked: Asked) -> Found:
    """What was done in this organization."""
    return await LISTING.run(
        connection,
        f"/* audit.page_of */ select {_COLUMNS} from audit_log where organization_id = $1",  # noqa: S608
        [organization_id],
        asked,
    )
